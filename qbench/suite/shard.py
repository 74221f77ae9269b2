"""A part of a suite: its cells shared out among machines that know nothing of each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qbench.errors import QBenchError
from qbench.suite.cell import Cell
from qbench.suite.controls import control_place, controls_of
from qbench.suite.problems import shown

MAX_SHARDS = 1000

Group = tuple[str, int, str | None, int | None]


def parse_shard(text: str) -> tuple[int, int]:
    """Return which shard of how many a text means.

    Parameters
    ----------
    text : str
        Such as ``2/4``: the second of four.

    Raises
    ------
    QBenchError
        The text is not of that form, or there is no such shard.
    """
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text.strip(), re.ASCII)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count <= MAX_SHARDS:
        raise QBenchError(
            f"--shard: given {shown(text)} (allowed: i/n, the i-th of n parts, from 1/n to n/n; n at most {MAX_SHARDS})"
        )
    return index, count


def shard(cells: Sequence[Cell], index: int, count: int) -> list[Cell]:
    """Return one of `count` parts of a suite's cells, in their order.

    Every cell on a grid is in exactly one part, with all cells of its model, seed, quantizer and bits: probes are where
    the cells are whose weights they read. Full-precision cells and controls are in every part that has a cell that is
    read against them.

    Parameters
    ----------
    cells : sequence of Cell
        From `enumerate_cells` or `filter_cells`; the parts depend on nothing else.
    index, count : int
        Which part, from 1 to `count`. Where there are more parts than groups of cells, the last parts are empty.

    Notes
    -----
    The groups are cut where they stand in order, so that most models and seeds, with their full-precision cells and
    controls, are in one part. A part has no more cells on grids than an even share and one group.
    """
    parts = _parts(_groups(cells), count)
    own = {group for group, part in parts.items() if part == index}
    mine = [cell for cell in cells if _group(cell) in own]
    rows = {(cell.model.label(), cell.seed) for cell in mine}
    needed = controls_of(cell for cell in mine if cell.skip is None)
    everywhere = controls_of(cell for cell in cells if cell.skip is None)
    # What no cell is read against stays with the first part that has its row: an excluded control, or what --only left.
    first: dict[tuple[str, int], int] = {}
    for (model, seed, _, _), part in parts.items():
        first.setdefault((model, seed), part)

    def is_wanted(cell: Cell) -> bool:
        if cell.quantizer is not None:
            return _group(cell) in own
        row = (cell.model.label(), cell.seed)
        if cell.is_fp and row in rows:
            return True
        if cell.is_control and control_place(cell) in everywhere:
            return control_place(cell) in needed
        return first[row] == index

    return [cell for cell in cells if is_wanted(cell)]


def _group(cell: Cell) -> Group:
    return cell.model.label(), cell.seed, None if cell.quantizer is None else cell.quantizer.label(), cell.bits


def _groups(cells: Sequence[Cell]) -> dict[Group, int]:
    """Return how many cells run in each group, in order; rows without a cell on a grid are groups of their own."""
    on_grid = {(cell.model.label(), cell.seed) for cell in cells if cell.quantizer is not None}
    groups: dict[Group, int] = {}
    for cell in cells:
        group = _group(cell)
        if cell.quantizer is not None or group[:2] not in on_grid:
            groups[group] = groups.get(group, 0) + (cell.skip is None)
    return groups


def _parts(groups: dict[Group, int], count: int) -> dict[Group, int]:
    """Return the part of each group: as many cells before a cut as an even share of the parts before it."""
    total, before = sum(groups.values()), 0
    part, taken = 1, 0
    parts: dict[Group, int] = {}
    for place, (group, size) in enumerate(groups.items()):
        # The middle of a group says to which share it belongs; no part is passed over while there are groups enough.
        beyond = (2 * before + size) * count >= 2 * total * part
        if taken and part < count and (beyond or len(groups) - place <= count - part):
            part, taken = part + 1, 0
        parts[group] = part
        before, taken = before + size, taken + 1
    return parts
