"""C9: how much arms recover that differ in where the gradient is taken."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims.measured import Measured
from qbench.claims.pairs import budget, gain
from qbench.claims.subject import Subject
from qbench.report.figures.figure import Axis, Curve, Figure, Level, Panel
from qbench.report.figures.paging import Sheet, pages
from qbench.report.figures.places import cells, outside, rounding, where

_ARMS = ("ste_qat", "noise_grad", "latent_grad", "random_grad", "ft_then_ptq")
_LEAST = -0.5  # the frame's lower end: how much worse than rounding does not matter here


def locus(subjects: Sequence[Subject]) -> list[Figure]:
    """Return the share of rounding's excess that each arm recovers, by learning rate."""
    sheets = []
    for subject in subjects:
        for bits in outside(subject, *_ARMS):
            # Rates of other optimizers or budgets are other rates.
            for words, held in _by_setting(subject, bits).items():
                title = f"{where(subject, bits)}\n{words}"
                panel = Panel(
                    title,
                    Axis("learning rate", "log"),
                    Axis("gap closure G = 1 - D / D(rtn)", low=_LEAST, high=1.1),
                    tuple(_curves(subject, bits, held)),
                    levels=(Level("y", 0.0, "rtn"), Level("y", 1.0, "fp")),
                )
                if len({curve.series for curve in panel.curves}) > 1:
                    sheets.append(Sheet(subject, [panel]))
    notes = [
        "Same steps, data, optimizer and grid; arms differ in where the gradient is taken. 0: no better than rounding; "
        "1: full precision."
    ]
    return pages(
        "C09_locus", "C9, C9b: is it the gradient at the quantized weights that recovers?", notes, sheets, titled=True
    )


def _by_setting(subject: Subject, bits: int) -> dict[str, list[tuple[int, Measured]]]:
    """Return cells with their seeds by everything that arms have in common but the rate, in words."""
    found: dict[tuple[str, ...], list[tuple[int, Measured]]] = {}
    for name in _ARMS:
        for seed in subject.seeds:
            for cell in cells(subject, seed, bits, name):
                rate = cell.options.get("learning_rate")
                if rate:
                    setting = tuple(str(one) for one in budget(cell) if one != rate)
                    found.setdefault(setting, []).append((seed, cell))
    named: dict[str, list[tuple[int, Measured]]] = {}
    for others in sorted(found):
        held = found[others]
        options = held[0][1].options
        words = f"{options.get('optimizer', 'optimizer')}, {options.get('steps', '?')} steps"
        # Two settings that differ in something else still are two panels.
        named[words if words not in named else f"{words} ({len(named) + 1})"] = held
    return named


def _curves(subject: Subject, bits: int, held: Sequence[tuple[int, Measured]]) -> list[Curve]:
    best: dict[tuple[str, int, float], Measured] = {}
    for seed, cell in held:
        place = (str(cell.options["name"]), seed, float(cell.options["learning_rate"]))
        if place not in best or cell.excess < best[place].excess:
            best[place] = cell
    curves = []
    for name in _ARMS:
        for seed in subject.seeds:
            rounded = rounding(subject, seed, bits)
            rates = sorted(rate for arm, at, rate in best if (arm, at) == (name, seed))
            if rounded is not None and not rounded.inside and rates:
                curves.append(
                    Curve(name, seed, tuple(rates), tuple(gain(best[name, seed, rate], rounded) for rate in rates))
                )
    return curves
