"""Quantizers that are broken, each in one way."""

from __future__ import annotations

import random
from itertools import count
from typing import Any, ClassVar

import torch
from pydantic import field_serializer
from torch import Tensor

from qbench.quant.grid import IntegerGrid
from qbench.quant.levels import Codebook, Levels, LevelTable
from qbench.quant.qparams import QParams
from qbench.quant.scale_format import PowerOfTwo, ScaleFormat
from qbench.quant.snapping import IntegerSnapping
from qbench.quantizers.base import Quantizer

PACKED = "packed and read back to the bit"


class Sound(Quantizer):
    """Largest magnitude; each broken one changes one thing of it."""

    allowed_bits: ClassVar[range | tuple[int, ...]] = (2, 4)

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        low, high = blocks.aminmax(dim=1, keepdim=True)
        return QParams.from_range(low, high, grid)


class RaisesAtTwoBits(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        if grid.bits == 2:
            raise ValueError("no luck\nat all")
        return super().choose_qparams(blocks, grid)


class Leaves(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        raise SystemExit(3)


class NoLevels(Sound):
    def levels(self, bits: int) -> Levels:
        raise ValueError("no levels today")


class CannotSayWhichBits(Sound):
    def refuses(self, bits: int) -> str | None:
        raise ValueError("cannot say")


class GivesATuple(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> Any:
        found = super().choose_qparams(blocks, grid)
        return found.scale, found.zero_point


class FlatScale(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale.flatten())


class OneScaleForAll(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale.mean())


class NoScaleForZeros(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        scale = super().choose_qparams(blocks, grid).scale
        return QParams(scale * (blocks != 0).any(dim=1, keepdim=True))


class ZeroPointOfHalf(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        scale = super().choose_qparams(blocks, grid).scale
        return QParams(scale, scale * 0 + 0.5)


class Clips(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        found = super().choose_qparams(blocks, grid)
        blocks.clamp_(-0.5, 0.5)
        return found


class WearsOutTheMoments(Sound):
    sees_inputs: ClassVar[bool] = True

    def choose_qparams(self, blocks: Tensor, grid: Levels, importance: Tensor | None = None) -> QParams:
        assert importance is not None and importance.shape == blocks.shape
        importance.sqrt_()
        return super().choose_qparams(blocks, grid)


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


class FourTimesTooCoarse(Sound):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (4,)

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale * 4)


CALLS = count()


class Counts(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale * (1 + 1e-4 * (next(CALLS) % 7)))


class Draws(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale * (1 + 1e-3 * float(torch.rand(()))))


class DrawsInVain(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        random.random()
        return super().choose_qparams(blocks, grid)


class SeesTheOthers(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale * (1 + 0.01 * len(blocks) ** 0.5))


class GoesByTheDefaultType(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        (blocks @ torch.ones(blocks.shape[1], 1)).sum()
        return super().choose_qparams(blocks, grid)


class MasksHalfOfItsLevels(Quantizer):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (3,)

    def levels(self, bits: int) -> Levels:
        return LevelTable(bits, (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0), "short", range_end=0.5)

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(blocks.abs().amax(dim=1, keepdim=True).clamp(min=1e-30))


class ForgetsItsShare(Sound):
    share: float = 0.75

    @field_serializer("share")
    def _rounded(self, share: float) -> float:
        return round(share)


class VersionInWords(Sound):
    version: ClassVar[Any] = "two"


class NamesNoModule(Sound):
    sources: ClassVar[tuple[str, ...]] = ("qbench.no_such_module",)


class RefusesWithoutAWord(Sound):
    def refuses(self, bits: int) -> str | None:
        return "" if bits == 3 else super().refuses(bits)


class RefusesAll(Sound):
    def refuses(self, bits: int) -> str | None:
        return "not today"


class DriftingFormat(PowerOfTwo):
    def round(self, scale: Tensor) -> Tensor:
        return super().round(scale * 1.6)


class ScalesThatDrift(Sound):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (8,)

    def scale_format(self, scale: Tensor) -> ScaleFormat:
        return DriftingFormat()


class VanishingFormat(PowerOfTwo):
    def round(self, scale: Tensor) -> Tensor:
        return scale * 0


class ScalesThatVanish(Sound):
    def scale_format(self, scale: Tensor) -> ScaleFormat:
        return VanishingFormat()


class OfCodebooks(Quantizer):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (2, 3)

    def levels(self, bits: int) -> Levels:
        return Codebook(bits)

    def choose_table(self, blocks: Tensor, grid: Levels) -> Tensor:
        low, high = blocks.aminmax(dim=1, keepdim=True)
        return low + (high - low) * torch.arange(grid.count, dtype=blocks.dtype) / grid.quant_max


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


BROKEN: dict[type[Quantizer], set[str]] = {
    RaisesAtTwoBits: {"raises nothing"},
    Leaves: {"raises nothing"},
    NoLevels: {"raises nothing"},
    CannotSayWhichBits: {"raises nothing"},
    GivesATuple: {"returns parameters"},
    TableAsAList: {"returns parameters"},
    FlatScale: {"parameters have a row a block"},
    OneScaleForAll: {"parameters have a row a block"},
    OneLevelShort: {"parameters have a row a block"},
    NoScaleForZeros: {"scales are positive and finite"},
    ScalesThatVanish: {"scales are positive and finite"},
    ScalesThatDrift: {"scales are numbers of their format"},
    FallingLevels: {"levels of a codebook rise"},
    ZeroPointOfHalf: {"zero points are among the levels'"},
    Clips: {"its input stays as it was"},
    WearsOutTheMoments: {"its input stays as it was"},
    SortsItsInput: {"its input stays as it was"},
    OneBitMore: {"at most 2^bits levels a block"},
    # Levels of a stranger's own class cannot be stored, so these are told that too.
    BesideTwo: {"rounded weights are on the grid", PACKED},
    ShrinksEachTime: {"rounding twice changes nothing", PACKED},
    NeverZero: {"zero stays zero", "all-zero blocks stay zero", PACKED},
    LevelsOfAnUnknownClass: {PACKED},
    WakesTheDead: {"all-zero blocks stay zero"},
    BlowsUpConstants: {"constant blocks keep their value"},
    FourTimesTooCoarse: {"error not above the coarsest sane grid's"},
    Counts: {"the same when asked twice"},
    Draws: {"no chance from outside"},
    DrawsInVain: {"no chance from outside"},
    SeesTheOthers: {"each block on its own"},
    GoesByTheDefaultType: {"the default dtype changes nothing"},
    MasksHalfOfItsLevels: {"gradients pass straight through"},
    ForgetsItsShare: {"options survive JSON"},
    VersionInWords: {"version and sources are declared"},
    NamesNoModule: {"version and sources are declared"},
    RefusesWithoutAWord: {"refusals are reasons"},
    RefusesAll: {"has a grid"},
}
