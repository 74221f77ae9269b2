"""GPTQ on a whole model of the zoo, beside the plainest GPTQ there is: same model, calibration, grids and threads.

The reference goes block by block like the published code, a sequence at a time: hooks collect a Hessian for every
layer of its own, each layer is solved by a loop in which a column updates all to its right, and the block is run again
for the next one. It has damping of 1 % and the columns as they stand. What ours saves is a Hessian and a factor where
layers share an input, the last layer of a block in the first run, small operations, and the passes over memory of the
plain loop.

On llama-1m with 16,384 calibration tokens both must run the blocks twice, 2 x 2 x 0.79 M x 16,384 = 52 GFLOP or 0.65
s at 80 GFLOP/s, with attention and elementwise operations about 1 s: most of the time of either. Hessians are 2 tokens
n^2 over 16 inputs, 22 GFLOP (28 layers of their own: 26); the solves are 28 loops of some 150 columns. So no solver can
bring the whole below two thirds of the reference here, and the solves themselves are measured in `test_gptq_speed`.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from functools import cache
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from qbench.methods.gptq import GPTQ
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.quant.block_grid import BlockGrid
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import choose_grid
from qbench.quantizers.mse import MeanSquaredError
from qbench.tasks.causal_lm import ZooLM
from qbench.tasks.language import LanguageTask

# Half of the spread that another calibration draw gives at 2 bits, and several times that at 4.
LOSS_MARGIN = 0.002
GRIDS = [
    {"symmetric": symmetric, "granularity": granularity}
    for granularity in ("per_channel", {"per_group": 64})
    for symmetric in (True, False)
]


@cache
def task() -> LanguageTask:
    loaded = ZooLM(name="llama-1m").load(0, "cpu")
    loaded.model.requires_grad_(requires_grad=False)
    return loaded


def problem(rule: Quantizer, bits: int) -> Problem:
    model = copy.deepcopy(task().model)
    blocks = []
    for index, block in enumerate(model.model.layers):
        layers = [
            TargetLayer(f"{index}.{name}", module, choose_grid(module.weight, rule, bits), rule)
            for name, module in block.named_modules()
            if isinstance(module, nn.Linear)
        ]
        blocks.append(Block(block, tuple(layers)))
    return Problem(
        model=model,
        blocks=blocks,
        calibration=task().calibration,
        forward=task().forward,
        loss=task().loss,
        train_batches=task().train_batches,
        tokens_of=Tensor.numel,
        seed_of=lambda purpose: 0,
    )


def solved_plainly(weight: Tensor, grid: BlockGrid, hessian: Tensor) -> Tensor:
    """Return the quantized weight; a dead column is left with a Hessian of 1 and a weight of 0."""
    hessian, weight = hessian.clone(), weight.clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    weight[:, dead] = 0
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian))
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    scale, zero_point = (part.expand_as(weight) for part in grid.by_column(weight.shape[1]))
    quantized = torch.empty_like(weight)
    for i in range(weight.shape[1]):
        w, s, z = weight[:, i], scale[:, i], zero_point[:, i]
        quantized[:, i] = ((torch.round(w / s) + z).clamp(grid.levels.quant_min, grid.levels.quant_max) - z) * s
        weight[:, i + 1 :] -= ((w - quantized[:, i]) / upper[i, i])[:, None] * upper[None, i, i + 1 :]
    return quantized


@torch.no_grad()
def plain_gptq(given: Problem) -> None:
    calls: list[tuple[Tensor, dict[str, Any]]] = []

    class CaughtError(Exception):
        pass

    def catch(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args[0] if args else kwargs.pop("hidden_states"), kwargs))
        raise CaughtError

    handle = given.blocks[0].module.register_forward_pre_hook(catch, with_kwargs=True)
    for batch in torch.cat(list(given.calibration)).split(1):
        with pytest.raises(CaughtError):
            given.forward(given.model, batch)
    handle.remove()
    hidden = [states for states, _ in calls]
    for block in given.blocks:
        sums: dict[str, Any] = defaultdict(int)

        def collect(name: str, x: Tensor, sums: dict[str, Any] = sums) -> None:
            rows = x.reshape(-1, x.shape[-1])
            sums[name] = sums[name] + rows.T @ rows

        handles = [
            layer.module.register_forward_pre_hook(lambda _, args, name=layer.name: collect(name, args[0]))
            for layer in block.layers
        ]
        for x, (_, kwargs) in zip(hidden, calls, strict=True):
            block.module(x, **kwargs)
        for handle in handles:
            handle.remove()
        for layer in block.layers:
            layer.write(solved_plainly(layer.matrix(), layer.grid, sums[layer.name]))
        hidden = [block.module(x, **kwargs) for x, (_, kwargs) in zip(hidden, calls, strict=True)]
        hidden = [output[0] if isinstance(output, tuple) else output for output in hidden]


def evaluated(given: Problem) -> float:
    return task().evaluate(given.model, ("loss",)).metrics["loss/blocks128"]


@pytest.mark.benchmark(group="gptq on llama-1m")
@pytest.mark.parametrize("bits", [4, 3, 2])
@pytest.mark.parametrize("options", GRIDS, ids=str)
def test_loss_and_time_beside_the_plain_reference(
    benchmark: BenchmarkFixture, bits: int, options: dict[str, Any]
) -> None:
    rule = MeanSquaredError.model_validate({"name": "mse", **options})
    evaluated(problem(rule, bits))  # tokenizes and warms up
    theirs: list[tuple[float, float]] = []

    def setup() -> tuple[tuple[Problem], dict[str, object]]:
        reference = problem(rule, bits)
        started = time.perf_counter()
        plain_gptq(reference)
        theirs.append((time.perf_counter() - started, evaluated(reference)))
        return (problem(rule, bits),), {}

    solved: list[Problem] = []

    def solve(given: Problem) -> None:
        GPTQ(name="gptq").solve(given)
        solved.append(given)

    benchmark.pedantic(solve, setup=setup, rounds=1, warmup_rounds=0)
    same_order = problem(rule, bits)
    GPTQ(name="gptq", act_order=False).solve(same_order)
    ratio = benchmark.stats.stats.min / min(seconds for seconds, _ in theirs)
    benchmark.extra_info |= {
        "loss of the reference": theirs[0][1],
        "loss, default": evaluated(solved[-1]),
        "loss, same order of columns": evaluated(same_order),
        "time, ratio to the reference": ratio,
    }
    assert evaluated(same_order) <= theirs[0][1] + LOSS_MARGIN
    assert ratio <= 0.9
