"""How large a suite may be: bounds far above what anyone runs, so that no file takes long to read or much memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qbench.suite.schema import Block, Suite

MAX_BYTES = 250_000
"""Of a suite file."""

MAX_VALUES = 10_000
"""Keys, list items and values of a suite file, all counted."""

MAX_DEPTH = 50
"""Of lists and mappings in each other."""

MAX_TEXT, MAX_KEY, MAX_NUMBER = 10_000, 100, 100
"""Characters of a text, of a key, and of a number."""

MAX_ENTRIES = 1000
"""Of one list: an axis, the blocks of a matrix, the plugins."""

MAX_EXCLUSIONS = 250
"""Of a suite: each is held against every cell."""

MAX_NAME, MAX_LABEL = 100, 300
"""Characters of a suite's name, and of an entry's name with its options."""

MAX_PATH = 1000
"""Characters of a path."""

MAX_CELLS = 200_000
"""Of a suite, those it leaves out included."""

MAX_POINTS = 50_000
"""Cells whose weights probes read, each counted as often as it is read."""

MAX_CALL = 10_000
"""Characters of what an option of the command line says."""


def count_cells(suite: Suite, seeds: int | None = None) -> int:
    """Return the most cells that a suite can have, by multiplication: no cell is made.

    Parameters
    ----------
    suite : Suite
        What `load_suite` returned.
    seeds : int, optional
        Seeds a block in place of its own.

    Notes
    -----
    A full-precision cell counts once a block, and so does a control: the same cell in two blocks is one.
    """
    return sum(_in_block(block, seeds) for block in suite.matrix)


def _in_block(block: Block, seeds: int | None) -> int:
    grids = len(block.quantizers) * len(block.bits)
    controls = sum(method.control() is not None for method in block.methods)
    a_seed = 1 + controls + grids * (len(block.methods) + len(block.probes))
    return len(block.models) * (len(block.seeds) if seeds is None else seeds) * a_seed
