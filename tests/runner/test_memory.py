"""What a cell is expected to need, against what it takes, and against what there is."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import CellError
from qbench.methods.base import Method
from qbench.methods.fine_tune import FineTuning
from qbench.registry import METHODS
from qbench.runner import memory
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.memory import Estimate, estimate
from qbench.runner.session import Session
from qbench.runner.targets import make_problem, no_grid
from qbench.suite.cell import Cell
from qbench.tasks import zoo

MakeCell = Callable[..., Cell]

# Twelve blocks that are large beside what a process needs for itself, made here: nothing is loaded.
_PEAKS = """
import json, sys, torch
from dataclasses import replace
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid
from qbench.registry import METHODS
from qbench.runner import machine, memory
from qbench.tasks.llama import build_llama
from qbench.tasks.zoo import Architecture
from torch.nn import functional
import copy

sizes = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 3}
torch.set_num_threads(1)
whole = build_llama(Architecture.model_validate(sizes)).eval()
rule = AbsMax(name="absmax")

def problem_of(model):
    blocks = [
        Block(block, tuple(
            TargetLayer(f"{index}.{name}", one, choose_grid(one.weight.detach(), rule, 4), rule)
            for name, one in block.named_modules() if isinstance(one, torch.nn.Linear)
        ))
        for index, block in enumerate(model.model.layers)
    ]
    def predict(model, batch):
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        return logits.flatten(0, 1).float(), batch[:, 1:].flatten()
    def batches(size, seed):
        while True:
            yield torch.ones(size, 128, dtype=torch.long)
    calibration = [torch.ones(4, 128, dtype=torch.long)] * 2
    return Problem(
        model, blocks, calibration, lambda model, batch: model(input_ids=batch, use_cache=False),
        lambda model, batch: functional.cross_entropy(*predict(model, batch)),
        batches, torch.Tensor.numel, lambda purpose: 0, predict,
    )

machine.warm_up("cpu")
found = {}
before = None
for name, options in json.loads(sys.argv[1]).items():
    kind = options.pop("method", "ste_qat")
    method = METHODS.get(kind).model_validate({"name": kind, **options})
    if kind == "gptq":
        expected = memory.quantization_memory(problem_of(whole), method)
    else:
        expected = memory.training_memory(problem_of(whole), method)
    machine.reset_peak_memory("cpu")
    start = machine.peak_memory("cpu") - expected.held
    problem = problem_of(copy.deepcopy(whole))
    method.solve(problem)
    if kind == "gptq":  # a cell is evaluated when its method is done: that is most of what is expected here
        with torch.no_grad():
            problem.loss(problem.model, torch.ones(32, 128, dtype=torch.long))
    del problem
    found[name] = [expected.total, machine.peak_memory("cpu") - start, expected.parts]
