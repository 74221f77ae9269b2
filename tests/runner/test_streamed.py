"""A model of which one block at a time is in memory gives the bytes that the whole model gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from qbench.errors import QBenchError
from qbench.methods.adaround import AdaRound
from qbench.methods.base import Method
from qbench.methods.fine_tune import FineTuning
from qbench.methods.gptq import GPTQ
from qbench.methods.rtn import RoundToNearest
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.base import Quantizer
from qbench.registry import METHODS, PROBES, QUANTIZERS
from qbench.runner import hidden_states
from qbench.suite.metrics import measured_by
from qbench.tasks.model_spec import ModelSpec

RTN, GPTQ_, IN_TURN = RoundToNearest(name="rtn"), GPTQ(name="gptq"), GPTQ(name="gptq", true_sequential=True)


def test_the_same_bytes_as_with_all_blocks_in_memory(both: Callable[..., Any]) -> None:
    lm = both()
    for method in (None, RTN, GPTQ_):
        lm.require_same(method)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("Llama", "bfloat16"),
        ("GPT2", "bfloat16"),
        ("OPT", "float32"),
        ("GPTNeoX", "float16"),
        ("Qwen3", "float32"),
        ("Gemma3", "bfloat16"),
        ("Falcon", "float32"),
    ],
)
def test_the_same_bytes_of_other_families(both: Callable[..., Any], family: str, dtype: str) -> None:
    both(family, dtype, num_hidden_layers=2).require_same(GPTQ_)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["GPT2", "OPT", "GPTNeoX", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Phi"])
def test_the_same_bytes_of_all_families(both: Callable[..., Any], family: str, dtype: str) -> None:
    lm = both(family, dtype)
    for method in (None, RTN, GPTQ_):
        lm.require_same(method)


@pytest.mark.parametrize(
    "method", [IN_TURN, GPTQ(name="gptq", inputs="full_precision"), GPTQ(name="gptq", cd_sweeps=1)]
)
def test_with_options_of_the_method(both: Callable[..., Any], method: Method) -> None:
    both().require_same(method)


@pytest.mark.parametrize(
    "given",
    [
        {"name": "absmax", "first_last": "float", "granularity": {"per_group": 16}},
        {"name": "absmax", "activations": {"bits": 8}},
        {"name": "hessian_mse"},
        {"name": "nvfp4"},
    ],
    ids=str,
)
def test_with_quantizers_of_all_kinds(both: Callable[..., Any], given: dict[str, Any]) -> None:
    grid = QUANTIZERS.get(given["name"]).model_validate(given)
    assert isinstance(grid, Quantizer)
    both(num_hidden_layers=2).require_same(GPTQ_, grid, 4)


def test_of_a_checkpoint_in_several_files(both: Callable[..., Any]) -> None:
    lm = both(shard="20KB")
    assert len(list(lm.folder.glob("*.safetensors"))) > 2
    lm.require_same(GPTQ_)


def test_hidden_states_that_are_spilled_are_the_same(both: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden_states, "IN_MEMORY", 0)
    lm = both(dtype="bfloat16", num_hidden_layers=2)
    lm.require_same(GPTQ_)
    assert sorted(path.name for path in lm.folder.parent.iterdir()) == [
        "model",
        "streamed.safetensors",
        "whole.safetensors",
    ]


def test_a_cell_that_fails_leaves_nothing_behind(both: Callable[..., Any]) -> None:
    lm = both()
    file = lm.folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.2.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    for method in (None, RTN):
        whole, streamed = lm.run("whole", method), lm.run("streamed", method)
        assert streamed.status == "failed"
        assert streamed.reason == whole.reason
    assert [path.name for path in lm.folder.parent.iterdir()] == ["model"]


def test_the_model_is_as_it_was_after_a_cell(both: Callable[..., Any]) -> None:
    lm = both()
    first = lm.run("streamed", None)
    lm.run("streamed", GPTQ_)
    task = lm._sessions["streamed"]._task
    assert all(parameter.is_meta for _, block in task.blocks() for parameter in block.parameters())
    assert lm.run("streamed", None).metrics == first.metrics


class TestRefusals:
    def test_methods_that_need_the_whole_model(self, both: Callable[..., Any]) -> None:
        lm = both()
        spec = lm.spec("streamed")
        alone = {name for name in METHODS.names() if METHODS.get(name).block_by_block}
        assert alone == {"rtn", "gptq"}
        assert spec.refuses_method(AdaRound(name="adaround")) == (
            "adaround needs the whole model in memory (allowed for device_map: streamed: rtn, gptq)"
        )
        assert spec.refuses_method(FineTuning(name="fine_tune")) is not None
        streaming = {name for name in PROBES.names() if PROBES.get(name).streams}
        assert streaming == {"margin", "layer_margins"}
        for name in PROBES.names():
            said = f"{name} needs the whole model in memory (allowed for device_map: streamed: margin, layer_margins)"
            reason = spec.refuses_method(PROBES.get(name)(name=name))
            assert reason == (None if name in streaming else said)
        assert spec.refuses_method(GPTQ_) is None
        assert lm.spec("whole").refuses_method(AdaRound(name="adaround")) is None
        record = lm.run("streamed", AdaRound(name="adaround", iterations=1))
        assert (
            record.reason
            == "adaround[iterations=1] needs the whole model in memory (device_map: streamed has one block)"
        )
        looked = lm.probe("streamed", PROBES.get("radius")(name="radius"))
        assert looked.reason == "radius needs the whole model in memory (device_map: streamed has one block)"

    def test_static_ranges_of_inputs(self, both: Callable[..., Any]) -> None:
        spec: ModelSpec = both().spec("streamed")
        for scale, refused in (("static", True), ("dynamic", False)):
            grid = AbsMax.model_validate({"name": "absmax", "activations": {"bits": 8, "scale": scale}})
            reason = spec.refuses_quantizer(grid, 4)
            assert (reason is not None) == refused
        assert spec.refuses_quantizer(AbsMax(name="absmax"), 4) is None

    def test_metrics_but_the_loss(self, both: Callable[..., Any]) -> None:
        lm = both()
        assert measured_by(lm.spec("streamed")) == ("loss",)
        assert "bits_per_byte" in measured_by(lm.spec("whole"))

    def test_checkpoints_whose_tensors_are_put_together(self, both: Callable[..., Any]) -> None:
        with pytest.raises(
            QBenchError, match="device_map: streamed reads tensors that are stored as the model has them"
        ):
            both("Mixtral").spec("streamed").load(0, "cpu")
