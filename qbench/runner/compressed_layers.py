"""Quantized layers in the formats of the compressed-tensors package: which grids fit, and the tensors they become.

Codes and zero points are signed there: a level q stands for ``scale * (q - zero_point)`` with q from -2^(b-1) to
2^(b-1) - 1. Subtracting 2^(b-1) from an unsigned code and from its zero point changes nothing, since only the
difference counts. A table whose levels are whole multiples of a power of two is such a grid of integers as well;
multiplying levels by 2^k and the scale by 2^-k loses no bit.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from qbench.errors import CellError
from qbench.methods.problem import LayerSolution
from qbench.quant.block_grid import BlockGrid
from qbench.quant.grid import IntegerGrid
from qbench.quant.levels import LevelTable
from qbench.quant.scale_format import FLOAT32, PowerOfTwo, ScaledE4M3
from qbench.tasks.torchvision_ops import declare_missing_operators

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_E2M3 = (*(m / 8 for m in range(8)), *((1 + m / 8) * 2.0**e for e in range(3) for m in range(8)))
_SMALLEST_GROUP = 8
ALLOWED = (
    "integers of 1 to 8 bits with whole zero points, tables of whole multiples of a power of two, and e4m3, all per "
    "tensor, channel, group or tile, where a group divides the columns or has a divisor of "
    f"{_SMALLEST_GROUP} or more in common with them; nvfp4, mxfp4, mxfp6 (e2m3) and mxfp8 (e4m3)"
)


@dataclass(frozen=True)
class Scheme:
    """How the weights of a layer are stored; names and values are those of the package.

    Attributes
    ----------
    format : str
        The compressor, such as ``pack-quantized``.
    num_bits : int
        Bits a code.
    type : str
        ``int`` or ``float``.
    strategy : str
        What shares a scale.
    symmetric : bool
        Whether there are no zero points.
    group_size : int or None
        Columns a group.
    block_structure : tuple of int or None
        Rows and columns a tile.
    """

    format: str
    num_bits: int
    type: Literal["int", "float"]
    strategy: str
    symmetric: bool = True
    group_size: int | None = None
    block_structure: tuple[int, int] | None = None

    @property
    def half_precision(self) -> bool:
        """Whether the package computes the weights in bfloat16."""
        return self.format.startswith(("nvfp4", "mxfp"))

    @property
    def has_packed_zero_points(self) -> bool:
        """Whether there are zero points that are packed like codes."""
        return self.format == "pack-quantized" and not self.symmetric and self.strategy != "tensor"

    def describe(self) -> str:
        """Return it in one line, such as ``pack-quantized, 4 bits, group of 64``."""
        size = f" of {self.group_size}" if self.group_size else ""
        tile = " of {} x {}".format(*self.block_structure) if self.block_structure else ""
        points = "" if self.symmetric else ", with zero points"
        return f"{self.format}, {self.num_bits} bits, {self.strategy}{size}{tile}{points}"

    def weights(self) -> dict[str, Any]:
        """Return the arguments of the package's ``QuantizationArgs``."""
        given = {name: value for name, value in asdict(self).items() if name != "format" and value is not None}
        return given | ({"scale_dtype": "torch.uint8"} if self.format.startswith("mxfp") else {})


def compress_layers(layers: dict[str, LayerSolution]) -> dict[str, tuple[Scheme, dict[str, Tensor]]]:
    """Return each layer's scheme and its tensors, by the names that they have beside the layer's own.

    Parameters
    ----------
    layers : dict of str to LayerSolution
        Quantized layers by name.

    Raises
    ------
    CellError
        The format has no such grid; one line names the layer and says which grids it has.

    Notes
    -----
    transformers (5.23 with compressed-tensors 0.20) reads packed zero points, and weights that the package computes in
    bfloat16, only with ``dequantize``, which knows one scheme for the whole model. So microscaling formats are used
    where they fit every layer (elsewhere the same weights are integers), and where layers differ, packed zero points
    are avoided: codes of 8 bits are stored a byte each, with plain zero points; of others zero points are subtracted
    beforehand, which takes one bit more a code.
    """
    declare_missing_operators()  # the package brings transformers along
    small = {name: _microscaling(found.codes, found.grid) for name, found in layers.items()}
    if len({None if one is None else one[0] for one in small.values()}) == 1 and None not in small.values():
        return {name: one for name, one in small.items() if one is not None}
    stored = {name: _compress(name, found) for name, found in layers.items()}
    if len({scheme for scheme, _ in stored.values()}) == 1:
        return stored
    return {
        name: _compress(name, layers[name], mixed=True) if scheme.has_packed_zero_points else (scheme, tensors)
        for name, (scheme, tensors) in stored.items()
    }


