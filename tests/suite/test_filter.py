from __future__ import annotations

from collections.abc import Callable

import pytest

from qbench.errors import QBenchError
from qbench.suite.cell import Cell
from qbench.suite.enumerate import enumerate_cells, filter_cells
from qbench.suite.schema import Suite

TEXT = """\
name: s
matrix:
  - models: [zoo, disk]
    quantizers: [grid, {name: grid, clip: 2, granularity: per_tensor}]
    bits: [4, 2]
    methods: [near, {name: train, steps: 10}]
    seeds: 2
  - {models: [zoo], quantizers: [other], bits: [3], methods: [near], seeds: 1}
exclude:
  - when: {models: disk, bits: 2}
    reason: slow
"""


@pytest.fixture
def cells(load: Callable[..., Suite]) -> list[Cell]:
    return enumerate_cells(load(TEXT))


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("model=zoo,quantizer=other", ["zoo/fp/s0", "zoo/other/3b/near/s0"]),
        ("seed=1,method=fp", ["zoo/fp/s1", "disk/fp/s1"]),
        (
            " bits = 2 , method = near , quantizer = grid[granularity=per_tensor,clip=2] , seed = 0 ",
            [
                "zoo/fp/s0",
                "zoo/grid[granularity=per_tensor,clip=2]/2b/near/s0",
                "disk/fp/s0",
                "disk/grid[granularity=per_tensor,clip=2]/2b/near/s0",
            ],
        ),
        (
            "model=zoo,seed=0,quantizer=grid[granularity=per_tensor,clip=2]|other,method=near,bits=2|3",
            ["zoo/fp/s0", "zoo/grid[granularity=per_tensor,clip=2]/2b/near/s0", "zoo/other/3b/near/s0"],
        ),
    ],
)
def test_what_is_kept(cells: list[Cell], only: str, expected: list[str]) -> None:
    assert [cell.label() for cell in filter_cells(cells, only)] == expected


def test_a_registry_name_means_all_of_its_entries(cells: list[Cell]) -> None:
    kept = filter_cells(cells, "quantizer=grid")
    assert len([cell for cell in kept if not cell.is_fp]) == 2 * 2 * 2 * 2 * 2


def test_what_is_skipped_stays_skipped(cells: list[Cell]) -> None:
    kept = filter_cells(cells, "bits=2")
    assert {(cell.model.label(), cell.is_fp): cell.skip for cell in kept} == {
        ("zoo", True): None,
        ("zoo", False): None,
        ("disk", True): None,
        ("disk", False): "slow",
    }


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("methd=near", "unknown axis 'methd': did you mean 'method'? (allowed: bits, method, model, quantizer, seed)"),
        ("method=naer", "unknown method 'naer': did you mean 'near'? (allowed: fp, near, train, train[steps=10])"),
        ("bits=2|5", "unknown bits '5' (allowed: 2, 3, 4)"),
        ("bits=2|", "unknown bits '' (allowed: 2, 3, 4)"),
        ("seed=2", "unknown seed '2' (allowed: 0, 1)"),
        ("bits=2,bits=3", "the axis 'bits' is given twice in 'bits=2,bits=3' (allowed: bits=value|value)"),
        ("near", "cannot read 'near' in 'near' (allowed: axis=value|value,axis=value)"),
        ("", "cannot read '' in '' (allowed: axis=value|value,axis=value)"),
        ("bits=2,", "cannot read '' in 'bits=2,' (allowed: axis=value|value,axis=value)"),
        ("bits=3,model=disk", "no cell matches 'bits=3,model=disk'"),
    ],
)
def test_what_cannot_be_meant_is_refused(cells: list[Cell], only: str, message: str) -> None:
    with pytest.raises(QBenchError) as caught:
        filter_cells(cells, only)
    assert str(caught.value) == message
