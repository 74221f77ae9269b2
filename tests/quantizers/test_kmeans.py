"""K-means against a plain Lloyd iteration, the search of a range, and the best of all partitions."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qbench.errors import CellError
from qbench.quant.block_grid import fake_quantize, quantize
from qbench.quantizers.granularity import Granularity
from qbench.quantizers.kmeans import KMeans
from qbench.quantizers.layout import choose_grid
from qbench.quantizers.lloyd import _SortedRows
from qbench.quantizers.mse import MeanSquaredError

RULE = KMeans(name="kmeans")


def drawn(rows: int = 12, columns: int = 200) -> Tensor:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    return weight * weight.abs()


def squared_errors(weight: Tensor, rule: KMeans | MeanSquaredError, bits: int) -> Tensor:
    return (fake_quantize(weight, choose_grid(weight, rule, bits)) - weight).double().square().sum(dim=1)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_levels_are_the_means_of_their_weights(bits: int) -> None:
    weight = drawn()
    grid = choose_grid(weight, RULE, bits)
    codes = quantize(weight, grid)
    assert grid.table is not None and grid.table.shape == (12, 2**bits)
    for row, own, levels in zip(weight, codes, grid.table, strict=True):
        for code in own.unique():
            torch.testing.assert_close(levels[code.int()], row[own == code].mean(), rtol=1e-5, atol=1e-6)


rows = st.integers(1, 12).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=width, max_size=width), min_size=1, max_size=3
    )
)


@settings(max_examples=50)
@given(rows, st.integers(2, 6))
def test_no_worse_than_integers_on_the_best_range(drawn: list[list[float]], bits: int) -> None:
    weight = torch.tensor(drawn)
    integers = squared_errors(weight, MeanSquaredError(name="mse"), bits)
    assert (squared_errors(weight, RULE, bits) <= integers * (1 + 1e-4) + 1e-9).all()


@pytest.mark.parametrize("bits", range(2, 9))
def test_better_than_integers_where_weights_are_uneven(bits: int) -> None:
    weight = drawn()
    assert (
        squared_errors(weight, RULE, bits) < 0.95 * squared_errors(weight, MeanSquaredError(name="mse"), bits)
    ).all()


@given(rows, st.integers(2, 8))
def test_as_many_levels_as_weights_leave_no_error(drawn: list[list[float]], bits: int) -> None:
    weight = torch.tensor(drawn)
    if all(len(row.unique()) <= 2 for row in weight):
        torch.testing.assert_close(fake_quantize(weight, choose_grid(weight, RULE, bits)), weight, rtol=1e-5, atol=1e-5)


def test_near_the_best_of_all_partitions() -> None:
    """Of twelve sorted weights in four runs: 165 partitions."""
    shares = []
    for seed in range(20):
        row = torch.randn(12, generator=torch.Generator().manual_seed(seed)).sort().values
        best = min(
            sum(float((part - part.mean()).square().sum()) for part in row.tensor_split(cuts))
            for cuts in itertools.combinations(range(1, 12), 3)
        )
        shares.append(float(squared_errors(row[None], RULE, 2)) / best)
    assert max(shares) < 1.1 and sum(shares) / len(shares) < 1.02


def least_errors(row: Tensor, counts: range) -> dict[int, float]:
    """Return the least squared error of every partition of a row in so many runs, by dynamic programming."""
    weights = row.double().sort().values
    runs = torch.full((len(weights) + 1, len(weights) + 1), torch.inf, dtype=torch.float64)
    for begin in range(len(weights)):
        for end in range(begin + 1, len(weights) + 1):
            runs[begin, end] = weights[begin:end].var(correction=0) * (end - begin)
    runs.fill_diagonal_(0)
    best, found = runs[0], {1: float(runs[0, -1])}
    for count in range(2, counts[-1] + 1):
        best = (best.unsqueeze(1) + runs).min(dim=0).values
        found[count] = float(best[-1])
    return {count: found[count] for count in counts}


def test_within_two_percent_of_the_best_of_all_partitions() -> None:
    """Of 80 weights a row: bell-shaped, with heavy tails, and beside 0 with many equal ones."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(12, 80, generator=generator)
    weight[4:8] *= weight[4:8].abs()
    weight[8:] = weight[8:].bfloat16().float() + 0.5
    least = [least_errors(row, range(4, 17)) for row in weight]
    for bits in (2, 3, 4):
        best = torch.tensor([of_row[2**bits] for of_row in least])
        shares = squared_errors(weight, RULE, bits) / best
        # Levels are rounded to float32, and cannot be better than means.
        assert shares.min() > 1 - 1e-6
        assert squared_errors(weight, RULE, bits).sum() < 1.02 * best.sum()


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_no_stage_of_the_search_raises_an_error(bits: int) -> None:
    rows = _SortedRows.of(drawn())
    levels = rows.dense_where_weights_are(2**bits)
    errors = [rows.error(levels)]
    for passes in (0, 1, 4):
        for move, times in ((rows.lloyd, 2), (rows.search, passes)):
            levels = move(levels, times)
            assert (levels.diff(dim=1) >= 0).all()
            errors.append(rows.error(levels))
            assert (errors[-1] <= errors[-2] + 1e-9).all()
    assert errors[-1].sum() < errors[0].sum() - 1e-3