def restore_layer(scheme: Scheme, tensors: dict[str, Tensor]) -> Tensor:
    """Return the weight that the package makes of a stored layer."""
    declare_missing_operators()
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    compressor = BaseCompressor.get_value_from_registry(scheme.format)
    arguments = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**scheme.weights()))
    weight: Tensor = compressor.decompress(tensors, arguments)["weight"]
    return weight


def _compress(name: str, found: LayerSolution, *, mixed: bool = False) -> tuple[Scheme, dict[str, Tensor]]:
    codes, grid = found.codes, found.grid
    stored = _eight_bit_floats(codes, grid) or _integers(codes, grid, mixed=mixed)
    if stored is not None:
        return stored
    kept = "" if grid.scale_format == FLOAT32 else f", scales in {grid.scale_format.name}"
    size = f", groups of {grid.group_size} of {codes.shape[1]} columns" if grid.scale.shape[-1] > 1 else ""
    raise CellError(
        f"layer {name!r}: compressed-tensors has no such grid: {grid.levels.describe()}, {grid.levels.bits} bits"
        f"{size}{kept} (allowed: {ALLOWED})"
    )


def _microscaling(codes: Tensor, grid: BlockGrid) -> tuple[Scheme, dict[str, Tensor]] | None:
    """Return small floats in groups whose scales have eight bits."""
    levels, size, columns = grid.levels, grid.group_size, codes.shape[1]
    if not isinstance(levels, LevelTable) or columns % size:
        return None
    values = _values(codes, levels)
    scale = grid.over_rows(grid.scale.float().cpu(), len(codes)).expand(len(codes), -1).contiguous()
    if isinstance(grid.scale_format, ScaledE4M3) and size == 16 and _within(levels, _E2M1):
        unit = torch.tensor([grid.scale_format.tensor_scale])
        return Scheme("nvfp4-pack-quantized", 4, "float", "tensor_group", group_size=16), {
            "weight_packed": _packed_e2m1(values),
            "weight_scale": (scale / unit).to(torch.float8_e4m3fn),
            "weight_global_scale": 1 / unit,  # the package divides by it
        }
    if not isinstance(grid.scale_format, PowerOfTwo) or size != 32:
        return None
    exponents = (scale.log2().round() + 127).to(torch.uint8)
    if _within(levels, _E2M1):
        packed, scheme = _packed_e2m1(values), Scheme("mxfp4-pack-quantized", 4, "float", "group", group_size=32)
    elif _within(levels, _E2M3):
        from compressed_tensors.compressors.mxfp6.helpers import pack_fp6_to_uint8

        packed, scheme = pack_fp6_to_uint8(values), Scheme("mxfp6-pack-quantized", 6, "float", "group", group_size=32)
    elif _within_e4m3(levels):
        scheme = Scheme("mxfp8-quantized", 8, "float", "group", group_size=32)
        return scheme, {"weight": values.to(torch.float8_e4m3fn), "weight_scale": exponents}
    else:
        return None
    return scheme, {"weight_packed": packed, "weight_scale": exponents}


def _eight_bit_floats(codes: Tensor, grid: BlockGrid) -> tuple[Scheme, dict[str, Tensor]] | None:
    """Return e4m3 weights with float32 scales."""
    levels = grid.levels
    # A table of few levels takes fewer bits as integers.
    if not isinstance(levels, LevelTable) or levels.bits != 8 or not _within_e4m3(levels):
        return None
    scale = grid.scale.float().cpu()
    rows, columns = codes.shape
    if len(scale) not in (1, rows):
        block = (grid.block_rows, grid.group_size)
        scheme = Scheme("float-quantized", 8, "float", "block", block_structure=block)
    else:
        laid = _laid(scale, grid, rows, columns)
        if laid is None:
            return None
        strategy, size, scale = laid
        scheme = Scheme("float-quantized", 8, "float", strategy, group_size=size)
    return scheme, {"weight": _values(codes, levels).to(torch.float8_e4m3fn), "weight_scale": scale}


