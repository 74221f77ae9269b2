"""A packed file written layer by layer has the bytes of one written at once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from qbench.methods.problem import LayerSolution, Solution
from qbench.quant.block_grid import quantize
from qbench.quantizers.activations import Activations
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS
from qbench.runner.evidence import packed_weights
from qbench.runner.packed_file import read_packed
from qbench.runner.packed_writer import PackedWriter

GRIDS: list[tuple[dict[str, Any], int]] = [
    ({"name": "absmax", "granularity": {"per_group": 16}}, 3),
    ({"name": "absmax", "symmetric": False}, 4),
    ({"name": "hqq"}, 4),
    ({"name": "nvfp4"}, 4),
    ({"name": "mxfp4"}, 4),
    ({"name": "kmeans"}, 2),
    ({"name": "ternary"}, 2),
]


def solution_of(given: dict[str, Any], bits: int) -> Solution:
    quantizer = QUANTIZERS.get(given["name"]).model_validate(given)
    generator = torch.Generator().manual_seed(0)
    layers = {}
    for name in [f"layers.{index}.{part}" for index in (0, 1, 10, 2) for part in ("up", "down")]:
        weight = torch.randn(24, 48, generator=generator)
        grid = choose_grid(weight, quantizer, bits)  # type: ignore[arg-type]
        layers[name] = LayerSolution(quantize(weight, grid), grid)
    return Solution(layers)


@pytest.mark.parametrize(("given", "bits"), GRIDS, ids=[given["name"] for given, _ in GRIDS])
def test_the_same_bytes_as_at_once(tmp_path: Path, given: dict[str, Any], bits: int) -> None:
    solution = solution_of(given, bits)
    activations = {name: Activations(bits=8) for name in list(solution.layers)[:3]}
    for asked in ({}, activations):
        expected, sha256 = packed_weights(solution, asked)
        with PackedWriter(tmp_path / "weights" / "w.safetensors") as writer:
            for name, found in solution.layers.items():
                writer.add(Solution({name: found}), {one: asked[one] for one in [name] if one in asked})
            assert list((tmp_path / "weights").glob("*")) in ([], [tmp_path / "weights" / "w.safetensors"])
            assert writer.finish() == sha256
        data = (tmp_path / "weights" / "w.safetensors").read_bytes()
        assert data == expected
        assert hashlib.sha256(data).hexdigest() == sha256
        assert read_packed(tmp_path / "weights" / "w.safetensors").layers.keys() == solution.layers.keys()
        assert [path.name for path in (tmp_path / "weights").iterdir()] == ["w.safetensors"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), PackedWriter(tmp_path / "w.safetensors") as writer:
        writer.add(solution_of(*GRIDS[0]), {})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
