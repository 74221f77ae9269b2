"""Properties of the rounded weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from qbench.conformance.case import Case
from qbench.conformance.contract import BrokenError, Property, UnableError
from qbench.quant.block_grid import BlockGrid, dequantize, fake_quantize
from qbench.quant.grid import IntegerGrid
from qbench.quant.levels import LevelTable
from qbench.quantizers.range_search import best_shrunk_range, rounding_error

# Scales that share a unit reach from 2^-6 to 448 of it in E4M3: a block far below the largest one is lost.
_IN_REACH = 1e-4
# Sane rules come out above the bound itself: a narrow range over the largest magnitude of a whole matrix, in 3 bits.
_LEEWAY = 1.5
# Levels of an all-zero block that has no level 0 must lie at most so far away.
_NEXT_TO_ZERO = 1e-6


def blocks_of(matrix: Tensor, grid: BlockGrid) -> Iterator[Tensor]:
    """Yield the weights of each block, flat.

    Parameters
    ----------
    matrix : Tensor of shape (rows, columns)
        Weights, or what was made of them.
    grid : BlockGrid
        Tells the blocks.
    """
    rows, columns = matrix.shape
    own_rows = 1 if grid.table is None else len(grid.table)
    height = rows if max(len(grid.scale), own_rows) == 1 else grid.block_rows
    width = columns if grid.scale.shape[1] == 1 else grid.group_size
    for band in matrix.split(height):
        yield from (part.flatten() for part in band.split(width, dim=1))


def at_most_so_many_levels(case: Case) -> None:
    """Make sure that no block holds more values than codes of the asked bits can tell apart."""
    most = 2**case.bits
    found = max(len(block.unique()) for block in blocks_of(case.quantized, case.grid))
    if found > most:
        raise BrokenError(f"{found} values in one block (allowed: at most {most})")


def on_the_grid(case: Case) -> None:
    """Make sure that codes are whole numbers of the levels, and rounded weights what they stand for, to the bit."""
    codes, levels = case.codes, case.grid.levels
    wrong = (codes != codes.round()) | (codes < levels.quant_min) | (codes > levels.quant_max)
    if wrong.any():
        allowed = f"whole numbers from {levels.quant_min} to {levels.quant_max}"
        raise BrokenError(f"a code of {float(codes[wrong][0]):g} (allowed: {allowed})")
    if not torch.isfinite(case.quantized).all():
        raise BrokenError("a rounded weight that is not finite")
    meant = dequantize(codes, case.grid)
    off = meant != case.quantized
    if off.any():
        raise BrokenError(
            f"a weight rounded to {float(case.quantized[off][0]):g}, and its code stands for {float(meant[off][0]):g}"
        )


def rounding_twice_changes_nothing(case: Case) -> None:
    """Make sure that a weight that is on the grid stays there, to the bit."""
    again = fake_quantize(case.quantized, case.grid)
    moved = again != case.quantized
    if moved.any():
        where = moved.nonzero()[0].tolist()
        raise BrokenError(
            f"{int(moved.sum())} rounded weights moved again, that at {where} "
            f"from {float(case.quantized[moved][0]):g} to {float(again[moved][0]):g}"
        )


def _zero_is_a_level(case: Case) -> bool:
    levels = case.grid.levels
    if isinstance(levels, IntegerGrid):
        return not levels.real_zero_point
    if isinstance(levels, LevelTable):
        return 0.0 in levels.values
    return case.grid.table is not None and bool((case.grid.table == 0).any(dim=1).all())


def zero_stays_zero(case: Case) -> None:
    """Make sure that 0 becomes 0, on every grid that has the level: pruned weights stay pruned."""
    if not _zero_is_a_level(case):
        raise UnableError("0 is no level of its grids")
    rounded = fake_quantize(torch.zeros_like(case.weight), case.grid)
    if rounded.any():
        raise BrokenError(f"0 became {float(rounded[rounded != 0][0]):g} (allowed: 0, which is a level)")


def all_zero_blocks_stay(case: Case) -> None:
    """Make sure that an all-zero block becomes 0, or next to it where 0 is no level: dead channels stay dead."""
    pairs = zip(blocks_of(case.weight, case.grid), blocks_of(case.quantized, case.grid), strict=True)
    found = [rounded.abs().max() for block, rounded in pairs if not block.any()]
    if not found:
        raise UnableError("no block is all zero")
    largest, most = float(torch.stack(found).max()), 0.0 if _zero_is_a_level(case) else _NEXT_TO_ZERO
    if not largest <= most:
        raise BrokenError(f"zeros became {largest:g} (allowed: {most:g})")


def constant_blocks_stay(case: Case) -> None:
    """Make sure that a block of one value keeps at least half of it, and at 1 bit is not worse off than left out."""
    pairs = zip(blocks_of(case.weight, case.grid), blocks_of(case.quantized, case.grid), strict=True)
    tried, share = False, 1.0 if case.bits == 1 else 0.5
    least = float(case.weight.abs().max()) * _IN_REACH if case.quantizer.shares_scale_unit else 0.0
    for block, rounded in pairs:
        value = float(block[0])
        if abs(value) > least and len(block) > 1 and bool((block == block[0]).all()):
            tried = True
            error = float((rounded - block).abs().max())
            if not error <= share * abs(value) * (1 + 1e-6):
                raise BrokenError(f"a block of {value:g} became {float(rounded[0]):g} (allowed error: {share:g} of it)")
    if not tried:
        raise UnableError("no block is constant")


def error_is_sane(case: Case) -> None:
    """Make sure that the squared error is not above that of the coarsest sane grid, by more than half of it.

    That grid is, at 1 and 2 bits, none at all: every weight is left out. From 3 bits on it is one symmetric integer
    grid of 2 bits for the whole matrix, over the range with the least squared error. More bits are not asked to be
    better than that: a rule may clip much at any bits, to a low percentile or to the second largest weight of a block,
    and what is clipped costs the same in 8 bits as in 3. It is tried on weights that are spread as those of trained
    layers are; elsewhere a rule may have reasons to give up outliers.
    """
    error = (case.quantized - case.weight).double().square().sum()
    allowed = case.weight.double().square().sum()
    told = "all weights left out"
    if case.bits > 2:
        levels, flat = IntegerGrid(2, symmetric=True), case.weight.reshape(1, -1)
        allowed = rounding_error(flat, best_shrunk_range(flat, levels), levels).double().sum()
        told = "the best 2 bits for the whole matrix"
    if not error <= allowed * _LEEWAY:
        most = f"{float(allowed) * _LEEWAY:.4g}, half above that of {told}"
        raise BrokenError(f"a squared error of {float(error):.4g} (allowed: {most})")


ROUNDING = (
    Property("at most 2^bits levels a block", at_most_so_many_levels),
    Property("rounded weights are on the grid", on_the_grid),
    Property("rounding twice changes nothing", rounding_twice_changes_nothing),
    Property("zero stays zero", zero_stays_zero),
    Property("all-zero blocks stay zero", all_zero_blocks_stay),
    Property("constant blocks keep their value", constant_blocks_stay),
    Property("error not above the coarsest sane grid's", error_is_sane, lambda case: case.matrix.is_plain),
)
