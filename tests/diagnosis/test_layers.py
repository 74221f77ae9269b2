"""What blocks and kinds of layers cost is shared among their layers: nothing is lost, and names are found again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.diagnosis.law import Law
from qbench.diagnosis.layers import LayerLoss, losses, on_bits
from qbench.diagnosis.reading import Reading
from qbench.geometry.places import places
from qbench.store.record import Record

Make = Callable[..., Record]

KINDS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
DECODER = [f"model.layers.{block}.{kind}" for block in range(25) for kind in KINDS]
EXPERTS = [
    f"model.layers.{block}.{kind}"
    for block in range(12)
    for kind in (
        "self_attn.q_proj",
        *(f"mlp.experts.{expert}.{name}" for expert in range(8) for name in ("up", "down")),
    )
]
NET = ["stem", *(f"stages.{stage}.{block}.conv{i}" for stage in range(3) for block in range(4) for i in (1, 2)), "head"]
DENSE = [
    "features.conv0",
    *(f"features.block{b}.layer{at}.conv{i}" for b in (1, 2) for at in range(1, 12) for i in (1, 2)),
    "classifier",
]
FEW = ["layers.0.up", "layers.0.down", "layers.10.up"]
MODELS = {"decoder": DECODER, "experts": EXPERTS, "net": NET, "dense": DENSE, "few": FEW}

each_model = pytest.mark.parametrize("names", MODELS.values(), ids=MODELS)
each_most = pytest.mark.parametrize("most", [4, 8, 16, 40])


def planted(
    make: Make, names: Sequence[str], most: int, cost: Callable[[str], float], size: Callable[[str], float]
) -> tuple[Record, Mapping[str, frozenset[str]]]:
    """Return a record of layers whose costs add up, and the places of it."""
    found = places(names, most)
    metrics = {f"weights/{name}": 1000.0 * size(name) for name in names}
    metrics |= {f"relative_error/{name}": 0.1 for name in names}
    for place, own in found.items():
        metrics[f"{place}/excess"] = math.fsum(cost(name) for name in own)
        metrics[f"{place}/se"] = 0.1 * metrics[f"{place}/excess"]
    # As a stored record has them: sorted.
    return make("layer_margins", 3, metrics=dict(sorted(metrics.items()))), found


@each_model
@each_most
def test_every_layer_is_there_once_and_has_its_size(record: Make, names: list[str], most: int) -> None:
    found = losses(planted(record, names, most, lambda _: 1e-3, lambda name: float(len(name)))[0])
    assert sorted(layer.name for layer in found) == sorted(names)
    assert all(layer.weights == 1000 * len(layer.name) and layer.relative_error == 0.1 for layer in found)


@each_model
@each_most
def test_layers_add_up_to_their_places(record: Make, names: list[str], most: int) -> None:
    chance = random.Random(0)
    costs = {name: chance.expovariate(1.0) for name in names}
    made, found = planted(record, names, most, costs.__getitem__, lambda _: 1.0)
    held = {layer.name: layer for layer in losses(made)}
    assert math.fsum(layer.excess for layer in held.values()) == pytest.approx(math.fsum(costs.values()))
    for place, own in found.items():
        if place.startswith("*."):
            continue
        assert math.fsum(held[name].excess for name in own) == pytest.approx(math.fsum(costs[name] for name in own))
        assert math.fsum(held[name].se for name in own) == pytest.approx(0.1 * math.fsum(costs[name] for name in own))


@pytest.mark.parametrize("names", [DECODER, EXPERTS, NET], ids=["decoder", "experts", "net"])
@each_most
def test_costs_of_kinds_are_found_again(record: Make, names: list[str], most: int) -> None:
    kinds = ("*.q_proj", "*.o_proj", "*.up*", "*.down*", "*.conv1", "*.conv2", "stem", "head")

    def cost(name: str) -> float:
        return float(1 + next(at for at, kind in enumerate(kinds) if fnmatchcase(name, kind)))

    # A layer that no kind was measured of costs by its size what others do for theirs.
    found = losses(planted(record, names, most, cost, cost)[0])
    assert {layer.name: layer.excess for layer in found} == pytest.approx({name: cost(name) for name in names})


def test_few_layers_are_as_they_were_measured(record: Make) -> None:
    costs = dict(zip(FEW, (0.3, 0.0, 0.1), strict=True))
    found = losses(planted(record, FEW, 40, costs.__getitem__, lambda _: 1.0)[0])
    assert {layer.name: layer.excess for layer in found} == costs
    assert found[0].cautious == pytest.approx(1.1 * found[0].excess)


def test_layers_are_told_by_the_order_of_their_numbers(record: Make) -> None:
    found = losses(planted(record, DECODER, 8, lambda _: 1.0, lambda _: 1.0)[0])
    blocks = list(dict.fromkeys(layer.name.split(".")[2] for layer in found))
    assert blocks == [str(at) for at in range(25)]


def test_a_block_is_not_taken_for_one_that_its_name_begins(record: Make) -> None:
    names = [f"layers.{block}.{kind}" for block in (1, 10, 11, 100) for kind in ("up", "down")]
    made, _ = planted(record, names, 7, lambda name: float(name.split(".")[1]), lambda _: 1.0)
    held = losses(made)
    assert {layer.name: layer.excess for layer in held} == pytest.approx(
        {name: float(name.split(".")[1]) for name in names}
    )


def test_what_was_gained_by_chance_costs_nothing(record: Make) -> None:
    metrics = {"up/excess": -0.2, "up/se": 0.3, "weights/up": 4.0, "relative_error/up": 0.1}
    (layer,) = losses(record("layer_margins", 3, metrics=metrics))
    assert (layer.excess, layer.se, layer.cautious) == (0.0, 0.3, 0.3)


def test_a_kind_that_costs_nothing_has_no_part_unless_none_costs(record: Make) -> None:
    names = [f"layers.{block}.{kind}" for block in range(4) for kind in ("up", "down")]
    for free, parts in ((("up",), {"up": 0.0, "down": 1.0}), (("up", "down"), {"up": 0.5, "down": 0.5})):
        made, _ = planted(record, names, 6, lambda _: 0.5, lambda _: 1.0)
        made.metrics.update({f"*.{kind}/excess": 0.0 for kind in free})
        for layer in losses(made):
            assert layer.excess == pytest.approx(parts[layer.name.rpartition(".")[2]], abs=1e-9)


@given(st.floats(0.01, 0.5), st.floats(0.01, 0.5), st.floats(0.5, 8))
def test_on_other_bits_a_layer_costs_what_the_law_says(
    reading: Callable[..., Reading], measured: float, other: float, exponent: float
) -> None:
    law = Law((0.001, 1.0), (0.001**exponent, 1.0))
    layer = LayerLoss("up", 4.0, measured, 0.2, 0.1)
    cost = on_bits(layer, reading(4, 0.1, layers={"up": (4.0, other)}), law)
    assert cost == pytest.approx(0.3 * (other / measured) ** min(max(exponent, 1.0), 6.0), rel=1e-6)


def test_a_layer_without_error_costs_nothing(reading: Callable[..., Reading]) -> None:
    law = Law((0.1,), (1.0,))
    assert on_bits(LayerLoss("up", 4.0, 0.0, 0.2), reading(4, 0.1), law) == 0.0
    assert on_bits(LayerLoss("up", 4.0, 0.1, 0.2), reading(4, 0.1, layers={"up": (4.0, 0.0)}), law) == 0.0
