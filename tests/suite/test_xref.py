"""Published numbers that a suite names: each is about one cell of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qbench.errors import SuiteError
from qbench.suite.enumerate import enumerate_cells
from qbench.suite.schema import Suite
from qbench.suite.xref import cells_of

SUITE = """\
name: s
matrix:
  models: [zoo]
  quantizers: [grid, {name: grid, clip: 2.0}]
  bits: [4]
  methods: [near]
  seeds: 2
xref:
  - {metric: perplexity/blocks128, value: 24.0, source: a table%s}
"""
Load = Callable[..., Suite]


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ("", "zoo/fp"),
        (', quantizer: "grid[clip=2]", bits: 4, method: near', "zoo/grid[clip=2]/4b/near"),
    ],
)
def test_a_number_is_about_one_place_in_all_seeds(load: Load, options: str, place: str) -> None:
    suite = load(SUITE % f", model: zoo{options}")
    (found,) = cells_of(suite.xref, enumerate_cells(suite))
    assert [cell.label() for cell in found] == [f"{place}/s{seed}" for seed in range(2)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (", model: zooo", "'zooo' is of no cell"),
        (", model: zoo, quantizer: grid, bits: 4, method: near", "means 2 cells"),
        (", model: zoo, quantizer: other, bits: 4, method: near", "'other' is of no cell"),
        (', model: zoo, quantizer: "grid[clip=2]", bits: 3, method: near', "'3' is of no cell"),
        (", model: zoo, bits: 4", "go together (allowed: all three, or none for full precision)"),
        (", model: zoo, compare: ratio", "compare ratio needs fp, and a cell that is quantized"),
        (", model: zoo, within: 0", "more than 0"),
        (", model: zoo, where: here", "where"),
    ],
)
def test_a_number_that_is_about_no_cell_is_refused_with_its_line(load: Load, options: str, said: str) -> None:
    with pytest.raises(SuiteError) as caught:
        enumerate_cells(load(SUITE % options))
    assert said in str(caught.value)
    assert "s.yaml:9: `xref[0]" in str(caught.value)
