"""Quantizers whose levels are broken, each in one way."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from qbench.quant.grid import IntegerGrid
from qbench.quant.levels import Levels, LevelTable
from qbench.quant.qparams import QParams
from qbench.quant.snapping import IntegerSnapping
from qbench.quantizers.base import Quantizer

from .sound_quantizers import OfCodebooks, Sound

LEVELS = "levels rise and fit into the bits"
PACKED = "packed and read back to the bit"
STATE = "leaves torch's global state as it was"


class OneBitMore(Sound):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (2, 4)

    def levels(self, bits: int) -> Levels:
        return IntegerGrid(bits + 1, symmetric=True)


class _Snapping(IntegerSnapping):
    """Changes values after they were rounded."""

    def snap(self, positions: Tensor, out: Tensor) -> Tensor:
        given = positions.clone()
        return out.copy_(self.changed(given, super().snap(positions, out)))

    def changed(self, positions: Tensor, values: Tensor) -> Tensor:
        return values


class _Grid(IntegerGrid):
    """Integers with a snapping of their own."""

    snaps: ClassVar[type[_Snapping]] = _Snapping

    def snapping(self, zero_point: Tensor, table: Tensor | None = None) -> IntegerSnapping:
        return self.snaps((float(self.quant_min), float(self.quant_max)), None, None, None)


class _OfOwnLevels(Sound):
    grid: ClassVar[type[_Grid]] = _Grid

    def levels(self, bits: int) -> Levels:
        return self.grid(bits, symmetric=True)


class LevelsOfAnUnknownClass(_OfOwnLevels):
    pass


class BesideTwo(_OfOwnLevels):
    class Grid(_Grid):
        class Snaps(_Snapping):
            def changed(self, positions: Tensor, values: Tensor) -> Tensor:
                return torch.where(values == 2, 2.25, values)

        snaps = Snaps

    grid = Grid


class ShrinksEachTime(_OfOwnLevels):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (8,)

    class Grid(_Grid):
        class Snaps(_Snapping):
            def changed(self, positions: Tensor, values: Tensor) -> Tensor:
                return (positions * 0.95).round().clamp(*self.bounds)

        snaps = Snaps

    grid = Grid


class NeverZero(_OfOwnLevels):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (8,)

    class Grid(_Grid):
        class Snaps(_Snapping):
            def changed(self, positions: Tensor, values: Tensor) -> Tensor:
                return torch.where(values == 0, 1.0, values)

        snaps = Snaps

    grid = Grid


class _TwoLevels(Quantizer):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (1,)

    def levels(self, bits: int) -> Levels:
        return LevelTable(bits, (-1.0, 1.0), "signs")


class WakesTheDead(_TwoLevels):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        scale = blocks.abs().mean(dim=1, keepdim=True)
        return QParams(torch.where(scale == 0, 1.0, scale))


class BlowsUpConstants(_TwoLevels):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        scale = blocks.abs().mean(dim=1, keepdim=True).clamp(min=1e-30)
        same = (blocks == blocks[:, :1]).all(dim=1, keepdim=True)
        return QParams(torch.where(same, scale * 3, scale))


class MasksHalfOfItsLevels(Quantizer):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (3,)

    def levels(self, bits: int) -> Levels:
        return LevelTable(bits, (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0), "short", range_end=0.5)

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(blocks.abs().amax(dim=1, keepdim=True).clamp(min=1e-30))


class NoLevels(Sound):
    def levels(self, bits: int) -> Levels:
        raise ValueError("no levels today")


class FallingLevels(OfCodebooks):
    def choose_table(self, blocks: Tensor, grid: Levels) -> Tensor:
        return super().choose_table(blocks, grid).flip(1)


class InfiniteLevels(OfCodebooks):
    def choose_table(self, blocks: Tensor, grid: Levels) -> Tensor:
        table = super().choose_table(blocks, grid)
        return torch.where(torch.arange(grid.count) == grid.quant_max, torch.inf, table)


class OneLevelShort(OfCodebooks):
    def choose_table(self, blocks: Tensor, grid: Levels) -> Tensor:
        return super().choose_table(blocks, grid)[:, 1:]


class TableAsAList(OfCodebooks):
    def choose_table(self, blocks: Tensor, grid: Levels) -> Any:
        return super().choose_table(blocks, grid).tolist()


class SortsItsInput(OfCodebooks):
    def choose_table(self, blocks: Tensor, grid: Levels) -> Tensor:
        found = super().choose_table(blocks, grid)
        blocks.copy_(blocks.sort(dim=1).values)
        return found


class FourLevelsTooMany(Sound):
    def levels(self, bits: int) -> Levels:
        return LevelTable(bits, tuple(float(value) for value in range(2**bits + 4)), "many")


class UnsortedTable(Sound):
    def levels(self, bits: int) -> Levels:
        return LevelTable(bits, (1.0, 0.0, -1.0), "unsorted")


class InfiniteTable(Sound):
    def levels(self, bits: int) -> Levels:
        return LevelTable(bits, (-1.0, 0.0, math.inf), "endless")


class FewerBitsThanAsked(Sound):
    def levels(self, bits: int) -> Levels:
        return IntegerGrid(bits - 1, symmetric=False)


class LevelsAsANumber(Sound):
    def levels(self, bits: int) -> Any:
        return 5


class CountsTooMany(_OfOwnLevels):
    class Grid(_Grid):
        @property
        def quant_max(self) -> int:
            return (1 << self.bits) + 3

    grid = Grid


class RoundsToHalves(_OfOwnLevels):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (2,)

    class Grid(_Grid):
        class Snaps(_Snapping):
            def changed(self, positions: Tensor, values: Tensor) -> Tensor:
                return (positions * 2).round().clamp(-4, 4) / 2

        snaps = Snaps

    grid = Grid


class LevelsThatSwitchGradientsOff(_OfOwnLevels):
    class Grid(_Grid):
        class Snaps(_Snapping):
            def changed(self, positions: Tensor, values: Tensor) -> Tensor:
                torch.set_grad_enabled(False)
                return values

        snaps = Snaps

    grid = Grid


BROKEN_LEVELS: dict[type[Quantizer], set[str]] = {
    NoLevels: {"raises nothing"},
    OneBitMore: {LEVELS},
    FewerBitsThanAsked: {LEVELS},
    CountsTooMany: {LEVELS},
    FourLevelsTooMany: {LEVELS},
    UnsortedTable: {LEVELS},
    InfiniteTable: {LEVELS},
    LevelsAsANumber: {LEVELS},
    TableAsAList: {"returns parameters"},
    OneLevelShort: {"parameters have a row a block"},
    FallingLevels: {"levels of a codebook rise"},
    InfiniteLevels: {"levels of a codebook rise"},
    SortsItsInput: {"its input stays as it was"},
    WakesTheDead: {"all-zero blocks stay zero"},
    BlowsUpConstants: {"constant blocks keep their value"},
    MasksHalfOfItsLevels: {"gradients pass straight through"},
    # Levels of a stranger's own class cannot be stored, so these are told that too.
    BesideTwo: {"rounded weights are on the grid", PACKED},
    RoundsToHalves: {"at most 2^bits levels a block", "rounded weights are on the grid", PACKED},
    ShrinksEachTime: {"rounding twice changes nothing", PACKED},
    NeverZero: {"zero stays zero", "all-zero blocks stay zero", PACKED},
    LevelsThatSwitchGradientsOff: {STATE, "gradients pass straight through", PACKED},
    LevelsOfAnUnknownClass: {PACKED},
}