def _integers(codes: Tensor, grid: BlockGrid, *, mixed: bool) -> tuple[Scheme, dict[str, Tensor]] | None:
    """Return signed integers."""
    levels, (rows, columns) = grid.levels, codes.shape
    zero_point = grid.zero_point.cpu()
    if isinstance(levels, IntegerGrid) and not levels.real_zero_point:
        bits, step, shift = levels.bits, 1.0, 0 if levels.symmetric else 1 << (levels.bits - 1)
        whole, zero_point = codes.cpu() - shift, zero_point - shift
    elif isinstance(levels, LevelTable) and (found := _multiples(levels)) is not None:
        bits, step = found
        whole = (_values(codes, levels) / step).round()
    else:
        return None
    laid, points = (_laid(part, grid, rows, columns) for part in (grid.scale.float().cpu() * step, zero_point))
    if laid is None or points is None:
        return None
    strategy, size, scale = laid
    symmetric = len(levels.zero_points) == 1
    if not symmetric and mixed and strategy != "tensor" and bits < 8:
        whole, bits, symmetric = whole - grid.by_column(columns, rows)[1].cpu() + shift, bits + 1, True
    scheme = Scheme("pack-quantized", bits, "int", strategy, symmetric, size)
    own = points[2].to(torch.int8)
    if not symmetric and mixed and strategy != "tensor":
        bytewise = replace(scheme, format="int-quantized")
        return bytewise, {"weight": whole.to(torch.int8), "weight_scale": scale, "weight_zero_point": own}
    from compressed_tensors.compressors.pack_quantized import pack_to_int32

    tensors = {
        "weight_packed": pack_to_int32(whole.to(torch.int8), bits),
        "weight_scale": scale,
        "weight_shape": torch.tensor([rows, columns]),
    }
    if not symmetric:
        # The package packs zero points down the rows, but that of a whole tensor not at all.
        tensors["weight_zero_point"] = own if strategy == "tensor" else pack_to_int32(own, bits, packed_dim=0)
    return scheme, tensors


def _laid(part: Tensor, grid: BlockGrid, rows: int, columns: int) -> tuple[str, int | None, Tensor] | None:
    """Return what shares a scale, the columns of a group, and scales or zero points in the package's shape."""
    if part.numel() == 1:
        return "tensor", None, part.reshape(1)
    by_row = grid.over_rows(part, rows).expand(rows, -1)
    if by_row.shape[1] == 1:
        return "channel", None, by_row.contiguous()
    size = grid.group_size
    if columns % size:
        # Every group must be whole: a common divisor cuts all of them, the last one too, into equal parts.
        shared = math.gcd(size, columns)
        if shared < _SMALLEST_GROUP:
            return None
        by_row = by_row.repeat_interleave(size // shared, dim=1)[:, : columns // shared]
        size = shared
    return "group", size, by_row.contiguous()


def _multiples(levels: LevelTable) -> tuple[int, float] | None:
    """Return the bits of a table's levels as whole multiples of a power of two, and that; None where they are not."""
    for step in (2.0**-k for k in range(8)):
        multiples = [value / step for value in levels.values]
        if all(multiple.is_integer() for multiple in multiples):
            low, high = -multiples[0], multiples[-1] + 1
            bits = 1 + max(0, math.ceil(math.log2(max(low, high, 1))))
            return (bits, step) if bits <= 8 else None
    return None


def _values(codes: Tensor, levels: LevelTable) -> Tensor:
    return torch.tensor(levels.values, dtype=torch.float32)[codes.cpu().int()]


def _within(levels: LevelTable, magnitudes: tuple[float, ...]) -> bool:
    return all(abs(value) in magnitudes for value in levels.values)


def _within_e4m3(levels: LevelTable) -> bool:
    values = torch.tensor(levels.values, dtype=torch.float32)
    return bool((values.to(torch.float8_e4m3fn).float() == values).all())


def _packed_e2m1(values: Tensor) -> Tensor:
    from compressed_tensors.compressors.nvfp4 import pack_fp4_to_uint8

    packed: Tensor = pack_fp4_to_uint8(values)
    return packed
