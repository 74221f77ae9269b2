"""C12: what QAT gains over rounding, by bits, and what fine-tuning in full precision does."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims.pairs import best_of_common
from qbench.claims.subject import Subject
from qbench.report.figures.axes import bits_axis, change_axis
from qbench.report.figures.figure import Curve, Figure, Panel
from qbench.report.figures.paging import Sheet, pages
from qbench.report.figures.places import bits_of, present, rounding, thresholds_by_bits, where

_ARMS = ("ste_qat", "ft_then_ptq")


def gap(subjects: Sequence[Subject]) -> list[Figure]:
    """Return by how much each arm is below rounding, by bits."""
    sheets = []
    for subject in subjects:
        rows: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for bits in bits_of(subject, *_ARMS):
            for seed in subject.seeds:
                rounded = rounding(subject, seed, bits)
                arms = present(best_of_common, subject, seed, bits, _ARMS)
                if rounded is not None and arms is not None:
                    for name, cell in arms.items():
                        rows.setdefault((name, seed), []).append((float(bits), rounded.excess - cell.excess))
        curves = []
        for name in _ARMS:
            for seed in subject.seeds:
                if (name, seed) in rows:
                    x, y = zip(*rows[name, seed], strict=True)
                    curves.append(Curve(name, seed, x, y))
        widths = sorted({int(x) for curve in curves for x in curve.x}, reverse=True)
        if len(widths) > 1:
            guides = thresholds_by_bits(subject, widths)[:1]
            panel = Panel(
                where(subject),
                bits_axis(widths),
                change_axis("loss below rounding, L(rtn) - L (nats)", guides[0].y[0] if guides else None),
                tuple(curves),
                guides=guides,
            )
            sheets.append(Sheet(subject, [panel]))
    notes = ["Both arms with the same budgets and learning rates, the best of each. τ: that of rounding at these bits."]
    title = "C12: does the gap between rounding and QAT vanish on fine grids?"
    return pages("C12_gap", title, notes, sheets)