def test_windows_that_hold_all_places_give_the_best_of_all_partitions() -> None:
    weight = torch.randn(4, 20, generator=torch.Generator().manual_seed(1))
    rows = _SortedRows.of(weight)
    ends = rows.best_in_windows(torch.tensor([[0, 1, 1, 20, 20]] * 4), torch.arange(21).expand(4, 3, 21))
    assert (ends.diff(dim=1) >= 0).all() and (ends[:, 0] == 0).all() and (ends[:, -1] == 20).all()
    for row, own in zip(weight.double().sort(dim=1).values, ends.tolist(), strict=True):
        parts = [row[begin:end] for begin, end in itertools.pairwise(own) if end > begin]
        error = sum(float((part - part.mean()).square().sum()) for part in parts)
        assert error == pytest.approx(least_errors(row, range(4, 5))[4], rel=1e-9)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_means_are_the_same_each_time_and_of_scaled_weights(bits: int) -> None:
    first, again = (choose_grid(drawn(), RULE, bits).table for _ in range(2))
    scaled = choose_grid(4 * drawn(), RULE, bits).table
    assert first is not None and again is not None and scaled is not None
    assert torch.equal(first, again) and torch.equal(4 * first, scaled)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_equal_weights(bits: int) -> None:
    weight = torch.zeros(4, 60)
    weight[1] = -0.3
    weight[2, 50:] = 1
    weight[3] = torch.arange(60) % 4
    table = choose_grid(weight, RULE, bits).table
    assert table is not None and table.isfinite().all() and (table.diff(dim=1) >= 0).all()
    torch.testing.assert_close(fake_quantize(weight, choose_grid(weight, RULE, bits)), weight)


def test_rows_do_not_see_each_other() -> None:
    weight = drawn()
    together = choose_grid(weight, RULE, 3).table
    apart = [choose_grid(row[None], RULE, 3).table for row in weight]
    assert together is not None and torch.equal(together, torch.cat(apart))  # type: ignore[arg-type]


def test_a_tensor_has_one_codebook() -> None:
    rule = KMeans(name="kmeans", granularity=Granularity(kind="per_tensor"))
    grid = choose_grid(drawn(), rule, 3)
    assert grid.table is not None and grid.table.shape == (1, 8)
    assert grid.stored_bits(12, 200) == 3 * 2400 + 8 * 32


def test_codebooks_are_counted() -> None:
    assert choose_grid(drawn(), RULE, 4).stored_bits(12, 200) == 4 * 2400 + 12 * 16 * 32


def test_without_iterations_the_better_start_is_kept() -> None:
    weight = drawn()
    start = squared_errors(weight, KMeans(name="kmeans", iterations=0), 3)
    moved = squared_errors(weight, RULE, 3)
    assert (moved <= start).all() and moved.sum() < 0.95 * start.sum()


def test_groups_that_reach_the_layout_are_refused_there_too() -> None:
    grouped = RULE.model_copy(update={"granularity": Granularity(kind="per_group", group_size=8)})
    with pytest.raises(CellError, match="which is per_tensor or per_channel, given per_group"):
        choose_grid(drawn(), grouped, 3)
