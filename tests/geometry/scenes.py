"""Small models with losses that are known in closed form, as scenes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from qbench.geometry.scene import Point, Scene
from qbench.methods.matrices import is_matrix_layer, to_matrix
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.quantizers.layout import choose_grid
from qbench.registry import MODELS, QUANTIZERS
from qbench.runner.targets import make_problem
from qbench.seeds import derive_seed
from qbench.suite.cell import Cell
from qbench.tasks.evaluation import Evaluation
from qbench.tasks.image_data import ImageBatch


@dataclass
class Classification:
    """Inputs with classes, in batches of 7 and documents of 5."""

    model: nn.Module
    data: ImageBatch

    def predict(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, Tensor]:
        return model(batch.images), batch.labels

    def loss(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        return functional.cross_entropy(*self.predict(model, batch))

    def evaluation_batches(self, limit: int | None = None) -> list[ImageBatch]:
        pairs = zip(self.data.images[:limit].split(7), self.data.labels[:limit].split(7), strict=True)
        return [ImageBatch(*pair) for pair in pairs]

    @staticmethod
    def tokens_of(batch: ImageBatch | Tensor) -> int:
        return len(batch) if isinstance(batch, Tensor) else len(batch.labels)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, metrics: tuple[str, ...]) -> Evaluation:
        each = functional.cross_entropy(*self.predict(model, self.data), reduction="none").double()
        return Evaluation({}, [(str(i), len(part), float(part.sum())) for i, part in enumerate(each.split(5))])


@dataclass
class Landscape:
    """A function of the weights alone: one batch, one document, no logits."""

    model: nn.Module
    function: Callable[[nn.Module], Tensor]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return self.function(model)

    def evaluation_batches(self, limit: int | None = None) -> list[Tensor]:
        return [torch.zeros(1, 1)]

    tokens_of = staticmethod(len)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, metrics: tuple[str, ...]) -> Evaluation:
        return Evaluation({}, [("landscape", 1, float(self.function(model)))])


def scene_of(
    task: Any, bits: int = 3, quantizer: str = "absmax", rule_options: Any = (), calibration: Any = (), **options: Any
) -> Scene:
    """Return a scene in which every layer of a task's model is quantized."""
    rule: Any = QUANTIZERS.get(quantizer).model_validate({"name": quantizer, **dict(rule_options)})
    model = copy.deepcopy(task.model)
    layers = tuple(
        TargetLayer(name, module, choose_grid(to_matrix(module, module.weight.detach()).float(), rule, bits), rule)
        for name, module in model.named_modules()
        if is_matrix_layer(module)
    )
    problem = Problem(
        model=model,
        blocks=[Block(model, layers)],
        calibration=calibration,
        forward=lambda model, batch: model(batch),
        loss=task.loss,
        train_batches=lambda batch_size, seed: iter(()),
        tokens_of=task.tokens_of,
        seed_of=lambda purpose: derive_seed(purpose, 0),
        predict=getattr(task, "predict", None),
    )
    return Scene(task, problem, **options)


def regression() -> Classification:
    """Return softmax regression of three digits on six features; its Hessian and Gauss-Newton matrix are the same."""
    found = load_digits(n_class=3)
    x = torch.tensor(found.data[:33, 18:24] / 4, dtype=torch.float32)
    return Classification(
        _seeded(lambda: nn.Sequential(nn.Linear(6, 3))), ImageBatch(x, torch.tensor(found.target[:33]))
    )


def network() -> Classification:
    """Return a net of two layers with a smooth activation between them."""
    return Classification(
        _seeded(lambda: nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3))), regression().data
    )


def normalised() -> Classification:
    """Return a net with a batch norm behind its first layer, whose statistics are those of the data."""
    model = _seeded(lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)))
    data = regression().data
    for _ in range(20):
        model(data.images)
    return Classification(model.eval(), data)


def bowl(rows: int = 2, columns: int = 4, seed: int = 0) -> tuple[Landscape, Tensor, Tensor]:
    """Return a quadratic of the weights: landscape, Hessian of shape (size, size) and lowest point of shape (size,)."""
    generator = torch.Generator().manual_seed(seed)
    size = rows * columns
    root = torch.randn(size, size, generator=generator)
    hessian, lowest = root @ root.T / size, torch.randn(size, generator=generator)
    model = nn.Sequential(nn.Linear(columns, rows, bias=False))
    model[0].weight.data = (lowest + 0.3 * torch.randn(size, generator=generator)).view(rows, columns)

    def function(model: nn.Module) -> Tensor:
        off = model[0].weight.flatten() - lowest
        return 0.5 * off @ hessian @ off

    return Landscape(model, function), hessian, lowest


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def language(evaluation_windows: int = 6, **options: Any) -> Scene:
    """Return the embedded language model on a few windows, at 3 bits."""
    spec: Any = MODELS.get("llama-1m").model_validate({"name": "llama-1m", "evaluation_windows": evaluation_windows})
    return _built(spec, **options)


def digits(**options: Any) -> Scene:
    """Return the embedded classifier of digits, at 3 bits."""
    spec: Any = MODELS.get("mlp-digits").model_validate({"name": "mlp-digits", "evaluation_images": 205})
    return _built(spec, **options)


def _built(spec: Any, **options: Any) -> Scene:
    """Return a scene as the runner makes it."""
    rule: Any = QUANTIZERS.get("absmax").model_validate({"name": "absmax"})
    task = spec.load(0, "cpu")
    cell = Cell(spec, rule, 3, None, 0, ("loss",))
    model = copy.deepcopy(task.model)
    problem = make_problem(task, model, cell, lambda place: choose_grid(place.weight, rule, place.bits))
    return Scene(task, problem, **options)


def with_points(scene: Scene, **lengths: float) -> Scene:
    """Give a scene points: the full-precision weights plus so many times the rounding error."""
    error = scene.rounding_error()
    scene.points |= {label: Point(scene.moved(error, length)) for label, length in lengths.items()}
    return scene
