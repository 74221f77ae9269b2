"""Quantizers that are broken, each in one way; those whose levels are broken are in `broken_levels`."""

from __future__ import annotations

import random
from itertools import count
from typing import Any, ClassVar

import torch
from pydantic import field_serializer
from torch import Tensor

from qbench.errors import AssetError
from qbench.quant.levels import Levels
from qbench.quant.qparams import QParams
from qbench.quant.scale_format import Float32, PowerOfTwo, ScaleFormat
from qbench.quantizers.base import Quantizer
from qbench.tasks.text import ThreeTexts

from .broken_levels import BROKEN_LEVELS, PACKED, STATE
from .sound_quantizers import Sound


class RaisesAtTwoBits(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        if grid.bits == 2:
            raise ValueError("no luck\nat all")
        return super().choose_qparams(blocks, grid)


class Leaves(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        raise SystemExit(3)


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


class EightTimesTooCoarse(Sound):
    allowed_bits: ClassVar[range | tuple[int, ...]] = (4,)

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale * 8)


CALLS = count()


class Counts(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale * (1 + 1e-4 * (next(CALLS) % 7)))


class Draws(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale * (1 + 1e-3 * float(torch.rand(()))))


class ReadsTheEvaluationText(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        try:
            ThreeTexts().documents("evaluation")
        except AssetError:  # where there is no corpus, it was after it all the same
            pass
        return super().choose_qparams(blocks, grid)


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


class NoNumbersForScales(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale * torch.nan)


class ScalesForFree(Sound):
    def scale_format(self, scale: Tensor) -> ScaleFormat:
        return Float32(bits=0)


class SwitchesGradientsOff(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        torch.set_grad_enabled(False)
        return super().choose_qparams(blocks, grid)


class SwitchesTheDefaultType(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        torch.set_default_dtype(torch.float64)
        return super().choose_qparams(blocks, grid)


class SwitchesDeterminism(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
        return super().choose_qparams(blocks, grid)


class TakesAllThreads(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        torch.set_num_threads(2)
        return super().choose_qparams(blocks, grid)


class SeedsTheGenerators(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        torch.manual_seed(0)
        return super().choose_qparams(blocks, grid)


class RefusesAndSwitches(Sound):
    def refuses(self, bits: int) -> str | None:
        torch.set_grad_enabled(False)
        return super().refuses(bits)


BROKEN: dict[type[Quantizer], set[str]] = {
    RaisesAtTwoBits: {"raises nothing"},
    Leaves: {"raises nothing"},
    CannotSayWhichBits: {"raises nothing"},
    GivesATuple: {"returns parameters"},
    FlatScale: {"parameters have a row a block"},
    OneScaleForAll: {"parameters have a row a block"},
    NoScaleForZeros: {"scales are positive and finite"},
    ScalesThatVanish: {"scales are positive and finite"},
    ScalesThatDrift: {"scales are numbers of their format"},
    ZeroPointOfHalf: {"zero points are among the levels'"},
    Clips: {"its input stays as it was"},
    WearsOutTheMoments: {"its input stays as it was"},
    EightTimesTooCoarse: {"error not above the coarsest sane grid's"},
    Counts: {"the same when asked twice"},
    ReadsTheEvaluationText: {"does not see evaluation data"},
    Draws: {"no chance from outside"},
    DrawsInVain: {"no chance from outside"},
    SeesTheOthers: {"each block on its own"},
    GoesByTheDefaultType: {"the default dtype changes nothing"},
    ForgetsItsShare: {"options survive JSON"},
    VersionInWords: {"version and sources are declared"},
    NamesNoModule: {"version and sources are declared"},
    RefusesWithoutAWord: {"refusals are reasons"},
    RefusesAll: {"has a grid"},
    NoNumbersForScales: {"scales are positive and finite"},
    ScalesForFree: {PACKED},
    SwitchesGradientsOff: {STATE},
    SeedsTheGenerators: {"no chance from outside"},
    SwitchesTheDefaultType: {STATE},
    SwitchesDeterminism: {STATE},
    TakesAllThreads: {STATE},
    RefusesAndSwitches: {STATE},
    **BROKEN_LEVELS,
}
