"""Layers in the formats of compressed-tensors: the package itself makes the same weights of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qbench.errors import CellError
from qbench.methods.problem import LayerSolution
from qbench.quant.block_grid import quantize
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS
from qbench.runner.compressed_layers import compress_layers, restore_layer


def solved(quantizer: dict[str, Any], bits: int, rows: int = 24, columns: int = 64) -> LayerSolution:
    """Return a drawn matrix rounded to nearest; larger on one side, so that zero points lie off the middle."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(bits)) + 0.5
    grid = choose_grid(weight, QUANTIZERS.get(quantizer["name"]).model_validate(quantizer), bits)
    return LayerSolution(quantize(weight, grid), grid)


GRANULARITIES = ["per_tensor", "per_channel", {"per_group": 16}, {"per_block": [5, 16]}]
each_granularity = pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(
    "options",
    [
        {"symmetric": False},
        {"convention": "larger_side"},
        {"convention": "full_range"},
        {"convention": "narrow_range"},
    ],
    ids=["asymmetric", "larger_side", "full_range", "narrow_range"],
)
@each_granularity
def test_integers_of_all_bits_and_conventions(bits: int, options: dict[str, Any], granularity: Any) -> None:
    rule = {"name": "absmax", "granularity": granularity, **options}
    if QUANTIZERS.get("absmax").model_validate(rule).refuses(bits):
        pytest.skip("no such grid")
    found = solved(rule, bits)
    scheme, tensors = compress_layers({"layer": found})["layer"]
    assert (scheme.format, scheme.num_bits, scheme.type) == ("pack-quantized", bits, "int")
    assert scheme.symmetric == ("convention" in options and options["convention"] != "larger_side")
    assert ("weight_zero_point" in tensors) != scheme.symmetric
    assert tensors["weight_packed"].shape == (24, -(-64 * bits // 32))
    assert torch.equal(restore_layer(scheme, tensors), found.weight())


@pytest.mark.parametrize(
    ("quantizer", "bits", "stored_bits"),
    [("fp", 4, 5), ("seq", 2, 3), ("seq", 4, 5), ("ternary", 2, 2), ("binary", 1, 2), ("pot", 4, 8)],
)
@each_granularity
def test_tables_of_whole_steps_are_integers(quantizer: str, bits: int, stored_bits: int, granularity: Any) -> None:
    found = solved({"name": quantizer, "granularity": granularity}, bits)
    scheme, tensors = compress_layers({"layer": found})["layer"]
    assert (scheme.format, scheme.num_bits, scheme.symmetric) == ("pack-quantized", stored_bits, True)
    assert torch.equal(restore_layer(scheme, tensors), found.weight())


@each_granularity
def test_e4m3(granularity: Any) -> None:
    found = solved({"name": "fp", "granularity": granularity}, 8)
    scheme, tensors = compress_layers({"layer": found})["layer"]
    assert (scheme.format, tensors["weight"].dtype) == ("float-quantized", torch.float8_e4m3fn)
    assert torch.equal(restore_layer(scheme, tensors), found.weight())


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_microscaling_formats_are_exact(bits: int) -> None:
    options = {"format": "e2m3"} if bits == 6 else {}
    found = solved({"name": "mx", **options}, bits)
    scheme, tensors = compress_layers({"layer": found})["layer"]
    assert scheme.format == {4: "mxfp4-pack-quantized", 6: "mxfp6-pack-quantized", 8: "mxfp8-quantized"}[bits]
    assert tensors["weight_scale"].dtype == torch.uint8
    assert torch.equal(restore_layer(scheme, tensors).float(), found.weight())


def test_nvfp4_is_rounded_to_bfloat16_by_the_package() -> None:
    found = solved({"name": "nvfp4"}, 4)
    scheme, tensors = compress_layers({"layer": found})["layer"]
    assert (scheme.format, scheme.half_precision) == ("nvfp4-pack-quantized", True)
    restored = restore_layer(scheme, tensors)
    assert restored.dtype == torch.bfloat16
    # A rounding to 8 bits, of a product with the reciprocal of the unit in place of a quotient.
    assert torch.allclose(restored.float(), found.weight(), rtol=2**-8, atol=0)
    assert torch.equal(restored.float() == 0, found.weight() == 0)


def test_microscaling_is_for_models_that_it_fits_throughout() -> None:
    even, ragged = solved({"name": "nvfp4"}, 4), solved({"name": "nvfp4"}, 4, columns=56)
    stored = compress_layers({"even": even, "ragged": ragged})
    for name, found in {"even": even, "ragged": ragged}.items():
        scheme, tensors = stored[name]
        assert (scheme.format, scheme.num_bits) == ("pack-quantized", 5)
        assert torch.equal(restore_layer(scheme, tensors), found.weight())
    assert [stored[name][0].group_size for name in stored] == [16, 8]


@pytest.mark.parametrize("bits", [1, 4, 7, 8])
def test_zero_points_where_layers_differ(bits: int) -> None:
    rule = {"name": "absmax", "granularity": {"per_group": 32}, "symmetric": False}
    layers = {"even": solved(rule, bits), "ragged": solved(rule, bits, columns=56)}
    for name, (scheme, tensors) in compress_layers(layers).items():
        assert not scheme.has_packed_zero_points
        assert (scheme.format, scheme.num_bits) == (("int-quantized", 8) if bits == 8 else ("pack-quantized", bits + 1))
        assert torch.equal(restore_layer(scheme, tensors), layers[name].weight())


@pytest.mark.parametrize("quantizer", ["absmax", "fp"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_shorter_last_group_is_cut_into_parts_of_all(quantizer: str, bits: int) -> None:
    found = solved({"name": quantizer, "granularity": {"per_group": 48}}, bits)
    scheme, tensors = compress_layers({"layer": found})["layer"]
    assert scheme.group_size == 16 and tensors["weight_scale"].shape == (24, 4)
    assert torch.equal(restore_layer(scheme, tensors), found.weight())


@pytest.mark.parametrize(
    ("quantizer", "bits", "said"),
    [
        ({"name": "nf"}, 4, "nf4, 16 levels, 4 bits"),
        ({"name": "kmeans"}, 3, "codebook of 8 levels a block, 3 bits"),
        ({"name": "hqq"}, 4, "asymmetric min-max with real zero point, 4 bits"),
        ({"name": "absmax", "granularity": {"per_group": 12}}, 4, "symmetric full_range, 4 bits, groups of 12 of 64"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else None,
)
def test_other_grids_are_refused_by_name(quantizer: dict[str, Any], bits: int, said: str) -> None:
    with pytest.raises(CellError) as raised:
        compress_layers({"layer": solved(quantizer, bits)})
    text = str(raised.value)
    assert text.startswith(f"layer 'layer': compressed-tensors has no such grid: {said}") and "\n" not in text
    assert "(allowed: integers of 1 to 8 bits with whole zero points, tables" in text
