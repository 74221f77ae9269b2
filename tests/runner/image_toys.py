"""A classifier of real images of 8 x 8 that is trained while it is loaded: a task whose batches carry labels."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from qbench.spec import Spec


class ImageToy(Spec):
    """Three blocks: a convolution; a depthwise and a pointwise one; a linear head. All but the last with batch norm.

    Attributes
    ----------
    normed : bool
        Whether there are batch norms.
    """

    normed: bool = True

    def load(self, seed: int, device: str) -> ImageToyTask:
        return ImageToyTask(self, seed)

    def fingerprint(self, seed: int) -> dict[str, str]:
        return {"weights": f"image toy {seed}"}


class ImageBatch(NamedTuple):
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Measured:
    metrics: dict[str, float]
    documents: list[tuple[str, int, float]]


@cache
def _digits() -> ImageBatch:
    found = load_digits()
    rows = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))[:600]  # writers are in order
    images = torch.tensor(found.images / 16, dtype=torch.float32)[:, None]
    return ImageBatch(images[rows], torch.tensor(found.target)[rows])


@cache
def _trained(seed: int, *, normed: bool) -> nn.Sequential:
    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if normed else nn.Identity()

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=not normed), norm(8), nn.ReLU()),
            nn.Sequential(
                nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=not normed),
                norm(8),
                nn.ReLU(inplace=True),
                nn.Conv2d(8, 16, 1, stride=2, bias=not normed),
                norm(16),
                nn.ReLU(inplace=True),
            ),
            nn.Sequential(nn.Flatten(), nn.Linear(256, 10)),
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        images, labels = (part[:400] for part in _digits())
        for _ in range(10):
            for rows in torch.randperm(400).split(40):
                functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
                optimizer.zero_grad()
    return model.eval()


class ImageToyTask:
    def __init__(self, spec: ImageToy, seed: int) -> None:
        self.model = copy.deepcopy(_trained(seed, normed=spec.normed))
        self.calibration = list(_digits().images[:100].split(40))

    def blocks(self) -> list[tuple[str, nn.Module]]:
        return list(self.model.named_children())

    def forward(self, model: nn.Module, images: Tensor) -> object:
        return model(images)

    def predict(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, Tensor]:
        return model(batch.images), batch.labels

    def loss(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        return functional.cross_entropy(*self.predict(model, batch))

    def train_batches(self, batch_size: int, seed: int) -> Iterator[ImageBatch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            rows = torch.randint(0, 400, (batch_size,), generator=generator)
            yield ImageBatch(*(part[rows] for part in _digits()))

    @staticmethod
    def tokens_of(batch: Tensor | ImageBatch) -> int:
        return len(batch.images) if isinstance(batch, ImageBatch) else len(batch)

    @torch.no_grad()
    def logits(self, model: nn.Module) -> Tensor:
        found: Tensor = model(_digits().images[400:])
        return found

    def evaluate(self, model: nn.Module, metrics: tuple[str, ...]) -> Measured:
        logits, labels = self.logits(model), _digits().labels[400:]
        losses = functional.cross_entropy(logits, labels, reduction="none").double()
        documents = [(f"images {index}", 10, float(part.sum())) for index, part in enumerate(losses.split(10))]
        accuracy = float((logits.argmax(dim=1) == labels).float().mean())
        return Measured({"loss/cross_entropy": float(losses.mean()), "accuracy/top1": accuracy}, documents)

    def facts(self) -> dict[str, Any]:
        return {"chance_loss": math.log(10), "chance_accuracy": 0.1}
