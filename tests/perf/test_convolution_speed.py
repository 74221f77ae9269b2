"""Second moments of a convolution's inputs, beside unfolding all images at once, and estimating batch norms again.

Moments of T patches of n values take ``2 T n^2`` FLOP; 256 images of 32 channels at 14x14 and a 3x3 kernel are 50176
patches of 288 values: 8.3 GFLOP, 0.09 s at 98 GFLOP/s. The patches are nine times the images, 58 MB: all at once they
are written to memory and read again, a few images at a time they stay in the cache. 16 channels at 28x28 are 200704
patches of 144: the same FLOP, twice the bytes.

Estimating batch norms again is one forward pass whose batch norms read their input once more; torch's own loop
(``update_bn``) does the same in training mode.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from qbench.methods.batch_norm import recalibrate
from qbench.methods.matrices import column_pieces, moments
from qbench.tasks.image_models import build_classifier
from qbench.tasks.image_zoo import ResNet

InTurns = Callable[..., float]
PAIRS = 7
RATIO = "time beside torch's own"
# Channels, pixels a side; what is to be reached, as a share of the reference's time: it unfolds the more, the larger.
SHAPES = {"16 channels 28x28": (16, 28, 0.8), "32 channels 14x14": (32, 14, 1.0), "64 channels 7x7": (64, 7, 1.1)}


@pytest.mark.benchmark(group="moments of a convolution")
@pytest.mark.parametrize("shape", SHAPES)
def test_moments_are_faster_than_unfolding_all_images(
    benchmark: BenchmarkFixture, in_turns: InTurns, shape: str
) -> None:
    channels, side, limit = SHAPES[shape]
    layer = nn.Conv2d(channels, channels, 3, padding=1)
    images = torch.randn(256, channels, side, side, generator=torch.Generator().manual_seed(0))

    def ours() -> Tensor:
        parts = [moments(columns, columns) for columns in column_pieces(layer, images)]
        return torch.stack(parts).sum(dim=0)[0]

    def reference() -> Tensor:
        patches = functional.unfold(images, 3, padding=1).transpose(0, 1).flatten(1)
        return patches @ patches.T

    assert torch.allclose(ours(), reference(), rtol=1e-3, atol=0.5)
    assert in_turns(benchmark, ours, reference, PAIRS, RATIO) <= limit


@pytest.mark.benchmark(group="batch norms estimated again")
def test_estimating_again_costs_what_torch_s_own_loop_does(benchmark: BenchmarkFixture, in_turns: InTurns) -> None:
    torch.manual_seed(0)
    model = build_classifier(ResNet(kind="resnet", blocks_per_stage=1), 1, 28, 10).eval()
    calibration = list(torch.randn(256, 1, 28, 28).split(128))

    def ours() -> object:
        return recalibrate(model, lambda model, batch: model(batch), calibration)

    assert in_turns(benchmark, ours, lambda: update_bn(calibration, model), PAIRS, RATIO) <= 1.1
