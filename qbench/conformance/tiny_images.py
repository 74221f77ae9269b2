"""The problem on images that every method is tried on: convolutions with batch norm, and batches with labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.methods.batch_norm import batch_norms, fold
from qbench.methods.matrices import is_matrix_layer, to_matrix
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import choose_grid
from qbench.seeds import derive_seed

SIZE = CLASSES = 8


class Labelled(NamedTuple):
    """A training batch: images of shape (n, 1, 8, 8) and classes of shape (n,)."""

    images: Tensor
    labels: Tensor


def make_problem(
    quantizer: Quantizer, bits: int, *, folded: bool = False, batches: Sequence[int] = (4, 3), device: str = "cpu"
) -> Problem:
    """Return a problem of its own, the same each time: three blocks with a plain, a depthwise and a 1x1 convolution.

    Parameters
    ----------
    quantizer : Quantizer
        Chooses the layers' grids.
    bits : int
        Bits a code.
    folded : bool
        Whether the batch norms are folded into the convolutions.
    batches : sequence of int
        Images of each calibration batch.
    device : str
        Torch device.
    """
    chance = torch.Generator().manual_seed(20261125)
    calibration = [_draw(count, chance).images.to(device) for count in batches]
    model = _network(chance).to(torch.device(device))
    if folded:
        model = fold(model, _forward, calibration).model
    blocks = [
        Block(block, tuple(_targets(f"{name}.", block, quantizer, bits))) for name, block in model.named_children()
    ]
    return Problem(
        model=model,
        blocks=blocks,
        calibration=calibration,
        forward=_forward,
        loss=lambda model, batch: functional.cross_entropy(*_predict(model, batch)),
        train_batches=lambda batch_size, seed: _batches(batch_size, seed, device),
        tokens_of=lambda batch: len(batch[0]) if isinstance(batch, Labelled) else len(batch),
        seed_of=lambda purpose: derive_seed(purpose, 0),
        predict=_predict,
    )


def _network(chance: torch.Generator) -> nn.Module:
    layers = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)]
    layers += [nn.Conv2d(8, 12, 1, stride=2, bias=False)]
    head = nn.Linear(12 * 16, CLASSES)
    first, second, third = (nn.BatchNorm2d(layer.out_channels) for layer in layers)
    model = nn.Sequential(
        nn.Sequential(layers[0], first, nn.ReLU()),
        nn.Sequential(layers[1], second, nn.ReLU(), layers[2], third, nn.ReLU(inplace=True)),
        nn.Sequential(nn.Flatten(), head),
    )
    with torch.no_grad():
        # Drawn again from a generator of their own: what torch's global one draws differs from run to run.
        for layer in [*layers, head]:
            weight = layer.get_parameter("weight")
            fan_in = to_matrix(layer, weight).shape[1]
            weight.copy_(torch.randn(weight.shape, generator=chance) * (2 / fan_in) ** 0.5)
        head.bias.zero_()
        for norm in batch_norms(model).values():
            norm.weight.copy_(torch.rand(norm.weight.shape, generator=chance) + 0.5)
            norm.bias.copy_(torch.randn(norm.bias.shape, generator=chance) * 0.3)
        for _ in range(3):
            model(_draw(64, chance).images)
    return model.eval()


def _targets(prefix: str, block: nn.Module, quantizer: Quantizer, bits: int) -> Iterator[TargetLayer]:
    for name, module in block.named_modules():
        if is_matrix_layer(module):
            weight = to_matrix(module, module.get_parameter("weight").detach())
            grid = choose_grid(weight, quantizer, bits, torch.ones(1, weight.shape[1], device=weight.device))
            yield TargetLayer(prefix + name, module, grid, quantizer)


def _draw(count: int, chance: torch.Generator) -> Labelled:
    # A bright row, whose place is the class, in noise.
    labels = torch.randint(0, CLASSES, (count,), generator=chance)
    images = torch.rand(count, 1, SIZE, SIZE, generator=chance) * 0.5
    images[torch.arange(count), 0, labels] += 0.5
    return Labelled(images, labels)


def _batches(batch_size: int, seed: int, device: str) -> Iterator[Labelled]:
    chance = torch.Generator().manual_seed(seed)
    while True:
        drawn = _draw(batch_size, chance)
        yield Labelled(drawn.images.to(device), drawn.labels.to(device))


def _forward(model: nn.Module, images: Tensor) -> object:
    return model(images)


def _predict(model: nn.Module, batch: Labelled) -> tuple[Tensor, Tensor]:
    logits: Tensor = model(batch.images)
    return logits, batch.labels
