"""Bits that are given where they save most: within the budget, and as good as any choice to within one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qbench.diagnosis.law import Law
from qbench.diagnosis.layers import LayerLoss, on_bits
from qbench.diagnosis.mixed import Mixture, around, mixture, patterns, uniform
from qbench.diagnosis.reading import Reading

Make = Callable[..., Reading]

LAW = Law((0.01, 0.5), (0.01**2, 0.25))
"""D in proportion to the square: a bowl everywhere."""
WIDTHS = (2, 3, 4, 8)
LAYERS = st.lists(st.tuples(st.integers(1, 9), st.floats(0, 2)), min_size=1, max_size=4)
BUDGETS = st.floats(2, 8)


@pytest.fixture(scope="module")
def ladder(reading: Make) -> Callable[..., list[Reading]]:
    """Return a function that makes the readings of some layers, whose errors halve with each bit or are given."""

    def ladder(count: int, errors: Sequence[Sequence[float]] | None = None) -> list[Reading]:
        return [
            reading(
                bits,
                0.1,
                layers={f"l{at}": (1.0, errors[at][place] if errors else 0.5**bits) for at in range(count)},
            )
            for place, bits in enumerate(WIDTHS)
        ]

    return ladder


def layers_of(given: Sequence[tuple[int, float]]) -> list[LayerLoss]:
    return [LayerLoss(f"l{at}", float(weights), 0.125, cost) for at, (weights, cost) in enumerate(given)]


def every(layers: Sequence[LayerLoss], readings: Sequence[Reading]) -> list[tuple[float, float]]:
    """Return mean bits and costs of all choices of bits."""
    costs = {(layer.name, one.bits): on_bits(layer, one, LAW) for layer in layers for one in readings}
    total = sum(layer.weights for layer in layers)
    found = []
    for chosen in product([one.bits for one in readings], repeat=len(layers)):
        bits = sum(layer.weights * width for layer, width in zip(layers, chosen, strict=True)) / total
        found.append((bits, sum(costs[layer.name, width] for layer, width in zip(layers, chosen, strict=True))))
    return found


def best(layers: Sequence[LayerLoss], readings: Sequence[Reading], budget: float) -> float:
    return min(cost for bits, cost in every(layers, readings) if bits <= budget + 1e-9)


ERRORS = st.lists(st.lists(st.floats(0.001, 0.5), min_size=4, max_size=4), min_size=4, max_size=4)


@settings(max_examples=60)
@given(given_layers=LAYERS, errors=ERRORS, budget=BUDGETS)
def test_no_choice_within_the_budget_is_better_by_more_than_one_step(
    ladder: Callable[..., list[Reading]],
    given_layers: list[tuple[int, float]],
    errors: list[list[float]],
    budget: float,
) -> None:
    layers, readings = layers_of(given_layers), ladder(len(given_layers), errors)
    found = mixture(layers, readings, LAW, budget)
    assert found.mean_bits <= budget + 1e-6
    steps = [abs(on_bits(layer, one, LAW) - on_bits(layer, two, LAW)) for layer in layers for one in readings
             for two in readings]  # fmt: skip
    assert best(layers, readings, budget) <= found.excess * (1 + 1e-9) + 1e-12
    assert found.excess <= best(layers, readings, budget) + max(steps) + 1e-9


@settings(max_examples=60)
@given(costs=st.lists(st.floats(0, 2), min_size=1, max_size=4), bits=st.integers(2, 4), parts=st.integers(0, 3))
def test_of_layers_as_large_as_one_another_no_choice_of_as_many_bits_is_better(
    ladder: Callable[..., list[Reading]], costs: list[float], bits: int, parts: int
) -> None:
    # Where costs fall by less with each bit, and all steps store the same, the walk leaves nothing over.
    layers = layers_of([(1, cost) for cost in costs])
    readings = [one for one in ladder(len(costs)) if one.bits < 8]
    budget = min(bits + parts / len(costs), 4.0)
    found = mixture(layers, readings, LAW, budget)
    choices = [cost for mean, cost in every(layers, readings) if mean <= budget + 1e-9]
    assert found.excess == pytest.approx(min(choices))


@settings(max_examples=60)
@given(given_layers=LAYERS, errors=ERRORS, one=BUDGETS, other=BUDGETS)
def test_more_budget_never_costs_more(
    ladder: Callable[..., list[Reading]],
    given_layers: list[tuple[int, float]],
    errors: list[list[float]],
    one: float,
    other: float,
) -> None:
    layers, readings = layers_of(given_layers), ladder(len(given_layers), errors)
    less, more = (mixture(layers, readings, LAW, budget) for budget in sorted((one, other)))
    assert more.excess <= less.excess + 1e-9


@given(given_layers=LAYERS, bits=st.sampled_from(WIDTHS))
def test_it_is_never_worse_than_the_same_bits_for_all(
    ladder: Callable[..., list[Reading]], given_layers: list[tuple[int, float]], bits: int
) -> None:
    layers, readings = layers_of([(1, cost) for _, cost in given_layers]), ladder(len(given_layers))
    (same,) = (one for one in readings if one.bits == bits)
    alike = uniform(layers, same, LAW)
    assert alike == pytest.approx(sum(on_bits(layer, same, LAW) for layer in layers))
    if bits < 8:  # from 4 bits the next step is four bits at once
        assert mixture(layers, readings, LAW, bits).excess <= alike + 1e-9


def mixed(ladder: Callable[..., list[Reading]], *given: tuple[int, float], budget: float) -> Mixture:
    return mixture(layers_of(given), ladder(len(given)), LAW, budget)


def test_bits_go_where_errors_cost_most(ladder: Callable[..., list[Reading]]) -> None:
    found = mixed(ladder, (10, 1.0), (10, 0.01), budget=3)
    assert found.bits == {"l0": 4, "l1": 2}
    assert found.mean_bits == 3.0
    # As much saved on a tenth of the weights costs a tenth.
    found = mixed(ladder, (100, 1.0), (10, 0.5), budget=2.2)
    assert found.bits == {"l0": 2, "l1": 4}


def test_at_the_fewest_bits_there_is_no_choice_and_with_room_for_all_none_either(
    ladder: Callable[..., list[Reading]],
) -> None:
    assert set(mixed(ladder, (3, 1.0), (7, 0.2), budget=2).bits.values()) == {2}
    assert set(mixed(ladder, (3, 1.0), (7, 0.2), budget=8).bits.values()) == {8}


def test_a_layer_that_costs_nothing_gets_no_bits(ladder: Callable[..., list[Reading]]) -> None:
    found = mixed(ladder, (3, 0.0), (3, 0.2), budget=8)
    assert found.bits == {"l0": 2, "l1": 8}
    assert found.mean_bits == 5.0


def test_of_tens_of_thousands_of_layers(reading: Make) -> None:
    count = 20_000
    layers = [LayerLoss(f"l{at}", 1.0, 0.125, 1.0 / (1 + at)) for at in range(count)]
    ladder = [reading(bits, 0.1, layers={f"l{at}": (1.0, 0.5**bits) for at in range(count)}) for bits in (4, 2)]
    assert mixture(layers, ladder, LAW, 3).mean_bits == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("budget", "found"), [(2, [2]), (2.5, [2, 3]), (3, [3]), (3.9, [3, 4]), (5, [4, 8]), (8, [8]), (9, [8])]
)
def test_bits_around_a_budget(ladder: Callable[..., list[Reading]], budget: float, found: list[int]) -> None:
    assert [one.bits for one in around(ladder(1), budget)] == found


def test_patterns_are_the_layers_that_differ_from_most() -> None:
    assert patterns({"a": 4, "b": 2, "c": 4, "d": 8}, 4) == {"b": 2, "d": 8}
    assert patterns({"a": 4, "b": 4}, 4) == {}
