"""A quantized matrix as it is stored: packed codes, scales in their own format, and what tells how to read them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from qbench.errors import CellError
from qbench.quant.block_grid import BlockGrid
from qbench.quant.grid import IntegerGrid
from qbench.quant.levels import Codebook, Levels, LevelTable
from qbench.quant.packing import pack, unpack
from qbench.quant.scale_format import FLOAT32, PowerOfTwo, ScaledE4M3, ScaleFormat

_LEVELS: dict[str, Any] = {"integer": IntegerGrid, "table": LevelTable, "codebook": Codebook}


def pack_layer(codes: Tensor, grid: BlockGrid) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what a quantized matrix is stored as.

    Parameters
    ----------
    codes : Tensor of shape (rows, columns)
        From ``quant_min`` to ``quant_max``.
    grid : BlockGrid
        What they stand for.

    Returns
    -------
    tensors : dict of str to Tensor
        ``codes`` (bytes, see `qbench.quant.packing`, counted from the lowest) and, where the grid has them, ``scale``
        (float32, biased exponents or E4M3), ``scale_unit`` (the float32 that E4M3 scales share), ``zero_point`` (packed
        like codes, counted from the lowest; float32 where it is real) and ``table`` (float32).
    about : dict
        Plain data for `unpack_layer`: ``shape`` (of the matrix), ``scales`` (their shape), ``levels`` (their kind and
        its fields), ``group_size``, ``block_rows``, ``scale_format`` (a name).

    Raises
    ------
    CellError
        The levels are of a kind of their own, or the grid counts other bits than are stored.

    Notes
    -----
    The tensors take `BlockGrid.stored_bits`, but for the ends of the last bytes.
    """
    levels = grid.levels
    kind = next((name for name, one in _LEVELS.items() if type(levels) is one), None)
    if kind is None:
        raise CellError(
            f"levels of type {type(levels).__name__} cannot be stored (allowed: IntegerGrid, LevelTable, Codebook)"
        )
    unsigned = (codes - levels.quant_min).to("cpu", torch.uint8)
    tensors = {"codes": pack(unsigned, levels.bits, levels.count)}
    if grid.table is None:
        tensors |= _stored_scale(grid.scale.float().cpu(), grid.scale_format)
    else:
        tensors["table"] = grid.table.float().cpu().contiguous()
    if levels.real_zero_point:
        tensors["zero_point"] = grid.zero_point.float().cpu().contiguous()
    elif levels.zero_point_bits:
        zero_point = (grid.zero_point - levels.zero_points[0]).to("cpu", torch.uint8)
        tensors["zero_point"] = pack(zero_point, levels.zero_point_bits)
    _require_counted(tensors, grid.stored_bits(*codes.shape))
    about: dict[str, Any] = {
        "shape": list(codes.shape),
        "scales": list(grid.scale.shape),
        "levels": {"kind": kind, **asdict(levels)},  # type: ignore[call-overload]
        "group_size": grid.group_size,
        "block_rows": grid.block_rows,
        "scale_format": grid.scale_format.name,
    }
    return tensors, about


def _require_counted(tensors: dict[str, Tensor], counted: int) -> None:
    stored = 8 * sum(tensor.nbytes for tensor in tensors.values())
    if not 0 <= stored - counted < 8 * len(tensors):
        raise CellError(f"the grid counts {counted} bits, and {stored} are stored: effective bits would be wrong")


def unpack_layer(tensors: dict[str, Tensor], about: dict[str, Any]) -> tuple[Tensor, BlockGrid]:
    """Return the codes, in float32, and the grid that `pack_layer` was given."""
    options = dict(about["levels"])
    kind = _LEVELS[options.pop("kind")]
    if kind is LevelTable:
        options["values"] = tuple(options["values"])
    levels: Levels = kind(**options)
    rows, columns = about["shape"]
    unsigned = unpack(tensors["codes"], levels.bits, rows * columns, levels.count)
    codes = unsigned.view(rows, columns).float() + levels.quant_min
    kept = _format(about["scale_format"], tensors)
    shape = about["scales"]
    scale = torch.ones(shape) if "table" in tensors else _read_scale(tensors["scale"], kept)
    if levels.real_zero_point:
        zero_point = tensors["zero_point"]
    elif levels.zero_point_bits:
        packed = unpack(tensors["zero_point"], levels.zero_point_bits, scale.numel())
        zero_point = packed.view(shape).float() + levels.zero_points[0]
    else:
        zero_point = torch.zeros(shape)
    grid = BlockGrid(levels, scale, zero_point, about["group_size"], about["block_rows"], tensors.get("table"), kept)
    return codes, grid


def _format(name: str, tensors: dict[str, Tensor]) -> ScaleFormat:
    if name == FLOAT32.name:
        return FLOAT32
    return PowerOfTwo() if name == PowerOfTwo().name else ScaledE4M3(float(tensors["scale_unit"]))


def _stored_scale(scale: Tensor, kept: ScaleFormat) -> dict[str, Tensor]:
    if isinstance(kept, PowerOfTwo):
        return {"scale": (scale.log2().round() + 127).to(torch.uint8)}
    if isinstance(kept, ScaledE4M3):
        unit = torch.tensor([kept.tensor_scale], dtype=torch.float32)
        return {"scale": (scale / unit).to(torch.float8_e4m3fn), "scale_unit": unit}
    return {"scale": scale.contiguous()}


def _read_scale(stored: Tensor, kept: ScaleFormat) -> Tensor:
    if isinstance(kept, PowerOfTwo):
        return (stored.int() << 23).view(torch.float32)
    if isinstance(kept, ScaledE4M3):
        return stored.float() * kept.tensor_scale
    return stored
