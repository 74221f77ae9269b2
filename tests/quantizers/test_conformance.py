"""What every quantizer keeps, at every bitwidth, granularity and symmetry, and how its options are read."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from qbench.quant.block_grid import fake_quantize, quantize
from qbench.quantizers.base import Granularity, Quantizer
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS

NAMES = ["absmax", "mse"]
GRANULARITIES: list[Any] = ["per_tensor", "per_channel", {"per_group": 8}]
# The default, and every option of a class away from its default.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "absmax": [{}],
    "mse": [{}, {"p": 2.4, "candidates": 40, "smallest": 0.3}],
}

each_quantizer = pytest.mark.parametrize("name", NAMES)
each_granularity = pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)


def make(name: str, **options: Any) -> Quantizer:
    made = QUANTIZERS.get(name).model_validate({"name": name, **options})
    assert isinstance(made, Quantizer)
    return made


def weight() -> Tensor:
    drawn = torch.randn(6, 20, generator=torch.Generator().manual_seed(0)) ** 3
    drawn[2], drawn[3, 4:] = 0.0, 0.0
    return drawn


def test_all_built_in_names_are_tested() -> None:
    assert set(NAMES) <= set(QUANTIZERS.names())
    assert {name for name in QUANTIZERS.names() if QUANTIZERS.get(name).__module__.startswith("qbench.")} == set(NAMES)


@each_quantizer
@each_granularity
@pytest.mark.parametrize("grid_of", [False, True, "narrow_range", "larger_side"], ids=str)
@pytest.mark.parametrize("bits", range(2, 9))
def test_contract(name: str, granularity: Any, grid_of: bool | str, bits: int) -> None:
    symmetric = bool(grid_of)
    convention = grid_of if isinstance(grid_of, str) else "full_range"
    quantizer = make(name, granularity=granularity, symmetric=symmetric, convention=convention)
    before = weight()
    grid = choose_grid(before, quantizer, bits)
    assert torch.equal(before, weight()), "the rule changed the weight it was given"
    again = choose_grid(weight(), quantizer, bits)
    assert torch.equal(grid.scale, again.scale) and torch.equal(grid.zero_point, again.zero_point)

    quantized, codes = fake_quantize(before, grid), quantize(before, grid)
    blocks = [quantized.flatten()] if granularity == "per_tensor" else list(quantized)
    if isinstance(granularity, dict):
        blocks = [part for row in blocks for part in row.split(8)]
    assert len(blocks) == grid.scale.numel()
    assert all(len(block.unique()) <= 2**bits for block in blocks)
    assert len({round(float(level)) for level in codes.unique()} - set(range(-(2**bits), 2**bits))) == 0
    assert torch.equal(fake_quantize(quantized, grid), quantized)
    assert torch.equal(quantized == 0, codes == grid.by_column(20)[1])
    # Nothing is worse than to leave all weights out.
    assert (quantized - before).square().sum() <= before.square().sum()


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, listed in OPTIONS.items() for options in listed], ids=str
)
@each_granularity
def test_options_survive_json(name: str, options: dict[str, Any], granularity: Any) -> None:
    quantizer = make(name, granularity=granularity, symmetric=False, **options)
    plain = json.loads(json.dumps(quantizer.model_dump(mode="json")))
    assert plain["granularity"] == granularity
    assert type(quantizer).model_validate(plain) == quantizer
    assert type(quantizer).model_validate(quantizer.model_dump()) == quantizer
    assert type(quantizer).model_validate_json(quantizer.model_dump_json()) == quantizer


@pytest.mark.parametrize(
    ("name", "options", "label"),
    [
        ("absmax", {}, "absmax[per_channel]"),
        ("absmax", {"granularity": "per_tensor", "symmetric": False}, "absmax[per_tensor,asymmetric]"),
        ("mse", {"granularity": {"per_group": 64}}, "mse[g64]"),
        ("mse", {"p": 2.4, "candidates": 40}, "mse[per_channel,p=2.4,candidates=40]"),
    ],
)
def test_labels(name: str, options: dict[str, Any], label: str) -> None:
    assert make(name, **options).label() == label


@each_quantizer
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="nbits"):
        make(name, nbits=4)


@pytest.mark.parametrize(
    "options", [{"p": 0}, {"candidates": 0}, {"smallest": 0}, {"smallest": 1}, {"symmetric": "perhaps"}], ids=str
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        make("mse", **options)


@pytest.mark.parametrize(
    "value",
    [
        "per_row",
        {"per_group": 0},
        {"per_group": -8},
        {"per_group": "64"},
        {"per_group": True},
        {"per_group": 8.0},
        {"per_channel": 8},
        {"per_group": 8, "axis": 0},
        64,
        None,
    ],
    ids=str,
)
def test_what_is_no_granularity_is_told_what_is_one(value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        make("absmax", granularity=value)
    assert (
        f"{value!r} is not a granularity (allowed: per_tensor, per_channel, {{per_group: N}} with N at least 1)"
        in str(caught.value)
    )


@pytest.mark.parametrize(("kind", "group_size"), [("per_group", None), ("per_channel", 8), ("per_tensor", 8)])
def test_a_group_size_belongs_to_groups(kind: Any, group_size: int | None) -> None:
    with pytest.raises(ValidationError, match="group_size"):
        Granularity(kind=kind, group_size=group_size)
