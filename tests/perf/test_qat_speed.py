"""Training steps through the quantizer, beside training steps of the same weights in full precision.

Language model: the zoo's first size, 28 matrices with 0.79 M weights, batches of 8 or 16 x 128 tokens. A step is about
6 FLOP a weight and token, with the head 6 x 0.92 M x 1024 = 5.7 GFLOP at batch 8: some 57 ms at 100 GFLOP/s a core.
Convolutions: a ResNet of eight layers and 16 channels on 28 x 28 images, 0.08 M weights, some 12 M multiplications an
image, 6 x 12 M x 32 = 2.3 GFLOP a batch.

What the quantizer adds. Straight-through: four elementwise operations on 3.2 MB, 25 MB moved within the cache, and as
much again when the optimizer has changed the latent weight; 1 to 2 ms at 20 GB/s. LSQ: ten more, 60 MB or 3 ms. And
28 layers with 4 or 14 operations of some 2 us to start each: 0.2 and 0.8 ms; step sizes with a rate of their own are
28 more groups of the optimizer, 1 to 2 ms. Together that is below 5 % (straight-through) and 10 % (LSQ) of the language
model's step, and it does not grow with the batch. The bound below leaves room for noise.

The ablations of STE-QAT differ from it by a pass or two more or less, and two of them draw a random number a weight:
0.8 M numbers at 5 to 10 ns are 4 to 8 ms, below 10 % of the step.

The full-precision step is written out here, with torch's own optimizer on the model's own weights. Both take turns in
one process with one thread, and the ratio is the median over the pairs: what slows the machine down for a while slows
both. Set MALLOC_MMAP_THRESHOLD_=1073741824 and MALLOC_TRIM_THRESHOLD_=4294967296, or page faults cost more than the
arithmetic.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn import functional

from qbench.methods.latent import QuantizedWeight
from qbench.methods.matrices import is_matrix_layer, to_matrix
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.qat import LearnedStepWeight, StraightThroughWeight
from qbench.methods.training import Training
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid
from qbench.registry import METHODS
from qbench.tasks import zoo
from qbench.tasks.llama import build_llama

TOKENS, IMAGES = 128, 32
MOST = 1.15  # times a full-precision step
PAIRS = 30

WEIGHTS: dict[str, Callable[..., QuantizedWeight]] = {"ste_qat": StraightThroughWeight, "lsq": LearnedStepWeight}


def next_token_loss(model: nn.Module, batch: Tensor) -> Tensor:
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


class Residual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(out) for _ in range(2))
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norms[0](self.first(x)).relu()
        return (self.norms[1](self.second(inner)) + self.shortcut(x)).relu()


def resnet() -> nn.Sequential:
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = [Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def image_loss(model: nn.Module, batch: Tensor) -> Tensor:
    return functional.cross_entropy(model(batch), torch.arange(len(batch)) % 10)


def problem(kind: str) -> Problem:
    torch.manual_seed(0)
    if kind == "llama-1m":
        model: nn.Module = build_llama(zoo.language_model(kind).architecture)
        targets: nn.Module = model.model.layers
    else:
        model = targets = resnet()
    rule = AbsMax(name="absmax")
    layers = tuple(
        TargetLayer(name, module, choose_grid(to_matrix(module, module.weight.detach()), rule, 4), rule)
        for name, module in targets.named_modules()
        if is_matrix_layer(module)
    )
    return Problem(
        model=model,
        blocks=[Block(targets, layers)],
        calibration=[],
        forward=lambda model, batch: model(batch),
        loss=next_token_loss if kind == "llama-1m" else image_loss,
        train_batches=lambda batch_size, seed: iter(()),
        tokens_of=Tensor.numel,
        seed_of=lambda purpose: 0,
    )


def full_precision_step(given: Problem, batch: Tensor) -> Callable[[], None]:
    model = given.model.requires_grad_(requires_grad=False).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    weights = [layer.module.weight.requires_grad_() for layer in given.layers]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def step() -> None:
        loss = given.loss(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


@pytest.mark.benchmark(group="step of an ablation beside one of ste_qat")
@pytest.mark.parametrize("method", ["latent_grad", "noise_grad", "random_grad"])
def test_ablation_step(benchmark: BenchmarkFixture, in_turns: Callable[..., float], method: str) -> None:
    steps = []
    for name in (method, "ste_qat"):
        options: Any = METHODS.get(name).model_validate({"name": name, "steps": 1000, "learning_rate": 1e-4})
        given = problem("llama-1m")
        if name == "ste_qat":
            weights = [StraightThroughWeight(layer, options) for layer in given.layers]
        else:
            weights = options.weights(given)
        batch = torch.randint(0, 1000, (8, TOKENS), generator=torch.Generator().manual_seed(0))
        steps.append(partial(Training(given, options, weights, given.loss).step, batch))
    assert in_turns(benchmark, *steps, PAIRS, "ratio") <= MOST


@pytest.mark.benchmark(group="QAT step beside a full-precision step")
@pytest.mark.parametrize("method", ["ste_qat", "lsq"])
@pytest.mark.parametrize(("kind", "batch_size"), [("llama-1m", 8), ("llama-1m", 16), ("resnet", IMAGES)])
def test_training_step(benchmark: BenchmarkFixture, kind: str, batch_size: int, method: str) -> None:
    options: Any = METHODS.get(method).model_validate({"name": method, "steps": 1000, "learning_rate": 1e-4})
    if kind == "llama-1m":
        batch = torch.randint(0, 1000, (batch_size, TOKENS), generator=torch.Generator().manual_seed(0))
    else:
        batch = torch.randn(batch_size, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    plain = full_precision_step(problem(kind), batch)
    given = problem(kind)
    training = Training(given, options, [WEIGHTS[method](layer, options) for layer in given.layers], given.loss)
    seconds: list[float] = []

    def timed_plain_step() -> None:
        start = time.perf_counter()
        plain()
        seconds.append(time.perf_counter() - start)

    benchmark.pedantic(training.step, args=(batch,), setup=timed_plain_step, rounds=PAIRS, warmup_rounds=5)
    pairs = zip(benchmark.stats.stats.data, seconds[-PAIRS:], strict=True)
    ratio = statistics.median(through / plain for through, plain in pairs)
    benchmark.extra_info["ratio"] = ratio
    assert ratio <= MOST
