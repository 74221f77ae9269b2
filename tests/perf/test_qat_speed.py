"""Training steps through the quantizer, beside training steps of the same weights in full precision.

The model is of the zoo's first size: 28 matrices with 0.79 M weights, batches of 16 x 128 tokens. A step is about
6 FLOP a weight and token, with the head 6 x 1.3 M x 2048 = 16 GFLOP: 0.1 s at 160 GFLOP/s. Straight-through quantizing
moves six passes over 3.2 MB, 38 MB or some 3 ms; LSQ three times that, backward pass included. 28 layers with some 10
small operations each cost another few ms to start. So the overhead of a step should stay below a tenth (a quarter for
LSQ), and be less on longer batches, since it does not depend on them. What is above that is putting the quantizers in
and taking them out, once in a training run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn import functional

from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid
from qbench.registry import METHODS
from qbench.tasks import zoo
from qbench.tasks.llama import build_llama

STEPS, BATCH, TOKENS = 10, 16, 128


def next_token_loss(model: nn.Module, batch: Tensor) -> Tensor:
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def train_batches(batch_size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(0, 1000, (batch_size, TOKENS), generator=generator)


def problem() -> Problem:
    torch.manual_seed(0)
    model = build_llama(zoo.model("llama-1m").architecture)
    rule = AbsMax(name="absmax")
    blocks = []
    for index, block in enumerate(model.model.layers):
        layers = [
            TargetLayer(f"{index}.{name}", module, choose_grid(module.weight, rule, 4))
            for name, module in block.named_modules()
            if isinstance(module, nn.Linear)
        ]
        blocks.append(Block(block, tuple(layers)))
    return Problem(
        model=model,
        blocks=blocks,
        calibration=[],
        forward=lambda model, batch: model(input_ids=batch, use_cache=False),
        loss=next_token_loss,
        train_batches=train_batches,
        tokens_of=Tensor.numel,
        seed_of=lambda purpose: 0,
    )


def full_precision(given: Problem) -> None:
    model = given.model.requires_grad_(requires_grad=False).train()
    weights = [layer.module.weight.requires_grad_() for layer in given.layers]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    batches = given.train_batches(BATCH, 0)
    for _ in range(STEPS):
        loss = given.loss(model, next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.benchmark(group=f"{STEPS} training steps of llama-1m, {BATCH} x {TOKENS} tokens")
@pytest.mark.parametrize("method", ["full precision", "ste_qat", "lsq"])
def test_training_steps(benchmark: BenchmarkFixture, method: str) -> None:
    def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (problem(),), {}

    if method == "full precision":
        steps = full_precision
    else:
        steps = METHODS.get(method).model_validate({"name": method, "steps": STEPS, "batch_size": BATCH}).solve
    benchmark.pedantic(steps, setup=fresh, rounds=3, warmup_rounds=1)
