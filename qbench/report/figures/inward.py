"""C7: whether gradients point back to the full-precision weights, by bits."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims.subject import Subject
from qbench.report.figures.axes import bits_axis
from qbench.report.figures.figure import Axis, Band, Curve, Figure, Panel
from qbench.report.figures.paging import Sheet, pages
from qbench.report.figures.places import bits_of, mean, probe, where

_TICKS = (-1.0, -0.3, -0.1, -0.03, -0.01, -0.003, -0.001, 0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

_MOST = 0.9  # of a handful of weights, random signs are no null


def inward(subjects: Sequence[Subject]) -> list[Figure]:
    """Return the cosine with the way back, at the rounded and at the latent weights, and the null's."""
    sheets = []
    for subject in subjects:
        panel = _panel(subject)
        if panel is not None:
            sheets.append(Sheet(subject, [panel]))
    notes = [
        "Cosine of the direction of descent with the way from the rounded to the full-precision weights; above 0 it "
        "points inward. Grey: 1-99 % of the null, the same way with its signs drawn at random, mean over seeds. The "
        "axis is linear within the null and logarithmic beyond.",
    ]
    title = "C7: do gradients at rounded weights point inward, and those at full precision not?"
    return pages("C07_inward", title, notes, sheets)


def _panel(subject: Subject) -> Panel | None:
    bits = bits_of(subject, "inward")
    held = {
        (seed, width): found.metrics
        for seed in subject.seeds
        for width in bits
        if (found := probe(subject, seed, width, "inward")) is not None
    }
    if not held:
        return None
    curves = [
        Curve(
            series,
            seed,
            tuple(float(width) for at, width in held if at == seed),
            tuple(metrics[f"cosine/{series}"] for (at, _), metrics in held.items() if at == seed),
        )
        for series in ("deployed", "latent")
        for seed in subject.seeds
        if any(at == seed for at, _ in held)
    ]
    widths = sorted({width for _, width in held}, reverse=True)
    by_bits = [[metrics for (_, at), metrics in held.items() if at == width] for width in widths]
    high = tuple(mean(one["null/high"] for one in found) for found in by_bits)
    # The null is symmetric about its mean: a draw with all signs turned is as likely.
    low = tuple(mean(2 * one["null/mean"] - one["null/high"] for one in found) for found in by_bits)
    if max(high) > _MOST:
        return None
    band = Band("null", tuple(map(float, widths)), low, high)
    if len(widths) == 1:
        # One bitwidth alone would have a band of no width.
        band = Band("null", (widths[0] + 0.5, widths[0] - 0.5), low * 2, high * 2)
    return Panel(
        where(subject),
        bits_axis(widths),
        Axis(
            "cosine with the way back to w_fp",
            "symlog",
            constant=max(high),
            ticks=tuple(at for at in _TICKS if not 0 < abs(at) < 0.3 * max(high)),
        ),
        tuple(curves),
        bands=(band,),
    )
