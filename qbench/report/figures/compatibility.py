"""C11: how recovery depends on the step of the lattice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from qbench.claims.lattices import Family, Lattice, families
from qbench.claims.measured import Measured
from qbench.claims.pairs import Budget, budget
from qbench.claims.subject import Subject
from qbench.claims.trajectories import Trajectory, first_entry, has_trajectory, trajectory
from qbench.report.figures.axes import change_axis
from qbench.report.figures.figure import Axis, Curve, Figure, Level, Panel
from qbench.report.figures.paging import Sheet, brief, pages
from qbench.report.figures.places import cells, mean, present, rounding

_ENTRY = Axis("first step k* with training D at or below τ", "symlog", ticks=(0, 1, 3, 10, 30, 100, 300, 1000, 3000))


def compatibility(subjects: Sequence[Subject]) -> list[Figure]:
    """Return the excess of rounding and of QAT, best and late, by the lattice's step, and the first entry."""
    sheets = [sheet for family in families(subjects) if (sheet := _sheet(family)) is not None]
    notes = [
        "Grids of one model that differ in their step alone, and the same training on all of them: of those the one "
        "that ends best. First entry: trainings that never enter are left out."
    ]
    title = "C11: how coarse may the lattice be for training to recover?"
    found = pages("C11_compatibility", title, notes, sheets)
    return [replace(figure, of=_without_steps(figure.of)) for figure in found]


def _without_steps(of: str) -> str:
    model, _, seeds = of.split("; ")
    return f"{model}; quantizer lattice; {seeds}"


def _sheet(family: Family) -> Sheet | None:
    rows: dict[tuple[str, int], list[tuple[float, float]]] = {}
    taus = []
    for seed in family.seeds:
        held = present(family.of_seed, seed) or []
        for lattice, way in _ways(held, seed):
            rounded = rounding(lattice.subject, seed, lattice.bits)
            if rounded is None:
                continue
            taus.append(rounded.tau)
            numbers = {
                "rtn": rounded.excess,
                "best": min(way.deployed),
                "late": mean(way.deployed[place] for place in way.late),
                "entry": first_entry(way.step, way.train, way.tau_train),
            }
            for series, value in numbers.items():
                if math.isfinite(value):
                    rows.setdefault((series, seed), []).append((lattice.step, value))
    curves = {name: _curves(rows, family, name) for name in ("rtn", "best", "late", "entry")}
    if len({x for curve in curves["rtn"] for x in curve.x}) < 2:
        return None
    x = Axis("step of the lattice", "log")
    loss = Panel(
        f"{brief(family.model)}, {family.name}",
        x,
        change_axis("excess loss D over fp (nats)", mean(taus)),
        (*curves["rtn"], *curves["best"], *curves["late"]),
        levels=(Level("y", mean(taus), "τ"),),
    )
    entry = Panel(f"{brief(family.model)}, {family.name}\nfirst entry", x, _ENTRY, tuple(curves["entry"]))
    return Sheet(family.lattices[0].subject, [loss, entry])


def _ways(lattices: Sequence[Lattice], seed: int) -> list[tuple[Lattice, Trajectory]]:
    """Return the same training on each lattice that has any: of the trainings run on all, the one that ends best."""
    runs: list[tuple[Lattice, dict[Budget, Measured]]] = []
    for lattice in lattices:
        watched = [
            cell
            for cell in cells(lattice.subject, seed, lattice.bits, "ste_qat")
            if has_trajectory(cell) and cell.options.get("learning_rate") != 0
        ]
        if watched:
            runs.append((lattice, {budget(cell): cell for cell in watched}))
    common = set.intersection(*(set(held) for _, held in runs)) if runs else set()
    if not common:
        return []
    best = min(common, key=lambda one: (sum(held[one].excess for _, held in runs), str(one)))
    found = [(lattice, present(trajectory, lattice.subject, held[best])) for lattice, held in runs]
    return [(lattice, way) for lattice, way in found if way is not None and way.late]


def _curves(rows: dict[tuple[str, int], list[tuple[float, float]]], family: Family, series: str) -> list[Curve]:
    curves = []
    for seed in family.seeds:
        if (series, seed) in rows:
            x, y = zip(*rows[series, seed], strict=True)
            curves.append(Curve(series, seed, x, y))
    return curves
