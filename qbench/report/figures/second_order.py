"""C4: methods by bits, in loss and in what second-order methods minimise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qbench.claims.measured import Measured
from qbench.claims.subject import Subject
from qbench.report.figures.axes import bits_axis, excess_axis
from qbench.report.figures.figure import Axis, Curve, Figure, Panel
from qbench.report.figures.paging import Sheet, pages
from qbench.report.figures.places import bits_of, cells, mean, present, thresholds_by_bits, where

_METHODS = ("rtn", "gptq", "adaround", "ste_qat")


def second_order(subjects: Sequence[Subject]) -> list[Figure]:
    """Return the excess of each method by bits, and the mean output error of its layers."""
    sheets = []
    for subject in subjects:
        bits = bits_of(subject, *_METHODS)
        if len({name for name in _METHODS if bits_of(subject, name)}) < 2 or len(bits) < 2:
            continue
        loss = Panel(
            where(subject),
            bits_axis(bits),
            excess_axis(),
            tuple(_curves(subject, bits, lambda cell: cell.excess)),
            guides=thresholds_by_bits(subject, bits),
        )
        proxy = Panel(
            f"{where(subject)}\nlayers",
            bits_axis(bits),
            Axis("|WX - QX|² / |WX|², mean over layers", "log"),
            tuple(_curves(subject, bits, _proxy)),
        )
        sheets.append(Sheet(subject, [loss, proxy]))
    notes = [
        "Inside the basin below τ, failed above τ_f. Layers: the error of their outputs on calibration inputs, which "
        "second-order rounding minimises. Of several cells of a method the plainest; of QAT the best.",
    ]
    title = "C4: does second-order rounding fail too, later than nearest rounding?"
    return pages("C04_second_order", title, notes, sheets)


def _proxy(cell: Measured) -> float | None:
    errors = [layer.output_error for layer in cell.record.layers]
    return mean(errors) if errors else None


def _curves(subject: Subject, bits: Sequence[int], value: Callable[[Measured], float | None]) -> list[Curve]:
    curves = []
    for method in _METHODS:
        for seed in subject.seeds:
            rows = []
            for width in bits:
                cell = _chosen(subject, seed, width, method)
                number = None if cell is None else value(cell)
                if number is not None:
                    rows.append((float(width), number))
            if rows:
                x, y = zip(*rows, strict=True)
                curves.append(Curve(method, seed, x, y))
    return curves


def _chosen(subject: Subject, seed: int, bits: int, method: str) -> Measured | None:
    if method == "ste_qat":
        return min(cells(subject, seed, bits, method), key=lambda cell: (cell.excess, cell.label), default=None)
    return present(subject.plain, seed, bits, method)
