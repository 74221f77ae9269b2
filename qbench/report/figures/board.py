"""Figures of a leaderboard: bits against loss, what is won back, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qbench import atomic
from qbench.report.figures.board_basin import basins
from qbench.report.figures.board_grids import grids
from qbench.report.figures.board_ladder import ladders
from qbench.report.figures.board_pareto import paretos
from qbench.report.figures.board_parts import Shelf, shelves
from qbench.report.figures.board_recovery import recoveries
from qbench.report.figures.drawing import Format, image, specification
from qbench.report.figures.figure import Figure

if TYPE_CHECKING:
    from qbench.report.run import Run

KINDS: tuple[Callable[[Shelf], list[Figure]], ...] = (ladders, grids, recoveries, paretos)


def board_figures(run: Run) -> list[Figure]:
    """Return the figures of the leaderboard of a run, model by model.

    ``ladder_<model>`` shows what each method loses by bits, ``basin_<model>`` how far rounding moves the weights and
    how far the basin reaches, ``recovery_<model>`` what is won back, ``pareto_<model>`` what that costs, and, of many
    grids, ``grids_<model>`` what a smaller one loses. Further pages are ``ladder_<model>_2`` and so on. Landscapes have
    none: tables stand for them.

    Parameters
    ----------
    run : Run
        In any order of records.
    """
    held = shelves(run.board)
    of_boards = [figure for shelf in held for kind in KINDS for figure in kind(shelf)]
    return [*of_boards, *basins(run.records, held)]


def write_board_figures(run: Run, folder: Path, formats: Sequence[Format] = ("svg", "png")) -> list[Path]:
    """Write the figures of the leaderboard of a run, and return the files written; others are left as they are.

    Parameters
    ----------
    run : Run
        See `board_figures`.
    folder : Path
        Where files go; made when missing. Files of the same name are replaced.
    formats : sequence of str
        ``svg`` or ``png``, one file each.

    Raises
    ------
    QBenchError
        The drawing libraries are missing: ``pip install qbench[report]``.
    """
    return write_all(board_figures(run), folder, formats)


def write_all(figures: Iterable[Figure], folder: Path, formats: Sequence[Format]) -> list[Path]:
    """Write some figures; see `write_board_figures`."""
    written = []
    for figure in figures:
        spec = specification(figure)
        for form in formats:
            path = folder / f"{figure.name}.{form}"
            atomic.write_bytes(path, image(spec, form))
            written.append(path)
    return written
