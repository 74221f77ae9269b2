"""What every quantizer keeps, at every bitwidth, granularity and symmetry, and how its options are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from qbench.quant.block_grid import dequantize, fake_quantize, quantize
from qbench.quant.levels import Codebook, LevelTable
from qbench.quant.packed_layer import pack_layer, unpack_layer
from qbench.quantizers.base import IntegerQuantizer, Quantizer
from qbench.quantizers.granularity import Granularity
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS

GRANULARITIES: list[Any] = ["per_tensor", "per_channel", {"per_group": 8}, {"per_block": [4, 8]}]
OF_A_FORMAT: dict[str, Any] = {"mxfp4": {"per_group": 32}, "mx": {"per_group": 32}, "nvfp4": {"per_group": 16}}
SYMMETRIES: list[dict[str, Any]] = [
    {"symmetric": False},
    {"symmetric": True},
    {"symmetric": True, "convention": "narrow_range"},
    {"symmetric": True, "convention": "larger_side"},
]
# The default, and every option of a class away from its default.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "absmax": [{}],
    "percentile": [{}, {"q": 90.0}],
    "mse": [{}, {"p": 2.4, "candidates": 40, "smallest": 0.3}],
    "hessian_mse": [{}, {"p": 2.4, "candidates": 40, "smallest": 0.3}],
    "hqq": [{}, {"p": 1.0, "beta": 1.0, "kappa": 1.1, "iterations": 5}],
    "nf": [{}, {"range": "mse"}],
    "lattice": [{}, {"step": 0.25, "unit": "absolute"}],
    "fp": [{}, {"format": "e3m0", "range": "mse"}, {"format": "e5m2"}, {"format": "e1m2"}],
    "pot": [{}, {"range": "mse"}],
    "apot": [{}, {"range": "mse"}],
    "seq": [{}, {"range": "mse"}],
    "ternary": [{}, {"range": "absmax"}, {"range": "mse"}],
    "binary": [{}],
    "mxfp4": [{}],
    "mx": [{}, {"format": "e2m3"}, {"format": "e5m2"}],
    "nvfp4": [{}],
    "kmeans": [{}, {"iterations": 3}],
}
SHARED = {"name", "granularity", "first_last", "activations", "layer_bits", "symmetric", "convention"}
ROWS, COLUMNS = 6, 20

each_quantizer = pytest.mark.parametrize("name", OPTIONS)


def make(name: str, **options: Any) -> Quantizer:
    made = QUANTIZERS.get(name).model_validate({"name": name, **options})
    assert isinstance(made, Quantizer)
    return made


def settings() -> Iterator[Any]:
    """Yield every quantizer with every granularity that it has, and every option, or by default every symmetry."""
    for name, listed in OPTIONS.items():
        integers = issubclass(QUANTIZERS.get(name), IntegerQuantizer) and name != "hqq"
        for options in listed:
            for symmetry in (SYMMETRIES[: 1 if options else 4]) if integers else [{}]:
                granularities = GRANULARITIES[:2] if name == "kmeans" else GRANULARITIES
                for granularity in [OF_A_FORMAT[name]] if name in OF_A_FORMAT else granularities:
                    every = {**options, **symmetry, "granularity": granularity}
                    yield pytest.param(name, every, id=f"{name}-{every}")


def weight() -> Tensor:
    drawn = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)) ** 3
    drawn[2], drawn[3, 4:], drawn[4] = 0.0, 0.0, 2.5
    return drawn


def importance() -> Tensor:
    return torch.rand(1, COLUMNS, generator=torch.Generator().manual_seed(1))


def blocks_of(matrix: Tensor, granularity: Granularity) -> list[Tensor]:
    """Return the parts of a matrix that share a scale."""
    if granularity.kind == "per_tensor":
        return [matrix]
    bands = matrix.split(granularity.block_rows or 1)
    return [tile for band in bands for tile in band.split(granularity.group_size or COLUMNS, dim=1)]


def test_all_built_in_names_are_tested_with_all_their_options() -> None:
    built_in = {name for name in QUANTIZERS.names() if QUANTIZERS.get(name).__module__.startswith("qbench.")}
    assert built_in == OPTIONS.keys()
    for name, listed in OPTIONS.items():
        assert set(QUANTIZERS.get(name).model_fields) - SHARED == {key for options in listed for key in options}


def cells() -> Iterator[Any]:
    """Yield every setting at all its bits; with other granularities than the first at some of them."""
    for setting in settings():
        name, options = setting.values
        first = name in OF_A_FORMAT or options["granularity"] == GRANULARITIES[0]
        for bits in range(1, 9) if first else (1, 2, 4, 8):
            if make(name, **options).refuses(bits) is None:
                yield pytest.param(*setting.values, bits, id=f"{setting.id}-{bits}")


@pytest.mark.parametrize(("name", "options", "bits"), list(cells()))
def test_contract(name: str, options: dict[str, Any], bits: int) -> None:
    quantizer, before = make(name, **options), weight()
    grid = choose_grid(before, quantizer, bits, importance())
    assert torch.equal(before, weight()), "the rule changed the weight it was given"
    again = choose_grid(weight(), quantizer, bits, importance())
    assert torch.equal(grid.scale, again.scale) and torch.equal(grid.zero_point, again.zero_point)

    levels, quantized, codes = grid.levels, fake_quantize(before, grid), quantize(before, grid)
    assert levels.count <= 2**bits
    blocks = blocks_of(quantized, quantizer.granularity)
    assert len(blocks) == (grid.scale if grid.table is None else grid.table[:, :1]).numel()
    assert all(len(block.unique()) <= levels.count for block in blocks)
    assert torch.equal(codes, codes.round())
    assert levels.quant_min <= codes.min() and codes.max() <= levels.quant_max
    assert torch.equal(dequantize(codes, grid), quantized)
    assert torch.equal(fake_quantize(quantized, grid), quantized)
    assert torch.equal(quantize(quantized, grid), codes)
    if isinstance(levels, LevelTable):
        has_zero = 0.0 in levels.values
    else:
        has_zero = not isinstance(levels, Codebook) and not levels.real_zero_point
    if has_zero:
        assert (quantized[before == 0] == 0).all()
    # Nothing is worse than to leave all weights out, but levels that keep small weights from 0.
    assert name == "seq" or (quantized - before).square().sum() <= before.square().sum()


@pytest.mark.parametrize(("name", "options"), list(settings()))
def test_a_weight_of_nothing_stays_nothing(name: str, options: dict[str, Any]) -> None:
    quantizer, nothing = make(name, **options), torch.zeros(ROWS, COLUMNS)
    for bits in (bits for bits in range(1, 9) if quantizer.refuses(bits) is None):
        grid = choose_grid(nothing, quantizer, bits, importance())
        assert fake_quantize(nothing, grid).abs().max() < 1e-29
        assert torch.isfinite(fake_quantize(weight(), grid)).all()


@pytest.mark.parametrize(("name", "options", "bits"), list(cells()))
def test_packed_codes_and_scales_are_read_back_to_the_bit(name: str, options: dict[str, Any], bits: int) -> None:
    grid = choose_grid(weight(), make(name, **options), bits, importance())
    codes = quantize(weight(), grid)
    tensors, about = pack_layer(codes, grid)
    again, read = unpack_layer(tensors, json.loads(json.dumps(about)))
    assert torch.equal(again, codes)
    assert torch.equal(dequantize(again, read), dequantize(codes, grid))
    stored = sum(part.numel() * part.element_size() for part in tensors.values())
    # Codes and zero points fill up their last bytes.
    assert 0 <= 8 * stored - grid.stored_bits(ROWS, COLUMNS) < 16


@each_quantizer
def test_some_bits_are_allowed_and_others_are_refused_by_name(name: str) -> None:
    for options in OPTIONS[name]:
        quantizer = make(name, **options)
        reasons = {bits: quantizer.refuses(bits) for bits in range(17)}
        assert any(reasons[bits] is None for bits in range(1, 9))
        assert all(reasons[bits] for bits in (0, *range(9, 17)))
        wanted = f"format {options.get('format')}" if "format" in options else name
        assert all(wanted in reason for reason in reasons.values() if reason)


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, listed in OPTIONS.items() for options in listed], ids=str
)
def test_options_survive_json(name: str, options: dict[str, Any]) -> None:
    for granularity in [OF_A_FORMAT[name]] if name in OF_A_FORMAT else GRANULARITIES[:2]:
        quantizer = make(name, granularity=granularity, first_last="float", **options)
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
        ("absmax", {"granularity": {"per_block": [16, 64]}}, "absmax[b16x64]"),
        ("mse", {"granularity": {"per_group": 64}}, "mse[g64]"),
        ("mse", {"p": 2.4, "candidates": 40}, "mse[per_channel,p=2.4,candidates=40]"),
        ("hqq", {}, "hqq[per_channel,asymmetric]"),
        ("nf", {}, "nf[per_channel]"),
        ("fp", {"format": "e3m0", "range": "mse"}, "fp[per_channel,range=mse,format=e3m0]"),
        ("mxfp4", {}, "mxfp4[g32]"),
        ("nvfp4", {"first_last": "float"}, "nvfp4[g16,first_last=float]"),
    ],
)
def test_labels(name: str, options: dict[str, Any], label: str) -> None:
    assert make(name, **options).label() == label


@each_quantizer
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="nbits"):
        make(name, nbits=4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("mse", options) for options in ({"p": 0}, {"candidates": 0}, {"smallest": 0}, {"smallest": 1})),
        ("absmax", {"symmetric": "perhaps"}),
        *(("percentile", {"q": q}) for q in (50, 100.1)),
        *(("hqq", options) for options in ({"p": 0}, {"p": 1.1}, {"beta": 0}, {"kappa": 0.9}, {"iterations": 0})),
        *((name, {"range": "mean"}) for name in ("nf", "fp", "pot", "apot", "seq")),
        *(("fp", {"format": name}) for name in ("e2", "e0m3", "e4m4", "e7m0", "int4", "E2M1")),
        ("mx", {"format": "e3m0"}),
        ("kmeans", {"iterations": -1}),
    ],
    ids=str,
)
def test_options_out_of_bounds_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        make(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "hqq",
            {"symmetric": True},
            "hqq optimises the zero point, and a symmetric grid has none (allowed: symmetric: false)",
        ),
        (
            "mxfp4",
            {"granularity": "per_channel"},
            "groups of 32 are part of the format mxfp4 (allowed: granularity: {per_group: 32}, which is the default)",
        ),
        (
            "nvfp4",
            {"granularity": {"per_group": 32}},
            "groups of 16 are part of the format nvfp4 (allowed: granularity: {per_group: 16}, which is the default)",
        ),
        (
            "kmeans",
            {"granularity": {"per_group": 64}},
            "a codebook is too large to be stored for each group (allowed: granularity: per_channel or per_tensor, "
            "given g64)",
        ),
        (
            "kmeans",
            {"granularity": {"per_block": [4, 8]}},
            "a codebook is too large to be stored for each group (allowed: granularity: per_channel or per_tensor, "
            "given b4x8)",
        ),
        (
            "binary",
            {"first_last": "8bit"},
            "first_last 8bit is not to be had: binary has no grid of 8 bits (allowed: 1); same and float are",
        ),
        (
            "fp",
            {"format": "e2m1", "first_last": "8bit"},
            "first_last 8bit is not to be had: format e2m1 has 4 bits, not 8; same and float are",
        ),
        ("fp", {"format": "int4"}, "'int4' is not a floating-point format (allowed: eXmY, such as e2m1)"),
        (
            "fp",
            {"format": "e7m0"},
            "'e7m0' is not a floating-point format of 2 to 8 bits with 1 to 6 of exponent",
        ),
    ],
)
def test_what_is_refused_is_told_why(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(name, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "bits", "reason"),
    [
        ("pot", 8, "pot has no grid of 8 bits (allowed: 2 to 7)"),
        ("nf", 1, "nf has no grid of 1 bit (allowed: 2 to 8)"),
        ("mx", 5, "mx has no grid of 5 bits (allowed: 4 or 6 or 8)"),
        ("ternary", 1, "ternary has no grid of 1 bit (allowed: 2)"),
    ],
)
def test_bits_that_there_are_not(name: str, bits: int, reason: str) -> None:
    assert make(name).refuses(bits) == reason


@pytest.mark.parametrize("name", ["fp", "mx"])
def test_a_format_has_its_own_bits(name: str) -> None:
    assert make(name, format="e2m1").refuses(4) is None
    assert make(name, format="e2m1").refuses(6) == "format e2m1 has 4 bits, not 6"


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
        {"per_block": 8},
        {"per_block": [8]},
        {"per_block": [8, 0]},
        {"per_block": [8, 8, 8]},
        64,
        None,
    ],
    ids=str,
)
def test_what_is_no_granularity_is_told_what_is_one(value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        make("absmax", granularity=value)
    assert (
        f"{value!r} is not a granularity (allowed: per_tensor, per_channel, {{per_group: N}} or "
        "{per_block: [R, C]} with N, R and C at least 1)" in str(caught.value)
    )


@pytest.mark.parametrize(
    ("kind", "group_size", "block_rows"),
    [
        ("per_group", None, None),
        ("per_channel", 8, None),
        ("per_tensor", 8, None),
        ("per_group", 8, 4),
        ("per_block", 8, None),
        ("per_block", None, 4),
    ],
)
def test_sizes_belong_to_groups_and_tiles(kind: Any, group_size: int | None, block_rows: int | None) -> None:
    with pytest.raises(ValidationError, match=r"group_size|block_rows"):
        Granularity(kind=kind, group_size=group_size, block_rows=block_rows)
