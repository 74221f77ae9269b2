"""C8: the loss of deployed and of latent weights while QAT trains."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims.measured import Measured
from qbench.claims.pairs import Budget, budget
from qbench.claims.subject import Subject
from qbench.claims.trajectories import Trajectory, has_trajectory, trajectory
from qbench.report.figures.axes import change_axis
from qbench.report.figures.figure import Axis, Curve, Figure, Level, Panel
from qbench.report.figures.paging import Sheet, pages
from qbench.report.figures.places import cells, mean, outside, present, rounding, where


def training(subjects: Sequence[Subject]) -> list[Figure]:
    """Return both excesses by training step, wherever rounding is outside the basin."""
    sheets = []
    for subject in subjects:
        for bits in outside(subject, "ste_qat"):
            panel = _panel(subject, bits)
            if panel is not None:
                sheets.append(Sheet(subject, [panel]))
    notes = [
        "Of the trainings of most seeds the one that ends best on average. Held-out data, the same for both curves; "
        "step 0 is before any update."
    ]
    title = "C8: does the deployed loss fall while the latent loss does not?"
    return pages("C08_trajectory", title, notes, sheets, titled=True)


def _panel(subject: Subject, bits: int) -> Panel | None:
    ways = _ways(subject, bits)
    if not ways:
        return None
    rounded = [cell.excess for seed, _ in ways if (cell := rounding(subject, seed, bits)) is not None]
    tau = mean(way.tau[-1] for _, way in ways)
    levels = [Level("y", tau, "τ")]
    if rounded:
        levels.append(Level("y", mean(rounded), "rtn"))
    curves = [
        Curve(series, seed, way.step, getattr(way, series)) for series in ("deployed", "latent") for seed, way in ways
    ]
    last = max(way.step[-1] for _, way in ways)
    ticks = (0.0, *(float(10**power) for power in range(10) if 10**power <= last))
    return Panel(
        f"{where(subject, bits)}\n{_words(ways[0][1])}",
        Axis("training step (updates)", "symlog", constant=1.0, ticks=ticks),
        change_axis("excess loss D over fp (nats)", tau),
        tuple(curves),
        levels=tuple(levels),
    )


def _ways(subject: Subject, bits: int) -> list[tuple[int, Trajectory]]:
    """Return the trajectories of one training, by seed: a mean over several would be none of them."""
    runs: dict[Budget, list[tuple[int, Measured]]] = {}
    for seed in subject.seeds:
        for cell in cells(subject, seed, bits, "ste_qat"):
            if has_trajectory(cell) and cell.options.get("learning_rate") != 0:
                runs.setdefault(budget(cell), []).append((seed, cell))
    if not runs:
        return []
    _, best = min(runs.items(), key=lambda run: (-len(run[1]), mean(cell.excess for _, cell in run[1]), str(run[0])))
    found = [(seed, present(trajectory, subject, cell)) for seed, cell in best]
    return [(seed, way) for seed, way in found if way is not None]


def _words(way: Trajectory) -> str:
    return f"{way.cell.options.get('optimizer', 'optimizer')}, rate {way.rate:g}, {way.step[-1]:g} steps"
