"""Tables of levels: what is refused, where ties go, and that the nearest level is the nearest."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qbench.errors import QBenchError
from qbench.quant.block_grid import BlockGrid, dequantize, fake_quantize, quantize
from qbench.quant.grid import IntegerGrid
from qbench.quant.levels import Codebook, LevelTable
from qbench.quant.snapping import Cells, CodebookSnapping, IntegerSnapping, TableSnapping

E2M1 = (-6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
POWERS = (*(-(2.0**-i) for i in range(7)), 0.0, *(2.0**-i for i in range(6, -1, -1)))
LIKE = torch.zeros(1)

tables = st.lists(
    st.floats(-100, 100, width=32).map(lambda value: round(value, 3)), min_size=2, max_size=40, unique=True
).map(lambda values: LevelTable(8, tuple(sorted(values))))


def snapped(levels: LevelTable, positions: Tensor) -> Tensor:
    return TableSnapping.of(levels, LIKE).snap(positions, torch.empty_like(positions))


@pytest.mark.parametrize(
    ("bits", "values", "said"),
    [
        (1, (-1.0, 0.0, 1.0), "given 3 values (allowed: 2 to 2 rising values in 1 bits)"),
        (2, (0.0,), "given 1 values"),
        (2, (0.0, 0.0, 1.0), "given 3 values that do not rise"),
        (2, (1.0, 0.0), "that do not rise"),
        (2, (-torch.inf, 0.0), "given a value that is not a finite number"),
        (2, (0.0, torch.nan), "given a value that is not a finite number"),
    ],
)
def test_what_is_no_table_is_refused(bits: int, values: tuple[float, ...], said: str) -> None:
    with pytest.raises(QBenchError) as caught:
        LevelTable(bits, values, "mine")
    assert "levels 'mine'" in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize(
    ("position", "level"),
    [(0.25, 0.0), (0.75, 1.0), (1.25, 1.0), (1.75, 2.0), (2.5, 2.0), (3.5, 4.0), (5.0, 4.0), (7.0, 6.0)],
)
def test_ties_go_to_the_even_mantissa(position: float, level: float) -> None:
    both = torch.tensor([position, -position])
    assert snapped(LevelTable(4, E2M1), both).tolist() == [level, -level]


def test_ties_of_levels_without_zero_are_those_of_rounding_half_to_even() -> None:
    # ParetoQ: (round(x n - 1/2) + 1/2) / n with n = 2.
    positions = torch.tensor([-0.5, 0.0, 0.5])
    formula = (torch.round(positions * 2 - 0.5) + 0.5) / 2
    assert torch.equal(snapped(LevelTable(2, (-0.75, -0.25, 0.25, 0.75)), positions), formula)


@given(tables, st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=50))
def test_no_level_is_nearer(levels: LevelTable, positions: list[float]) -> None:
    given_ = torch.tensor(positions)
    found = snapped(levels, given_).double()
    table = torch.tensor(levels.values, dtype=torch.float64)
    least = (given_.double()[:, None] - table).abs().amin(dim=1)
    # The middle of two levels may fall between two float32.
    assert ((given_.double() - found).abs() <= least * (1 + 1e-6) + 1e-5).all()


@given(tables)
def test_cells_find_what_a_search_finds(levels: LevelTable) -> None:
    one = TableSnapping.of(levels, LIKE)
    edges = [torch.nextafter(one.boundaries, torch.tensor(end)) for end in (-torch.inf, torch.inf)]
    positions = torch.cat(
        [one.boundaries, *edges, one.table, torch.tensor([-1e38, 1e38, 0.0]), torch.linspace(-9, 9, 99)]
    )
    wanted = one.table[torch.bucketize(positions, one.boundaries)]
    assert torch.equal(one.snap(positions, torch.empty_like(positions)), wanted)
    assert torch.equal(one.snap(positions.clone(), positions), wanted)


def test_levels_that_crowd_are_searched() -> None:
    crowded = TableSnapping.of(LevelTable(3, (-1e6, 0.0, 1e-3, 2e-3, 1e6)), LIKE)
    assert crowded.cells is None and isinstance(TableSnapping.of(LevelTable(4, POWERS), LIKE).cells, Cells)
    positions = torch.tensor([4e-4, 6e-4, 1.6e-3, 3e5, 6e5])
    assert crowded.snap(positions, torch.empty(5)).tolist() == torch.tensor([0.0, 1e-3, 2e-3, 2e-3, 1e6]).tolist()


@given(tables)
def test_levels_stay_and_codes_come_back(levels: LevelTable) -> None:
    one = TableSnapping.of(levels, LIKE)
    codes = torch.arange(levels.count).float()
    assert torch.equal(one.codes(one.values(codes)), codes)
    assert torch.equal(one.snap(one.table.clone(), torch.empty_like(one.table)), one.table)


@pytest.mark.parametrize("columns_first", [False, True])
def test_a_codebook_is_each_rows_own(columns_first: bool) -> None:
    table = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).sort(dim=1).values
    weight = torch.randn(5, 33, generator=torch.Generator().manual_seed(1))
    wanted = table.gather(1, (weight[..., None] - table[:, None]).abs().argmin(dim=2))
    if columns_first:
        own = CodebookSnapping(table, rows_last=True)
        found = torch.stack([own.snap(column, torch.empty(5)) for column in weight.T.contiguous()]).T
    else:
        found = CodebookSnapping(table).snap(weight, torch.empty_like(weight))
    assert torch.equal(found, wanted)


def test_equal_levels_of_a_codebook_have_one_code() -> None:
    table = torch.tensor([[-1.0, 0.5, 0.5, 0.5]])
    grid = BlockGrid(Codebook(2), torch.ones(1, 1), torch.zeros(1, 1), 4, table=table)
    codes = quantize(torch.tensor([[-3.0, 0.4, 0.5, 9.0]]), grid)
    assert codes.tolist() == [[0, 1, 1, 1]]
    assert dequantize(codes, grid).tolist() == [[-1.0, 0.5, 0.5, 0.5]]


def test_beyond_the_ends_is_clipped() -> None:
    positions = torch.tensor([[-1.5, -1.0, 0.0, 1.0, 1.5]])
    book = CodebookSnapping(torch.tensor([[-1.0, 0.0, 1.0]]))
    moved = book.shifted(positions, torch.empty_like(positions))
    inside = (moved >= book.bounds[0]) & (moved <= book.bounds[1])
    assert inside.tolist() == [[False, True, True, True, False]]
    assert LevelTable(2, (-0.75, -0.25, 0.25, 0.75), range_end=1.0).reach == 1.0
    assert TableSnapping.of(LevelTable(2, (-0.75, 0.75), range_end=1.0), LIKE).bounds == (-1.0, 1.0)


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_real_zero_point_shifts_the_levels(bits: int) -> None:
    levels = IntegerGrid(bits, symmetric=False, real_zero_point=True)
    weight = torch.randn(4, 50, generator=torch.Generator().manual_seed(bits))
    scale, zero_point = torch.full((4, 1), 3 / 2**bits), torch.tensor([[0.3], [1.5], [0.0], [-0.7]])
    grid = BlockGrid(levels, scale, zero_point, 50)
    codes = (weight / scale + zero_point).round().clamp(0, 2**bits - 1)
    assert torch.equal(quantize(weight, grid), codes)
    assert torch.equal(dequantize(codes, grid), (codes - zero_point) * scale)
    torch.testing.assert_close(fake_quantize(weight, grid), (codes - zero_point) * scale)


def test_what_an_integer_grid_cannot_be() -> None:
    with pytest.raises(QBenchError, match="has one level, 0"):
        IntegerGrid(1, symmetric=True, convention="narrow_range")
    with pytest.raises(QBenchError, match="no zero point that could be real"):
        IntegerGrid(4, symmetric=True, real_zero_point=True)
    assert IntegerGrid(1, symmetric=False).count == 2 == IntegerGrid(1, symmetric=True).count


def test_levels_without_zero_points_say_so() -> None:
    for levels in (LevelTable(4, E2M1), Codebook(4)):
        assert (levels.zero_points, levels.zero_point_bits, levels.real_zero_point) == (range(1), 0, False)
    assert isinstance(IntegerGrid(4, symmetric=True).snapping(LIKE), IntegerSnapping)


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        (LevelTable(2, (-1.0, 0.0, 1.0), "ternary"), "ternary: -1, 0, 1"),
        (LevelTable(4, E2M1, "fp e2m1"), "fp e2m1, 15 levels"),
        (Codebook(3), "codebook of 8 levels a block"),
        (IntegerGrid(4, symmetric=False, real_zero_point=True), "asymmetric min-max with real zero point"),
    ],
)
def test_descriptions(levels: LevelTable | Codebook | IntegerGrid, text: str) -> None:
    assert levels.describe() == text
