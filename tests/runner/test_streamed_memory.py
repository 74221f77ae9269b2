"""What a streamed cell takes of memory is what the formula says at most, however many blocks there are."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from qbench.methods.matrices import is_matrix_layer
from qbench.runner.hidden_states import IN_MEMORY
from qbench.runner.streamed_memory import Shapes, streamed_peak
from qbench.tasks.streamed_model import build_frame
from qbench.tasks.torchvision_ops import declare_missing_operators

GIB = 1 << 30
PROGRAM = Path(__file__).with_name("streamed_subject.py")
SEVEN_BILLION = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "vocab_size": 32000}


def measured(folder: Path, timeout: int, **given: Any) -> list[dict[str, Any]]:
    command = [sys.executable, "-W", "ignore", PROGRAM, json.dumps(given), folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert not any(one["reason"] for one in found), found
    return found


def seven_billion(calibration: int, evaluation: int) -> tuple[Shapes, int]:
    """Return the shapes of a Llama of 7 billion parameters in bfloat16, and what all its blocks take together."""
    declare_missing_operators()
    import transformers

    config = transformers.LlamaConfig(**SEVEN_BILLION, num_hidden_layers=32)
    frame: Any = build_frame(config, torch.bfloat16)
    blocks = frame.model.layers
    size = sum(parameter.nbytes for parameter in blocks[0].parameters())
    whole = sum(parameter.nbytes for parameter in frame.parameters())
    layers = [module for module in blocks[0].modules() if is_matrix_layer(module)]
    shapes = Shapes(
        outside=whole - 32 * size,
        block=size,
        matrices=tuple(tuple(layer.weight.shape) for layer in layers),
        itemsize=2,
        hidden_size=4096,
        vocabulary=32000,
        calibration=(4 * 2048, calibration),
        evaluation=(2048, evaluation),
    )
    return shapes, 32 * size


@pytest.mark.parametrize("inputs", [None, "nothing", "quantized", "full_precision"])
def test_seven_billion_parameters_fit_into_24_gib(inputs: str | None) -> None:
    shapes, blocks = seven_billion(calibration=128 * 2048, evaluation=166 * 2048)
    assert blocks + shapes.outside > 12.5 * GIB
    assert sum(streamed_peak(shapes, inputs).values()) < 24 * GIB


def test_the_readme_tells_what_the_formula_gives() -> None:
    shapes, _ = seven_billion(calibration=128 * 2048, evaluation=166 * 2048)
    told = math.ceil(sum(streamed_peak(shapes, "quantized").values()) / GIB)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"takes {told} GiB with GPTQ on 128 windows of 2048 tokens" in " ".join(readme.split())


def test_parts_add_up_to_one_phase_and_what_is_always_there() -> None:
    shapes, _ = seven_billion(calibration=128 * 2048, evaluation=166 * 2048)
    parts = streamed_peak(shapes, "quantized")
    phases = {name: parts[name] for name in ("moments", "solving", "deploying", "loss")}
    assert sum(size > 0 for size in phases.values()) == 1
    assert phases["solving"] > 0
    assert parts["hidden_states"] <= IN_MEMORY
    # More data is spilled, and takes no memory.
    more, _ = seven_billion(calibration=10**9, evaluation=10**9)
    assert sum(streamed_peak(more, "quantized").values()) <= sum(parts.values())


def test_the_peak_does_not_grow_with_the_number_of_blocks(tmp_path: Path) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 1376, "num_attention_heads": 8, "vocab_size": 1024}
    data = {"window": 32, "calibration_windows": 4, "evaluation_windows": 4, "methods": ["gptq"]}
    # The first of them brings libraries and texts into the process.
    models = [{**sizes, "num_hidden_layers": blocks} for blocks in (1, 2, 6)]
    _, few, many = measured(tmp_path, 600, **data, sizes=models)
    a_block = 4 * (4 * 512 * 512 + 3 * 512 * 1376)
    assert many["peak"] - few["peak"] < 2 * a_block  # of the four more: a process's peak itself varies by some MB
    for one in (few, many):
        assert one["peak"] < one["estimate"] == sum(one["parts"].values())
    assert few["estimate"] == many["estimate"]


def test_probes_that_move_weights_stay_under_the_formula_too(tmp_path: Path) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 1376, "num_attention_heads": 8, "vocab_size": 1024}
    data = {"window": 32, "calibration_windows": 8, "evaluation_windows": 8, "methods": ["margin", "layer_margins"]}
    for one in measured(tmp_path, 600, **data, sizes=[{**sizes, "num_hidden_layers": 2}]):
        assert one["peak"] < one["estimate"] == sum(one["parts"].values())


@pytest.mark.nightly
def test_blocks_of_seven_billion_parameters_stay_under_the_formula(tmp_path: Path) -> None:
    data = {"window": 256, "calibration_windows": 4, "evaluation_windows": 4, "dtype": "bfloat16", "threads": 2}
    sizes = {**SEVEN_BILLION, "num_hidden_layers": 2}
    for one in measured(tmp_path, 7200, **data, sizes=[sizes], methods=[None, "rtn", "gptq", "margin"]):
        told = f"{one['method'] or 'fp'}: {one['peak'] / GIB:.2f} of {one['estimate'] / GIB:.2f} GiB"
        sys.stderr.write(f"{told}, {one['seconds']:.0f} s\n")
        assert one["peak"] < one["estimate"] < 24 * GIB
        assert one["layers"] == (14 if one["method"] in ("rtn", "gptq") else 0)
