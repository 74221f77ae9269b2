"""The cells that a verb is called for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qbench.errors import QBenchError

if TYPE_CHECKING:
    from qbench.suite.cell import Cell
    from qbench.suite.schema import Suite


def select(
    suite: str, seeds: int | None = None, only: str | None = None, shard: str | None = None
) -> tuple[Suite, list[Cell]]:
    """Return a suite and its cells, cut to what ``--seeds``, ``--only`` and then ``--shard`` ask for.

    Parameters
    ----------
    suite : str
        A shipped suite's name, or a path.
    seeds : int, optional
        Seeds 0 to ``seeds - 1`` in place of the suite's own.
    only : str, optional
        See `filter_cells`.
    shard : str, optional
        ``i/n``, see `parse_shard`.

    Raises
    ------
    QBenchError
        The suite is wrong, or no cell is left.
    """
    from qbench.suite.enumerate import enumerate_cells, filter_cells
    from qbench.suite.load import load_suite
    from qbench.suite.shard import parse_shard
    from qbench.suite.shard import shard as part_of

    part = None if shard is None else parse_shard(shard)
    loaded = load_suite(suite)
    cells = enumerate_cells(loaded, seeds)
    if all(cell.skip is not None for cell in cells):
        raise QBenchError(f"{suite}: every cell is skipped: {cells[0].skip}")
    if only is not None:
        cells = filter_cells(cells, only)
    if part is not None:
        cells = part_of(cells, *part)
        if not cells:
            raise QBenchError(f"--shard {shard}: that part has no cells: there are fewer grids than parts")
    return loaded, cells
