"""Layers as matrix products: a layer's weight as a matrix, and its inputs as the columns which that matrix meets.

A linear layer's weight is its matrix. transformers' ``Conv1D`` keeps the transpose. A convolution is the product of
its kernels, one a row, with the patches of its input; a grouped one is several such products side by side, and a
depthwise one has one row each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

# Numbers in a piece of patches: 4 MB, which two of fit into a core's cache.
_PIECE = 2**20


def is_matrix_layer(module: nn.Module) -> bool:
    """Return whether a module is a layer that can be quantized: ``Linear``, ``Conv2d`` or transformers' ``Conv1D``."""
    # nn.MultiheadAttention hands the weight of this one to a function, and never calls the layer.
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return False
    return isinstance(module, nn.Linear | nn.Conv2d) or is_transposed(module)


def to_matrix(module: nn.Module, weight: Tensor) -> Tensor:
    """Return a layer's weight as a matrix; gradients pass.

    Parameters
    ----------
    module : nn.Module
        The layer.
    weight : Tensor
        In the layer's own shape, which may be that of another tensor than the layer's weight.

    Returns
    -------
    Tensor of shape (rows, columns)
        Rows are output features or channels; a convolution's columns are ``in_channels / groups * height * width``.
    """
    return weight.T if is_transposed(module) else weight.flatten(1)


def from_matrix(module: nn.Module, matrix: Tensor) -> Tensor:
    """Return what `to_matrix` was given: a weight in the layer's own shape."""
    if is_transposed(module):
        return matrix.T
    if isinstance(module, nn.Conv2d):
        return matrix.view(module.out_channels, module.in_channels // module.groups, *module.kernel_size)
    return matrix


def input_groups(module: nn.Module) -> int:
    """Return how many equal parts a layer's rows fall into that see different inputs: 1, or a convolution's groups."""
    return module.groups if isinstance(module, nn.Conv2d) else 1


def input_columns(module: nn.Module, x: Tensor) -> Tensor:
    """Return the columns that a layer's matrix is multiplied with.

    Parameters
    ----------
    module : nn.Module
        The layer.
    x : Tensor
        Its input: of shape (..., in_features), or (batch, in_channels, height, width).

    Returns
    -------
    Tensor of shape (groups, positions, columns)
        Positions are tokens, or the places a kernel is laid on.
    """
    if not isinstance(module, nn.Conv2d):
        return x.reshape(1, -1, x.shape[-1])
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    windows = functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    for dim, (size, gap, stride) in enumerate(zip(module.kernel_size, module.dilation, module.stride, strict=True), 2):
        windows = windows.unfold(dim, gap * (size - 1) + 1, stride)[..., ::gap]
    # A view so far, of shape (batch, channels, down, across, height, width). The copy is laid out with positions last:
    # it is then one of whole rows, many times faster than functional.unfold.
    by_channel = windows.permute(1, 4, 5, 0, 2, 3)
    places = by_channel.shape[3:].numel()
    return by_channel.reshape(module.groups, -1, places).mT


def column_pieces(module: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Yield `input_columns` of a few images at a time, and of other inputs in one piece.

    The patches of a 3x3 kernel are nine times the image: all at once they would leave the cache, and for large images
    the memory.
    """
    if not isinstance(module, nn.Conv2d) or x.ndim != 4:
        yield input_columns(module, x)
        return
    taps = module.kernel_size[0] * module.kernel_size[1]
    images = max(1, _PIECE // (taps * x[0].numel()))
    for piece in x.split(images):
        yield input_columns(module, piece)


def input_key(module: nn.Module) -> tuple[object, ...]:
    """Return what two layers that are given the same tensor must also share to see the same columns."""
    if not isinstance(module, nn.Conv2d):
        return ()
    geometry = (module.kernel_size, module.stride, module.padding, module.dilation)
    return (*geometry, module.groups, module.padding_mode)


def positions(module: nn.Module, output: Tensor) -> Tensor:
    """Return a layer's output as a matrix, of shape (positions, rows), in the order of `input_columns`."""
    if isinstance(module, nn.Conv2d):
        return output.permute(0, 2, 3, 1).reshape(-1, output.shape[1])
    return output.reshape(-1, output.shape[-1])


def is_transposed(module: nn.Module) -> bool:
    """Return whether a layer keeps the transpose of its matrix, as transformers' ``Conv1D`` does, and a part of one."""
    # By name: a model that holds one has brought transformers along, and nobody else needs to.
    kind = type(module)
    if kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        return True
    # Not `transposed`, which torch says of transposed convolutions.
    return getattr(module, "holds_transposed_rows", False) is True


def moments(columns: Tensor, others: Tensor) -> Tensor:
    """Return the sum over positions of ``a b^T`` in float32.

    Parameters
    ----------
    columns, others : Tensor of shape (groups, positions, n)
        a and b.

    Returns
    -------
    Tensor of shape (groups, n, n)
    """
    return torch.bmm(columns.float().mT, others.float())
