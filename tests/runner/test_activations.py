"""Cells with quantized inputs: what is measured, what is stored, and what is left as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from qbench import atomic
from qbench.methods.base import Method
from qbench.methods.gptq import GPTQ
from qbench.methods.layer_inputs import QuantizedInput, installed
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.problem import TargetLayer
from qbench.methods.rtn import RoundToNearest
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quant.activation import unpack_input
from qbench.quantizers.activations import Activations
from qbench.runner import execute as execution
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.store.record import Record
from qbench.store.schema import dump_record, parse_record
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]
Run = Callable[..., Record]

RTN = RoundToNearest(name="rtn")
QAT: dict[str, Method] = {
    "ste_qat": StraightThroughQAT(name="ste_qat", steps=2, batch_size=2),
    "lsq": LearnedStepSize(name="lsq", steps=2, batch_size=2),
}
METHODS: dict[str, Method] = {"rtn": RTN, "gptq": GPTQ(name="gptq"), **QAT}
DYNAMIC, STATIC = {"bits": 8}, {"bits": 8, "scale": "static"}
FIRST, LAST = "model.layers.0.self_attn.q_proj", "model.layers.3.mlp.down_proj"
LOSS = "loss/blocks128"

each_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture
def run(tmp_path: Path, session: Session) -> Run:
    def run(cell: Cell, own_session: Session | None = None, name: str = "weights.safetensors") -> Record:
        return execute(identify(cell), "test", own_session or session, tmp_path / name)

    return run


def hooks_of(model: torch.nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def stored(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """Return the tensors of a packed file, and what it says of inputs."""
    with safe_open(path, "pt") as file:
        said = file.metadata().get("activations")
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, None if said is None else json.loads(said)


@pytest.mark.parametrize("setting", [DYNAMIC, STATIC], ids=["dynamic", "static"])
def test_eight_bits_are_close_to_full_precision_and_two_are_not(
    run: Run, llama: MakeCell, setting: dict[str, Any]
) -> None:
    full, weights = run(llama()), run(llama(RTN, bits=8))
    eight, two = (run(llama(RTN, bits=8, activations={**setting, "bits": bits})) for bits in (8, 2))
    assert eight.clean and two.clean, (eight.reason, two.reason)
    assert eight.metrics[LOSS] == pytest.approx(full.metrics[LOSS], abs=0.03)
    assert eight.metrics[LOSS] != weights.metrics[LOSS]
    assert two.metrics[LOSS] > full.metrics[LOSS] + 0.5
    # What is said of weights is said of weights alone.
    for record in (eight, two):
        assert record.layers == weights.layers
        assert record.effective_bits == weights.effective_bits
        assert record.metrics["weight_sqnr_db"] == weights.metrics["weight_sqnr_db"]


def test_every_metric_is_that_of_quantized_inputs(run: Run, llama: MakeCell) -> None:
    metrics = ("loss", "bits_per_byte")
    plain, quantized = (
        run(replace(llama(RTN, bits=8, activations=setting), metrics=metrics)).metrics
        for setting in (None, {"bits": 2})
    )
    assert plain.keys() == quantized.keys()
    assert quantized["bits_per_byte/rolling128"] > 1.1 * plain["bits_per_byte/rolling128"]
    assert quantized[LOSS] > 1.1 * plain[LOSS]


@each_method
@pytest.mark.parametrize("setting", [DYNAMIC, STATIC], ids=["dynamic", "static"])
def test_a_record_and_its_file_are_whole(
    run: Run, llama: MakeCell, tmp_path: Path, name: str, setting: dict[str, Any]
) -> None:
    cell = llama(METHODS[name], bits=4, activations=setting)
    record = run(cell)
    assert record.clean, record.reason
    asked = Activations.model_validate(setting)
    assert record.axes["quantizer"] == f"absmax[per_channel,{asked}]"
    assert record.facts["activations"] == asked.describe()
    assert record.weights_sha256 == atomic.sha256_file(tmp_path / "weights.safetensors")
    assert record.cost.calibration_tokens == (8 * 128 if setting is STATIC or name == "gptq" else 0)
    assert parse_record(dump_record(record)) == record
    tensors, said = stored(tmp_path / "weights.safetensors")
    layers = [layer.name for layer in record.layers]
    assert said is not None and list(said) == sorted(layers) and len(layers) == 28
    assert all(Activations.model_validate(one) == asked for one in said.values())
    for part in ("input_scale", "input_zero_point"):
        found = {key.removesuffix(f".{part}") for key in tensors if key.endswith(f".{part}")}
        assert found == (set(layers) if setting is STATIC else set())
    assert all(math.isfinite(row.loss_sum) for row in record.documents)


@pytest.mark.parametrize("name", ["rtn", "lsq"])
def test_the_stored_input_scales_give_the_measured_loss(
    run: Run,
    llama: MakeCell,
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    kept: list[torch.nn.Module] = []
    evaluate = execution._evaluate
    monkeypatch.setattr(
        execution, "_evaluate", lambda task, model, *rest: kept.append(model) or evaluate(task, model, *rest)
    )
    cell = llama(METHODS[name], bits=4, activations={"bits": 4, "scale": "static", "range": "mse"})
    record = run(cell)
    task, (model,) = session.task(cell), kept
    assert hooks_of(model) == hooks_of(task.model) == 0
    tensors, said = stored(tmp_path / "weights.safetensors")
    assert said is not None
    inputs = []
    for layer, about in said.items():
        parts = {part: tensors[f"{layer}.{part}"] for part in ("input_scale", "input_zero_point")}
        grid: Any = None
        target = TargetLayer(layer, model.get_submodule(layer), grid, activations=Activations.model_validate(about))
        inputs.append(QuantizedInput(target, unpack_input(parts)))
    without = task.evaluate(model, ("loss",)).metrics[LOSS]
    with installed(inputs):
        assert task.evaluate(model, ("loss",)).metrics[LOSS] == record.metrics[LOSS] != without


@each_method
@pytest.mark.parametrize("setting", [DYNAMIC, STATIC], ids=["dynamic", "static"])
def test_the_same_cell_gives_the_same_bytes(
    run: Run, llama: MakeCell, tmp_path: Path, name: str, setting: dict[str, Any]
) -> None:
    cell = llama(METHODS[name], bits=3, activations={**setting, "bits": 4})
    first = run(cell)
    torch.manual_seed(99)
    second = run(cell, Session("cpu"), "again")
    for part in ("metrics", "documents", "layers", "traces", "weights_sha256", "facts"):
        assert getattr(second, part) == getattr(first, part), part
    assert (tmp_path / "again").read_bytes() == (tmp_path / "weights.safetensors").read_bytes()


def test_cells_that_come_after_see_nothing_of_it(run: Run, llama: MakeCell, session: Session) -> None:
    cells = [llama(), llama(RTN), llama(QAT["lsq"]), replace(llama(), method=QAT["lsq"].control())]
    before = [run(cell) for cell in cells]
    for method in (RTN, QAT["lsq"]):
        assert run(llama(method, activations={"bits": 2, "scale": "static"})).status == "ok"
    after = [run(cell) for cell in cells]
    assert hooks_of(session.task(llama()).model) == 0
    for one, two in zip(before, after, strict=True):
        assert (one.metrics, one.documents, one.weights_sha256) == (two.metrics, two.documents, two.weights_sha256)
        assert "activations" not in two.facts


def test_a_file_of_weights_alone_says_nothing_of_inputs(run: Run, llama: MakeCell, tmp_path: Path) -> None:
    plain = run(llama(RTN))
    tensors, said = stored(tmp_path / "weights.safetensors")
    assert said is None and not any("input" in name.rpartition(".")[2] for name in tensors)
    assert plain.weights_sha256 != run(llama(RTN, activations=DYNAMIC)).weights_sha256


@pytest.mark.parametrize("setting", [{"bits": 2}, {"bits": 2, "scale": "static"}], ids=["dynamic", "static"])
def test_first_and_last_layers_in_8_bits_take_inputs_of_8_bits(
    run: Run, llama: MakeCell, tmp_path: Path, setting: dict[str, Any]
) -> None:
    record = run(llama(RTN, bits=2, first_last="8bit", activations=setting))
    assert record.clean, record.reason
    kept = Activations.model_validate(setting).model_copy(update={"bits": 8}).describe()
    assert record.facts["activations"] == f"{kept.replace('8', '2')}; {FIRST}, {LAST}: {kept}"
    tensors, said = stored(tmp_path / "weights.safetensors")
    assert said is not None and len(said) == 28
    assert {name for name, one in said.items() if one["bits"] == 8} == {FIRST, LAST}
    if "scale" in setting:
        # The first layer shares its input with two others, whose levels are 85 times as far apart.
        ours, other = (tensors[f"{FIRST.replace('q_proj', name)}.input_scale"] for name in ("q_proj", "k_proj"))
        assert float(other / ours) == pytest.approx(255 / 3, rel=1e-5)


def test_layers_in_floating_point_take_inputs_as_they_are(run: Run, llama: MakeCell, tmp_path: Path) -> None:
    record = run(llama(RTN, bits=2, first_last="float", activations={"bits": 2, "scale": "static"}))
    assert record.clean, record.reason
    tensors, said = stored(tmp_path / "weights.safetensors")
    assert said is not None and len(said) == 26 and not {FIRST, LAST} & said.keys()
    assert f"{LAST}.input_scale" not in tensors


def test_a_method_that_loses_its_input_scales_costs_its_cell(
    run: Run, llama: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve = LearnedStepSize.solve

    def spoilt(self: LearnedStepSize, problem: Any) -> Any:
        solution = solve(self, problem)
        solution.inputs[FIRST].scale.fill_(math.nan)
        return solution

    monkeypatch.setattr(LearnedStepSize, "solve", spoilt)
    record = run(llama(QAT["lsq"], activations=STATIC))
    assert (record.status, record.metrics) == ("diverged", {})
    assert record.reason == f"layer {FIRST!r} has an input scale or zero point that is not finite"


def test_they_are_part_of_the_identity(llama: MakeCell) -> None:
    settings: list[dict[str, Any] | None] = [None, DYNAMIC, {"bits": 4}, STATIC, {**STATIC, "range": "mse"}]
    planned = [identify(llama(RTN, activations=setting)) for setting in settings]
    assert len({one.cell_id for one in planned}) == len(settings)
    spelled_out = {**DYNAMIC, "scale": "dynamic", "granularity": "per_token", "symmetric": False, "range": "absmax"}
    assert identify(llama(RTN, activations=spelled_out)).cell_id == planned[1].cell_id
    sources = planned[0].key["quantizer"]["sources"]
    for module in ("methods.layer_inputs", "quant.activation", "quant.ste", "quantizers.activations"):
        assert f"qbench.{module}" in sources
