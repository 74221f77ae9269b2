"""C1 and C2: the excess by bits, and by the size of the step."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims.ladders import exits, ladder_of, rungs, trace
from qbench.claims.subject import Subject
from qbench.report.figures.axes import bits_axis, excess_axis
from qbench.report.figures.figure import Axis, Curve, Figure, Level, Panel
from qbench.report.figures.paging import Sheet, pages
from qbench.report.figures.places import (
    bits_of,
    mean,
    present,
    probe,
    rounding,
    thresholds_by_bits,
    where,
)

_STEP = Axis("step size Δ (weight units, RMS over layers)", "log")


def sharp_failure(subjects: Sequence[Subject]) -> list[Figure]:
    """Return the excess of rounding by bits."""
    sheets = []
    for subject in subjects:
        bits = bits_of(subject, "rtn")
        curves = []
        for seed in subject.seeds:
            held = [cell for width in bits if (cell := rounding(subject, seed, width)) is not None]
            widths = tuple(float(cell.record.axes["bits"] or 0) for cell in held)
            curves.append(Curve("rtn", seed, widths, tuple(cell.excess for cell in held)))
        if len(bits) < 2 or not any(curve.x for curve in curves):
            continue
        panel = Panel(
            where(subject),
            bits_axis(bits),
            excess_axis(),
            tuple(curve for curve in curves if curve.x),
            guides=thresholds_by_bits(subject, bits),
        )
        sheets.append(Sheet(subject, [panel]))
    notes = ["Rounding to nearest is inside the basin below τ and has failed above τ_f."]
    return pages("C01_sharp_failure", "C1: does rounding fail sharply as bits fall?", notes, sheets)


def step_ladder(subjects: Sequence[Subject]) -> list[Figure]:
    """Return the excess of rounding and of uniform noise by step size."""
    sheets = []
    for subject in subjects:
        panel = _ladder(subject)
        if panel is not None:
            sheets.append(Sheet(subject, [panel]))
    notes = [
        "No weight is clipped. Coloured verticals: Δ*, where the curve of that colour leaves the basin (D = τ), mean "
        "over seeds. Grey verticals: the steps of the grids at these bits.",
    ]
    title = "C2: does noise leave the basin at the step at which rounding does?"
    return pages("C02_step_ladder", title, notes, sheets)


def _ladder(subject: Subject) -> Panel | None:
    curves, ends, levels = [], [], []
    for seed in subject.seeds:
        ladder = present(ladder_of, subject, seed)
        if ladder is None:
            continue
        factors = present(trace, ladder, "factor")
        for series in ("rtn", "noise"):
            one = present(rungs, subject, ladder, series)
            if one is not None:
                curves.append(Curve(series, seed, one.step, one.excess, tuple(factors or ())))
        end = present(exits, subject, ladder)
        if end is not None:
            ends.append(end)
    if not curves:
        return None
    if ends:
        levels.append(Level("y", mean(end.level for end in ends), "τ"))
    for series, steps in (("rtn", [end.rtn for end in ends]), ("noise", [end.noise for end in ends])):
        if found := [step for step in steps if step is not None]:
            levels.append(Level("x", mean(found), series=series))
    first, last = (pick(step for curve in curves for step in curve.x) for pick in (min, max))
    levels += [level for level in _grids(subject) if first <= level.value <= last]
    return Panel(where(subject), _STEP, excess_axis(), tuple(curves), levels=tuple(levels))


def _grids(subject: Subject) -> list[Level]:
    """Return the steps of grids whose own ladder was climbed."""
    levels = []
    for bits in bits_of(subject, "ladder"):
        steps = [
            found.traces["step"][0] / found.traces["factor"][0]
            for seed in subject.seeds
            if (found := probe(subject, seed, bits, "ladder")) is not None and rounding(subject, seed, bits) is not None
        ]
        if steps:
            levels.append(Level("x", mean(steps), f"{bits}b"))
    return levels
