"""A small real model as a problem, and layers with correlated inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from qbench.methods.matrices import to_matrix
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.stage import Gram, Stage
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS
from qbench.seeds import derive_seed
from qbench.tasks.llama import build_llama
from qbench.tasks.zoo import Architecture

MakeProblem = Callable[..., Problem]
MakeStage = Callable[..., Stage]


def _forward(model: nn.Module, batch: Tensor) -> object:
    return model(input_ids=batch, use_cache=False)


def _loss(model: nn.Module, batch: Tensor) -> Tensor:
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def _train_batches(batch_size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(0, 300, (batch_size, 12), generator=generator)


def _target(name: str, module: nn.Module, bits: int, quantizer: str, options: dict[str, Any]) -> TargetLayer:
    rule: Any = QUANTIZERS.get(quantizer).model_validate({"name": quantizer, **options})
    matrix = to_matrix(module, module.weight.detach())
    importance = torch.linspace(0.5, 2, matrix.shape[1])[None] if rule.sees_inputs else None
    return TargetLayer(name, module, choose_grid(matrix, rule, bits, importance), rule)


@pytest.fixture(scope="session")
def _llama() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = build_llama(Architecture.model_validate(sizes))
        for name, parameter in model.named_parameters():
            # transformers starts at a deviation of 0.02: blocks this small would hardly change what they are given.
            if parameter.ndim == 2 and "embed" not in name:
                nn.init.normal_(parameter, std=0.3)
            elif parameter.ndim == 1:
                nn.init.uniform_(parameter, 0.5, 1.5)
            else:
                nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.fixture
def make_problem(_llama: nn.Module) -> MakeProblem:
    """Return a function that makes a problem of a two-block Llama of its own; batches differ in size."""

    def make(bits: int = 3, quantizer: str = "absmax", seed: int = 0, **options: Any) -> Problem:
        model = copy.deepcopy(_llama)
        blocks = []
        for index, block in enumerate(model.model.layers):
            layers = [
                _target(f"model.layers.{index}.{name}", module, bits, quantizer, options)
                for name, module in block.named_modules()
                if isinstance(module, nn.Linear)
            ]
            blocks.append(Block(block, tuple(layers)))
        generator = torch.Generator().manual_seed(seed)
        calibration = [torch.randint(0, 300, (rows, 12), generator=generator) for rows in (4, 4, 3)]
        return Problem(
            model=model,
            blocks=blocks,
            calibration=calibration,
            forward=_forward,
            loss=_loss,
            train_batches=_train_batches,
            tokens_of=Tensor.numel,
            seed_of=lambda purpose: derive_seed(purpose, seed),
        )

    return make


@pytest.fixture
def make_stage() -> MakeStage:
    """Return a function that makes layers which share an input with correlated features and a few strong ones."""

    def make(
        *rows: int,
        columns: int = 48,
        bits: int = 3,
        quantizer: str = "absmax",
        seed: int = 0,
        inherited: float | None = None,
        **options: Any,
    ) -> Stage:
        generator = torch.Generator().manual_seed(seed)
        mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
        strength = torch.ones(columns).index_fill_(0, torch.randperm(columns, generator=generator)[:3], 6.0)
        wanted = torch.randn(400, columns, generator=generator) @ mixing * strength
        hessian = (wanted.T @ wanted / len(wanted))[None]
        gram = Gram(hessian, hessian, hessian)
        if inherited is not None:
            seen = wanted + inherited * torch.randn(wanted.shape, generator=generator)
            gram = Gram((seen.T @ seen / len(seen))[None], (wanted.T @ seen / len(seen))[None], hessian)
        layers = []
        for index, count in enumerate(rows):
            module = nn.Linear(columns, count, bias=False)
            module.weight.data = torch.randn(count, columns, generator=generator)
            layers.append(_target(f"layer{index}", module, bits, quantizer, options))
        return Stage((tuple(layers),), gram)

    return make


def _images() -> Tensor:
    return torch.tensor(load_digits().images[:96] / 16, dtype=torch.float32)[:, None]


@pytest.fixture(scope="session")
def _network() -> nn.Module:
    """Blocks with every way to an activation: through a batch norm and in place, plain, grouped, and none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
            nn.Sequential(
                nn.Conv2d(8, 12, 3, padding=1, stride=2, groups=2),
                nn.Hardswish(),
                nn.Conv2d(12, 12, 3, groups=12, bias=False),
                nn.BatchNorm2d(12, affine=False),
                nn.ReLU6(),
                nn.Conv2d(12, 6, 1),
            ),
            nn.Sequential(nn.Flatten(), nn.Linear(24, 16), nn.GELU(), nn.Linear(16, 10)),
        )
        for _ in range(3):
            model(_images())  # running statistics of real activations
    return model.eval()


@pytest.fixture
def make_images_problem(_network: nn.Module) -> MakeProblem:
    """Return a function that makes a problem of a three-block convolutional network of its own, on real images."""

    def make(bits: int = 3, dtype: torch.dtype = torch.float32) -> Problem:
        model = copy.deepcopy(_network).to(dtype)
        blocks = [
            Block(
                block,
                tuple(
                    _target(f"{index}.{name}", module, bits, "absmax", {})
                    for name, module in block.named_modules()
                    if isinstance(module, nn.Conv2d | nn.Linear)
                ),
            )
            for index, block in enumerate(model.children())
        ]
        labels = torch.tensor(load_digits().target[:96])
        return Problem(
            model=model,
            blocks=blocks,
            calibration=_images().to(dtype).split(40),
            forward=lambda model, batch: model(batch),
            loss=lambda model, batch: functional.cross_entropy(model(batch).float(), labels[: len(batch)]),
            train_batches=lambda batch_size, seed: iter([_images()[:batch_size].to(dtype)]),
            tokens_of=len,
            seed_of=len,
        )

    return make
