"""A step in parts, in bfloat16 and with blocks run again is the step it is otherwise."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.base import Method
from qbench.methods.problem import Block, Problem, Solution
from qbench.methods.training_steps import parts_of, recomputed
from qbench.registry import METHODS

MakeProblem = Callable[..., Problem]

each_method = pytest.mark.parametrize("name", ["ste_qat", "lsq", "latent_grad"])


def solved(problem: Problem, name: str, **options: Any) -> Solution:
    kind = METHODS.get(name)
    assert issubclass(kind, Method)
    given = {"name": name, "steps": 4, "batch_size": 8, "learning_rate": 1e-3, "optimizer": "sgd", "momentum": 0}
    return kind.model_validate(given | options).solve(problem)


def that_predicts(problem: Problem) -> Problem:
    """Return a problem that can be distilled."""

    def predict(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
        return model(input_ids=batch, use_cache=False).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()

    return dataclasses.replace(problem, predict=predict)


def test_batches_of_every_kind_are_cut() -> None:
    rows = torch.arange(12).view(6, 2)
    assert [part.tolist() for part in parts_of(rows, 3)] == [rows[:2].tolist(), rows[2:4].tolist(), rows[4:].tolist()]
    assert parts_of("anything", 1) == ["anything"]
    for batch in ((rows, rows + 1), [rows, rows + 1]):
        first, second = parts_of(batch, 2)
        assert type(first) is type(batch)
        assert torch.equal(first[1], rows[:3] + 1) and torch.equal(second[0], rows[3:])
    first, second = parts_of({"x": rows, "y": rows + 1}, 2)
    assert torch.equal(first["y"], rows[:3] + 1) and torch.equal(second["x"], rows[3:])


@pytest.mark.parametrize(
    ("batch", "count", "said"),
    [
        (torch.zeros(5, 2), 2, r"^accumulation 2: a training batch has 5 rows \(allowed: a multiple of it\)$"),
        (torch.zeros(()), 2, r"^accumulation 2: a training batch has no rows"),
        ("words", 3, r"^accumulation 3: a training batch is str, which nobody knows to cut .*accumulation: 1\)$"),
    ],
)
def test_other_batches_are_refused(batch: Any, count: int, said: str) -> None:
    with pytest.raises(CellError, match=said):
        parts_of(batch, count)


@each_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_make_the_step_of_the_whole(make_problem: MakeProblem, name: str, dtype: torch.dtype) -> None:
    def problem() -> Problem:
        found = make_problem()
        found.model.to(dtype)
        return found

    whole, parts = solved(problem(), name), solved(problem(), name, accumulation=4)
    close = 1e-5 if dtype == torch.float32 else 0.02
    assert parts.traces["train_loss"] == pytest.approx(whole.traces["train_loss"], rel=close)
    assert parts.train_tokens == whole.train_tokens and parts.train_steps == whole.train_steps == 4
    moved = [(one.details["moved_l1"], parts.layers[key].details["moved_l1"]) for key, one in whole.layers.items()]
    assert all(first == pytest.approx(second, rel=10 * close) for first, second in moved)


@each_method
@pytest.mark.parametrize("options", [{}, {"distillation": 0.5}, {"accumulation": 2}], ids=str)
def test_blocks_run_again_give_the_same_bytes(make_problem: MakeProblem, name: str, options: dict[str, Any]) -> None:
    plain = solved(that_predicts(make_problem()), name, **options)
    problem = that_predicts(make_problem())
    again = solved(problem, name, **options, gradient_checkpointing=True)
    assert again.traces == plain.traces
    assert all(torch.equal(one.codes, plain.layers[key].codes) for key, one in again.layers.items())
    assert all(one.details == plain.layers[key].details for key, one in again.layers.items())
    assert not any("forward" in vars(module) for module in problem.model.modules())


def test_quantized_inputs_and_images_go_with_it(make_images_problem: MakeProblem) -> None:
    def problem() -> Problem:
        made = make_images_problem()

        def batches(size: int, seed: int) -> Iterator[Tensor]:
            while True:
                yield made.calibration[0][:size]

        return dataclasses.replace(made, train_batches=batches)

    plain, again = solved(problem(), "ste_qat"), solved(problem(), "ste_qat", gradient_checkpointing=True)
    assert again.traces == plain.traces


def test_a_model_of_one_block_is_refused(make_problem: MakeProblem) -> None:
    problem = make_problem()
    alone = dataclasses.replace(problem, blocks=[Block(problem.model, tuple(problem.layers))])
    with pytest.raises(CellError, match=r"^gradient_checkpointing: LlamaForCausalLM is a single block.*: false\)$"):
        solved(alone, "ste_qat", gradient_checkpointing=True)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.relu_())


class Moody(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return self.inner(x if self.calls % 2 else x[:1])


@pytest.mark.parametrize(
    ("block", "said"), [(InPlace, "changes its input in place"), (Moody, "does another thing when it is run again")]
)
def test_what_cannot_be_run_again_is_refused(make_problem: MakeProblem, block: type[nn.Module], said: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), block())
    problem = dataclasses.replace(make_problem(), model=model, blocks=[Block(model[1], ())])
    with pytest.raises(CellError, match=said), recomputed(problem, wanted=True):
        model(torch.randn(4, 3)).square().sum().backward()
    assert "forward" not in vars(model[1])


@each_method
def test_bfloat16_is_near_float32_and_leaves_latents_there(make_problem: MakeProblem, name: str) -> None:
    plain, problem = solved(make_problem(), name), make_problem()
    seen = []
    inner = problem.blocks[0].layers[0].module
    handle = inner.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    half = solved(problem, name, precision="bfloat16")
    handle.remove()
    assert set(seen) == {torch.bfloat16}
    assert half.traces["train_loss"] != plain.traces["train_loss"]
    assert half.traces["train_loss"] == pytest.approx(plain.traces["train_loss"], rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in problem.model.parameters())
    assert not torch.is_autocast_enabled("cpu")


def test_bfloat16_and_blocks_run_again_go_together(make_problem: MakeProblem) -> None:
    options: dict[str, Any] = {"precision": "bfloat16", "distillation": 0.5}
    plain = solved(that_predicts(make_problem()), "ste_qat", **options)
    again = solved(that_predicts(make_problem()), "ste_qat", **options, gradient_checkpointing=True)
    assert again.traces == plain.traces


_PEAK = """
import json, sys, torch
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid
from qbench.runner import machine
from qbench.tasks.llama import build_llama
from qbench.tasks.zoo import Architecture

sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 12, "num_attention_heads": 2}
torch.set_num_threads(1)
model = build_llama(Architecture.model_validate(sizes)).eval()
rule = AbsMax(name="absmax")
blocks = [
    Block(block, tuple(
        TargetLayer(f"{index}.{name}", one, choose_grid(one.weight.detach(), rule, 4))
        for name, one in block.named_modules() if isinstance(one, torch.nn.Linear)
    ))
    for index, block in enumerate(model.model.layers)
]
def loss(model, batch):
    return model(input_ids=batch, use_cache=False).logits.float().logsumexp(-1).mean()
def batches(size, seed):
    while True:
        yield torch.ones(size, 128, dtype=torch.long)
problem = Problem(model, blocks, [], None, loss, batches, torch.Tensor.numel, lambda purpose: 0)
machine.warm_up("cpu")
found = {}
for name, options in json.loads(sys.argv[1]).items():
    machine.reset_peak_memory("cpu")
    StraightThroughQAT.model_validate({"name": "ste_qat", "steps": 1, "batch_size": 8, **options}).solve(problem)
    found[name] = machine.peak_memory("cpu")
print(json.dumps(found))
"""


def test_both_ways_of_saving_memory_save_it() -> None:
    ways = {"again": {"gradient_checkpointing": True}, "parts": {"accumulation": 8}, "plain": {}}
    done = subprocess.run([sys.executable, "-c", _PEAK, json.dumps(ways)], capture_output=True, text=True, check=True)
    peak = json.loads(done.stdout)
    activations = 8 * 128 * 12 * 64 * 4 * 10  # bytes: ten numbers a token and feature, in each block
    assert peak["plain"] - peak["again"] > activations / 2
    assert peak["plain"] - peak["parts"] > activations / 2
