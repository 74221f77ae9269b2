"""The cells that a verb is called for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qbench.errors import QBenchError

if TYPE_CHECKING:
    from qbench.suite.cell import Cell
    from qbench.suite.schema import Suite


def select(suite: str, seeds: int | None = None, only: str | None = None) -> tuple[Suite, list[Cell]]:
    """Return a suite and its cells, cut to what ``--seeds`` and ``--only`` ask for."""
    from qbench.suite.enumerate import enumerate_cells, filter_cells
    from qbench.suite.load import load_suite

    loaded = load_suite(suite)
    cells = enumerate_cells(loaded, seeds)
    if all(cell.skip is not None for cell in cells):
        raise QBenchError(f"{suite}: every cell is skipped: {cells[0].skip}")
    return loaded, cells if only is None else filter_cells(cells, only)
