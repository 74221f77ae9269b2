"""C14: the width of the basin by noise and by rounding, over checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims.curves import rank_correlation
from qbench.claims.ladders import exits
from qbench.claims.subject import Subject
from qbench.report.figures.figure import Axis, Curve, Figure, Guide, Panel
from qbench.report.figures.paging import Sheet, brief, pages
from qbench.report.figures.places import counted, present, probe

Checkpoint = tuple[Subject, int, float, float]
"""Model and quantizer, seed, and the steps at which rounding and noise leave the basin."""


def width(subjects: Sequence[Subject]) -> list[Figure]:
    """Return where noise leaves the basin by where rounding does, one point a checkpoint."""
    families: dict[tuple[str, str], list[Subject]] = {}
    for subject in subjects:
        families.setdefault((subject.model.partition("[")[0], subject.quantizer), []).append(subject)
    sheets = []
    for (model, quantizer), ours in sorted(families.items()):
        bits, places = _checkpoints(ours)
        if len(places) < 2:
            continue
        ends = [value for _, _, rtn, noise in places for value in (rtn, noise)]
        together = rank_correlation([rtn for _, _, rtn, _ in places], [noise for _, _, _, noise in places])
        panel = Panel(
            f"{model}, {brief(quantizer)}\nladders from {counted(bits)}, rank correlation {together:.2f}",
            Axis("Δ* of rounding (weight units)", "log"),
            Axis("Δ* of uniform noise (weight units)", "log"),
            tuple(Curve(subject.model, seed, (rtn,), (noise,)) for subject, seed, rtn, noise in places),
            joined=False,
            guides=(Guide("equal", (min(ends), max(ends)), (min(ends), max(ends))),),
        )
        sheets.append(Sheet(places[0][0], [panel], tuple(subject.model for subject, *_ in places)))
    notes = [
        "Δ*: the step at which the excess reaches τ. One point a checkpoint: a seed, a length or phase of training."
    ]
    title = "C14: do wider basins leave room for coarser grids?"
    return pages("C14_width", title, notes, sheets, titled=True)


def _checkpoints(subjects: Sequence[Subject]) -> tuple[int, list[Checkpoint]]:
    """Return the bits at which most checkpoints have a ladder, and those checkpoints."""
    by_bits: dict[int, list[Checkpoint]] = {}
    for subject in subjects:
        for seed in subject.seeds:
            for bits in subject.bits("ladder", seed):
                ladder = probe(subject, seed, bits, "ladder")
                if ladder is None:
                    continue
                end = present(exits, subject, ladder)
                if end is not None and end.rtn is not None and end.noise is not None:
                    by_bits.setdefault(bits, []).append((subject, seed, end.rtn, end.noise))
    if not by_bits:
        return 0, []
    most = max(by_bits, key=lambda bits: (len(by_bits[bits]), bits))
    return most, by_bits[most]
