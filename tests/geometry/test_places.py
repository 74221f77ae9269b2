"""Places of a model: every layer in one block, and in its kind."""

from __future__ import annotations

from itertools import chain

import pytest

from qbench.geometry.places import parts, places

KINDS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
DECODER = [f"model.layers.{block}.{kind}" for block in range(12) for kind in KINDS]
EXPERTS = [
    f"model.layers.{block}.mlp.experts.{expert}.{kind}"
    for block in range(6)
    for expert in range(64)
    for kind in ("up_proj", "down_proj")
]
NET = ["stem", *(f"stages.{stage}.{block}.conv{i}" for stage in range(3) for block in range(4) for i in (1, 2)), "head"]
BARE = [f"layer_{letter}" for letter in "abcdefghij"]


@pytest.mark.parametrize("layers", [DECODER, EXPERTS, NET, BARE], ids=["decoder", "experts", "net", "bare"])
@pytest.mark.parametrize("most", [4, 8, 16, 40])
def test_every_layer_is_in_one_block_and_there_are_not_many_more_places_than_asked_for(
    layers: list[str], most: int
) -> None:
    found = places(layers, most)
    blocks = [own for name, own in found.items() if not name.startswith("*.")]
    assert sorted(chain.from_iterable(blocks)) == sorted(layers)
    kinds = [own for name, own in found.items() if name.startswith("*.")]
    in_kinds = list(chain.from_iterable(kinds))
    assert len(set(in_kinds)) == len(in_kinds)
    assert len(found) <= max(most, len(kinds) + 1)
    assert all(own <= set(layers) and own for own in found.values())


def test_few_layers_are_places_of_their_own() -> None:
    assert places(DECODER, 48) == {name: frozenset({name}) for name in DECODER}
    assert list(places(DECODER, 48)) == DECODER
    assert len(places(DECODER, 47)) == 16


def test_places_are_called_by_what_is_in_them() -> None:
    found = places(DECODER, 16)
    assert list(found) == [*(f"model.layers.{block}" for block in range(12)), *(f"*.{kind}" for kind in KINDS)]
    assert found["model.layers.3"] == {f"model.layers.3.{kind}" for kind in KINDS}
    assert found["*.mlp.up_proj"] == {f"model.layers.{block}.mlp.up_proj" for block in range(12)}
    fewer = places(DECODER, 8)
    assert list(fewer)[:4] == [f"model.layers.{first}..model.layers.{first + 2}" for first in (0, 3, 6, 9)]
    assert len(fewer["model.layers.0..model.layers.2"]) == 12


def test_experts_are_of_one_kind() -> None:
    found = places(EXPERTS, 8)
    assert [name for name in found if name.startswith("*.")] == ["*.mlp.experts.*.up_proj", "*.mlp.experts.*.down_proj"]
    assert len(found) == 8
    assert len(found["*.mlp.experts.*.up_proj"]) == 6 * 64


def test_layers_outside_of_blocks_are_blocks_of_no_kind() -> None:
    found = places(NET, 20)
    assert found["stem"] == {"stem"} and found["head"] == {"head"}
    assert found["stages.1"] == {f"stages.1.{block}.conv{i}" for block in range(4) for i in (1, 2)}
    assert found["*.*.conv2"] == {f"stages.{stage}.{block}.conv2" for stage in range(3) for block in range(4)}
    bare = places(BARE, 4)
    assert list(bare) == ["layer_a..layer_c", "layer_d..layer_f", "layer_g..layer_i", "layer_j"]


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        ("model.layers.3.mlp.down_proj", ("model.layers.3", "mlp.down_proj")),
        ("model.layers.3.mlp.experts.17.w1", ("model.layers.3", "mlp.experts.*.w1")),
        ("layer1.0.conv1", ("layer1.0", "conv1")),
        ("head", ("head", "")),
        ("blocks.2", ("blocks.2", "")),
    ],
)
def test_block_and_kind_of_a_layer(layer: str, found: tuple[str, str]) -> None:
    assert parts(layer) == found
