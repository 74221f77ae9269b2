"""Results as Parquet, for programs that want types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import qbench
from qbench.report.tidy import table

if TYPE_CHECKING:
    from qbench.report.run import Run


def parquet_bytes(runs: Sequence[Run], *, cells: bool) -> bytes:
    """Return results as a Parquet file; see `tidy.table` for its columns.

    Parameters
    ----------
    runs : sequence of Run
        One after the other; the column ``suite`` tells them apart.
    cells : bool
        Return a row a cell, and not one an entry of the leaderboard.

    Notes
    -----
    The columns have the same types in every file, also where all is null. What was not measured is null, which NaN is
    not. The metadata of the schema says which version of qbench wrote it (``qbench``), and what a row is (``rows``).
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns, rows = table(runs, cells=cells)
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    about = {"qbench": qbench.__version__, "rows": "cells" if cells else "entries"}
    schema = pa.schema([pa.field(name, types[kind]) for name, kind in columns.items()], metadata=about)
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    return bytes(sink.getvalue().to_pybytes())
