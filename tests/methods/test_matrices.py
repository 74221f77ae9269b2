"""Layers as matrices: a layer's output is its matrix times its columns, whatever kind of layer it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from qbench.methods.matrices import (
    column_pieces,
    from_matrix,
    input_columns,
    input_groups,
    input_key,
    is_matrix_layer,
    moments,
    positions,
    to_matrix,
)

LAYERS: dict[str, Any] = {
    "linear": lambda: (nn.Linear(6, 5), torch.randn(2, 3, 6)),
    "linear without a batch": lambda: (nn.Linear(6, 5), torch.randn(6)),
    "transposed": lambda: (Conv1D(5, 6), torch.randn(2, 3, 6)),
    "conv": lambda: (nn.Conv2d(4, 6, 3), torch.randn(2, 4, 7, 5)),
    "conv, strided and padded": lambda: (
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2)),
        torch.randn(2, 4, 7, 5),
    ),
    "conv, dilated": lambda: (nn.Conv2d(4, 6, 3, dilation=2, padding="same"), torch.randn(2, 4, 7, 5)),
    "conv, even and same": lambda: (nn.Conv2d(4, 6, 2, padding="same"), torch.randn(2, 4, 7, 5)),
    "conv, reflected": lambda: (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), torch.randn(2, 4, 7, 5)),
    "conv, pointwise": lambda: (nn.Conv2d(4, 6, 1, bias=False), torch.randn(2, 4, 7, 5)),
    "conv, grouped": lambda: (nn.Conv2d(4, 6, 3, groups=2, padding=1), torch.randn(2, 4, 7, 5)),
    "conv, depthwise": lambda: (nn.Conv2d(4, 8, 3, groups=4, padding=1), torch.randn(2, 4, 7, 5)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kind", LAYERS)
def test_the_output_is_matrix_times_columns(kind: str) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[kind]()
    matrix, columns = to_matrix(layer, layer.weight), input_columns(layer, x)
    assert len(columns) == input_groups(layer)
    stacked = matrix.view(len(columns), -1, matrix.shape[1])
    product = (columns @ stacked.mT).permute(1, 0, 2).flatten(1)  # (positions, rows)
    bias = 0 if layer.bias is None else layer.bias
    torch.testing.assert_close(product + bias, positions(layer, layer(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_matrix_and_weight_are_one_another_s_inverse(kind: str) -> None:
    layer, _ = LAYERS[kind]()
    assert is_matrix_layer(layer)
    matrix = to_matrix(layer, layer.weight)
    assert torch.equal(from_matrix(layer, matrix), layer.weight)
    matrix.square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, 2 * layer.weight.detach())


def test_other_layers_are_none() -> None:
    for other in (
        nn.Embedding(3, 4),
        nn.LayerNorm(4),
        nn.Conv1d(2, 2, 1),
        nn.ConvTranspose2d(2, 2, 1),
        nn.Conv3d(2, 2, 1),
        nn.MultiheadAttention(4, 2).out_proj,  # its weight is used, and it is never called
    ):
        assert not is_matrix_layer(other)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("largest", [1, 600, 2**20])
def test_pieces_are_the_columns_cut(kind: str, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[kind]()
    monkeypatch.setattr("qbench.methods.matrices._PIECE", largest)
    pieces = list(column_pieces(layer, x))
    assert torch.equal(torch.cat(pieces, dim=1), input_columns(layer, x))
    images = len(x) if isinstance(layer, nn.Conv2d) else 1
    assert len(pieces) == (images if largest == 1 else 1 if largest == 2**20 else len(pieces))


def test_layers_share_columns_only_where_kernels_are_laid_alike() -> None:
    plain = nn.Conv2d(4, 6, 3, padding=1)
    assert input_key(plain) == input_key(nn.Conv2d(4, 9, 3, padding=1))
    for other in (
        nn.Conv2d(4, 6, 1),
        nn.Conv2d(4, 6, 3),
        nn.Conv2d(4, 6, 3, padding=1, stride=2),
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        nn.Conv2d(4, 6, 3, padding=1, dilation=2),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    ):
        assert input_key(plain) != input_key(other)


def test_moments_are_summed_in_float32() -> None:
    columns = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = moments(columns, columns)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, columns.double().mT.matmul(columns.double()).float())