print(json.dumps(found))
"""
WAYS: dict[str, dict[str, Any]] = {
    "again": {"gradient_checkpointing": True, "batch_size": 8},
    "plain": {"batch_size": 8},
    "parts": {"batch_size": 8, "accumulation": 4},
    "coded": {"batch_size": 4, "optimizer_state": "8bit"},
    "taught": {"batch_size": 4, "distillation": 0.5},
    "half": {"batch_size": 8, "precision": "bfloat16"},
    "gptq": {"method": "gptq"},
}


def test_expected_peaks_are_those_that_are_measured_within_a_factor_of_two() -> None:
    ways = {name: {"steps": 1, **options} if "method" not in options else options for name, options in WAYS.items()}
    done = subprocess.run([sys.executable, "-c", _PEAKS, json.dumps(ways)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found.keys() == WAYS.keys()
    wrong = {name: one for name, one in found.items() if not 0.5 < one[0] / one[1] < 2}
    assert not wrong, found
    expected = {name: one[0] for name, one in found.items()}
    assert max(expected["again"], expected["parts"]) < expected["plain"] and expected["half"] < expected["plain"]


def method_of(name: str, **options: Any) -> Any:
    return METHODS.get(name).model_validate({"name": name, **options})


@pytest.fixture(scope="module")
def expect(session: Session) -> Callable[[Cell], Estimate]:
    def expect(cell: Cell) -> Estimate:
        task = session.task(cell)
        return estimate(cell, make_problem(task, session.model(cell), cell, lambda place: no_grid()))

    return expect


def test_the_parts_are_those_of_the_shapes(llama: MakeCell, expect: Callable[[Cell], Estimate]) -> None:
    sizes = zoo.language_model("llama-1m").architecture
    hidden, inner, blocks = sizes.hidden_size, sizes.intermediate_size, sizes.num_hidden_layers
    plain = expect(llama(method_of("ste_qat")))
    weights = plain.parts["latent weights"] // 4
    assert plain.parts["latent weights"] == plain.parts["gradients"] == plain.parts["first weights"]
    assert plain.parts["optimizer"] == 8 * weights
    assert plain.held * 2 == plain.parts["models"]
    tokens = 8 * 128
    assert plain.parts["activations"] == 4 * tokens * (
        sum(hidden + rows for rows in (inner, inner)) * blocks
        + blocks * (inner + hidden + 4 * hidden)
        + blocks * _attention(sizes)
    )
    assert (
        expect(llama(method_of("ste_qat", batch_size=4, accumulation=2))).parts["activations"] * 4
        == (plain.parts["activations"])
    )
    assert expect(llama(method_of("ste_qat", optimizer_state="8bit"))).parts["optimizer"] == (
        2 * weights + 8 * weights // 256
    )
    assert expect(llama(method_of("ste_qat", optimizer="sgd", momentum=0))).parts["optimizer"] == 0
    taught = expect(llama(method_of("lsq", distillation=0.5)))
    assert taught.parts["teacher"] == plain.held and taught.parts["logits"] > plain.parts["logits"]
    again = expect(llama(method_of("ste_qat", gradient_checkpointing=True)))
    assert again.parts["activations"] < plain.parts["activations"] / 2


def _attention(sizes: Any) -> int:
    """Return the numbers a token that the inputs and outputs of the four layers around attention have."""
    hidden, heads = sizes.hidden_size, sizes.num_attention_heads
    keys: int = hidden // heads * (getattr(sizes, "num_key_value_heads", None) or heads)
    total: int = 2 * hidden + 2 * (hidden + keys) + 2 * hidden
    return total


def test_images_are_measured_by_running_one(images: MakeCell, expect: Callable[[Cell], Estimate]) -> None:
    plain, half = (expect(images(method_of("ste_qat", batch_size=size))) for size in (8, 4))
    assert plain.parts["activations"] == 2 * half.parts["activations"] > 0
    assert plain.parts["logits"] == 0


def test_a_control_holds_less(llama: MakeCell, expect: Callable[[Cell], Estimate]) -> None:
    cell = dataclasses.replace(llama(None), method=FineTuning(name="fine_tune"))
    control = expect(cell)
    assert {"latent weights", "first weights", "Hessians"}.isdisjoint(control.parts)
    assert control.total < expect(llama(method_of("ste_qat"))).total


def test_clearly_too_much_is_refused_with_what_would_lower_it() -> None:
    found = Estimate({"models": 2 * 10**9, "optimizer": 5 * 10**9, "codes": 1}, 10**9, ("optimizer_state: 8bit",))
    assert found.total == 7 * 10**9 + 1
    found.require(4 * 10**9 + 1, "cpu")
    with pytest.raises(CellError) as error:
        found.require(3 * 10**9, "cuda")
    assert str(error.value) == (
        "needs about 6.00 GB more memory on cuda, and 3.00 GB are free: optimizer 5.00 GB, models 2.00 GB "
        "(less with optimizer_state: 8bit)"
    )


@pytest.mark.parametrize(
    ("name", "options", "cures"),
    [
        ("ste_qat", {}, r"less with gradient_checkpointing: true, accumulation: 8, optimizer_state: 8bit\)"),
        ("ste_qat", {"gradient_checkpointing": True, "optimizer_state": "8bit"}, r"less with accumulation: 8\)"),
        ("lsq", {"optimizer": "sgd", "bn_training": "update"}, r"[0-9] [GM]B$"),
        ("gptq", {}, r"less with device_map: streamed on the model\)"),
        ("adaround", {}, r"[0-9] [GM]B$"),
    ],
)
def test_a_cell_without_room_fails_before_its_method_runs(
    llama: MakeCell,
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, Any],
    cures: str,
) -> None:
    method: Method = method_of(name, **options)
    monkeypatch.setattr(type(method), "solve", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    record = execute(identify(llama(method)), "s", session, tmp_path / "w")
    assert record.status == "failed" and "traceback" not in record.facts
    assert re.search(cures, record.reason or ""), record.reason


def test_a_record_says_what_was_expected(toy: MakeCell, tmp_path: Path, session: Session) -> None:
    for method in (method_of("ste_qat", steps=1, batch_size=2), "rtn"):
        record = execute(identify(toy(method)), "s", session, tmp_path / "w")
        assert record.status == "ok" and record.facts["memory_estimate_bytes"] > 0


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "5000", "memory.current": "3000", "memory.stat": "anon 1\ninactive_file 500\n"}, [2500]),
        ({"memory.max": "max\n", "memory.current": "3000", "memory.stat": ""}, []),
        ({"memory.max": "10", "memory.current": "30", "memory.stat": "anon 1"}, [0]),
        (
            {
                "memory/memory.limit_in_bytes": "900",
                "memory/memory.usage_in_bytes": "100",
                "memory/memory.stat": "cache 3",
            },
            [800],
        ),
        ({}, []),
    ],
    ids=["v2", "no limit", "over", "v1", "none"],
)
def test_the_limits_of_control_groups_count(tmp_path: Path, files: dict[str, str], left: list[int]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory._control_groups(tmp_path) == left


def test_there_is_memory_here() -> None:
    assert 0 < memory.free_memory("cpu") < 1 << 50
