"""Probes that move weights find of a model of which one block at a time is in memory what they find of it whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from qbench.geometry.margin import LayerMargins, Margin
from qbench.geometry.radius import Radius
from qbench.registry import QUANTIZERS
from qbench.runner import hidden_states
from qbench.runner.hidden_states import HiddenStates, Spill
from qbench.runner.streamed_memory import peak_of
from qbench.suite.cell import Cell

# Windows of 32: three of six are looked at, and the last calibration batch is not taken whole.
MARGIN = Margin(name="margin", budget=96, calibration=70)
EACH = LayerMargins(name="layer_margins", budget=64)
PARTS = LayerMargins(name="layer_margins", budget=32, most=4)


def test_the_same_numbers_as_with_all_blocks_in_memory(both: Callable[..., Any]) -> None:
    lm = both(num_hidden_layers=2)
    for probe in (MARGIN, EACH, PARTS):
        found = lm.require_same_probe(probe)
        assert found.cost.evaluation_seconds > 0
        assert found.layers == [] and found.weights_sha256 is None


@pytest.mark.parametrize(
    ("family", "dtype"), [("OPT", "bfloat16"), ("GPT2", "float32"), ("Qwen3", "float16"), ("Falcon", "float32")]
)
def test_the_same_numbers_of_other_families(both: Callable[..., Any], family: str, dtype: str) -> None:
    lm = both(family, dtype, num_hidden_layers=2)
    lm.require_same_probe(MARGIN)
    lm.require_same_probe(PARTS)


@pytest.mark.parametrize(
    "given",
    [
        {"name": "absmax", "first_last": "float"},
        {"name": "hessian_mse"},
        {"name": "mse", "layer_bits": {"model.layers.1.*": 2}},
    ],
    ids=str,
)
def test_with_quantizers_of_all_kinds(both: Callable[..., Any], given: dict[str, Any]) -> None:
    grid: Any = QUANTIZERS.get(given["name"]).model_validate(given)
    both(num_hidden_layers=2).require_same_probe(MARGIN, grid, 4)


def test_hidden_states_that_are_spilled_are_the_same(both: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden_states, "IN_MEMORY", 0)
    lm = both(num_hidden_layers=2)
    lm.require_same_probe(EACH)
    assert [path.name for path in lm.folder.parent.iterdir()] == ["model"]


def test_a_move_has_hidden_states_of_its_own_once_it_changes_something(
    both: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = both()
    ran: list[HiddenStates] = []
    put = HiddenStates.put
    monkeypatch.setattr(HiddenStates, "put", lambda self, index, value: (ran.append(self), put(self, index, value))[1])
    found = lm.probe("streamed", EACH)
    # Seven layers in each of three blocks: those of the first go through three blocks, of the second two, the last one.
    assert found.metrics["passes"] == 22
    batches = len({id(one) for one in ran})
    assert batches == 22  # two windows are one batch
    assert len(ran) == (1 + 3) + 7 * (3 + 2 + 1)


def test_the_model_is_as_it_was_after_a_probe(both: Callable[..., Any]) -> None:
    lm = both(num_hidden_layers=2)
    first = lm.run("streamed", None)
    assert lm.probe("streamed", MARGIN).metrics == lm.probe("streamed", MARGIN).metrics
    task = lm._sessions["streamed"]._task
    assert all(parameter.is_meta for _, block in task.blocks() for parameter in block.parameters())
    assert lm.run("streamed", None).metrics == first.metrics


def test_it_fails_as_the_whole_model_does(both: Callable[..., Any]) -> None:
    lm = both(num_hidden_layers=2)

    def reason(probe: Any, **options: Any) -> str:
        whole, streamed = (lm.probe(device_map, probe, **options) for device_map in ("whole", "streamed"))
        assert whole.status == streamed.status == "failed"
        assert whole.reason == streamed.reason
        return str(streamed.reason)

    inputs: Any = QUANTIZERS.get("absmax").model_validate({"name": "absmax", "activations": {"bits": 8}})
    assert reason(MARGIN, grid=inputs) == f"margin moves weights alone, and {inputs.label()} quantizes inputs too"
    assert "batch norm" in reason(MARGIN.model_copy(update={"bn": "recalibrate"}))
    file = lm.folder / "model.safetensors"
    weights = {name: value.zero_() if "_proj" in name else value for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    lm.__post_init__()  # reads the model again
    assert reason(PARTS) == "rounding to nearest leaves every weight as it is: there is no error to look along"


def test_another_probe_cannot_say_that_it_streams(both: Callable[..., Any]) -> None:
    class Claims(Radius):
        streams: ClassVar[bool] = True

    record = both(num_hidden_layers=1).probe("streamed", Claims(name="claims"))
    assert record.reason == (
        "claims says that it streams (allowed: probes made from qbench.geometry.margin.MovingProbe)"
    )


def test_what_it_needs_of_memory_grows_with_its_moves(both: Callable[..., Any], tmp_path: Path) -> None:
    spec = both().spec("streamed")
    task = spec.load(0, "cpu")

    def hidden(probe: Margin | LayerMargins, quantizer: str = "absmax") -> int:
        grid = QUANTIZERS.get(quantizer)(name=quantizer)
        parts = peak_of(task, Cell(spec, grid, 3, None, 0, ("loss",), probe=probe))
        assert sum(size > 0 for name, size in parts.items() if name in ("moments", "solving", "deploying", "loss")) == 1
        return parts["hidden_states"] // (24 * 4)

    windows = 32
    assert hidden(EACH) == 2 * windows * (1 + 21)
    assert hidden(MARGIN) == 3 * windows * (1 + 4) + 3 * windows
    assert hidden(MARGIN, "hessian_mse") == hidden(MARGIN) + 6 * windows
    held = Spill(tmp_path, "cpu").hold([torch.Size([2, 3])], torch.float32)
    with Spill(tmp_path, "cpu", 0) as spill:
        held.put(0, torch.ones(2, 3))
        empty = held.empty(spill)
        empty.put(0, torch.zeros(2, 3))
        assert float(held[0].sum()) == 6 and float(empty[0].sum()) == 0
