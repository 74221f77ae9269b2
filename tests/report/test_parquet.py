"""Parquet gives back the rows, with types that do not depend on what is in them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest

import qbench
from qbench.report.parquet import parquet_bytes
from qbench.report.run import Run
from qbench.report.tidy import ENTRY_COLUMNS, table
from qbench.store.record import Record

pa = pytest.importorskip("pyarrow")
MakeRecord = Callable[..., Record]


@pytest.fixture(scope="module")
def runs(make_record: MakeRecord, make_image_record: MakeRecord) -> list[Run]:
    odd = {"loss/blocks128": 1 / 3, "a": math.nan, "b": -math.inf}
    one = [make_record("m/fp/s0"), make_record("m/mse/2b/rtn/s0", metrics=odd)]
    one += [make_record("m/mse/2b/gptq/s0", status="failed", reason="out of memory")]
    return [Run("one", one), Run("two", [make_image_record("r/fp/s0"), make_image_record("r/mse/2b/rtn/s0", 0.7)])]


def read(data: bytes) -> Any:
    from pyarrow import parquet

    return parquet.read_table(io.BytesIO(data))


@pytest.mark.parametrize("cells", [False, True])
def test_what_is_read_back_is_what_was_written(runs: list[Run], cells: bool) -> None:
    found = read(parquet_bytes(runs, cells=cells))
    assert repr(found.to_pylist()) == repr(table(runs, cells=cells)[1])
    assert found.schema.metadata[b"qbench"] == qbench.__version__.encode()
    assert found.schema.metadata[b"rows"] == (b"cells" if cells else b"entries")


def test_types_do_not_depend_on_the_rows(runs: list[Run]) -> None:
    wanted = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    for some in (runs, runs[:1], []):
        schema = read(parquet_bytes(some, cells=False)).schema
        assert {name: schema.field(name).type for name in ENTRY_COLUMNS} == {
            name: wanted[kind] for name, kind in ENTRY_COLUMNS.items()
        }
    assert read(parquet_bytes([], cells=False)).num_rows == 0


def test_the_same_rows_give_the_same_bytes(runs: list[Run]) -> None:
    assert parquet_bytes(runs, cells=True) == parquet_bytes(runs, cells=True)


def test_pandas_reads_it(runs: list[Run]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(io.BytesIO(parquet_bytes(runs, cells=False)))
    assert list(frame["suite"].unique()) == ["one", "two"]
    assert frame["loss"].dtype == "float64" and int(frame["failed"].sum()) == 1
