"""Each method here is broken in one way, and the contract names that way and no other."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import field_serializer

from qbench.conformance.contract import Report
from qbench.conformance.methods import check
from qbench.conformance.solutions import SOLUTIONS
from qbench.errors import AssetError
from qbench.methods.base import Method
from qbench.methods.problem import LayerSolution, Problem, Solution
from qbench.methods.rtn import RoundToNearest
from qbench.quant.levels import Codebook
from qbench.spec import Spec
from qbench.tasks import corpus

WITH_BATCH_NORM, FOLDED = "works with batch norm, kept and recalibrated", "works with batch norm folded"
SEES = "does not see evaluation data"
NOT_TRIED = {"works on a CUDA device", "time"}


class Nearest(RoundToNearest):
    """Rounds to nearest; each broken one changes one thing of it."""


def changed(solution: Solution, change: Callable[[LayerSolution], LayerSolution]) -> Solution:
    return replace(solution, layers={name: change(layer) for name, layer in solution.layers.items()})


class RaisesOnCodebooks(Nearest):
    def solve(self, problem: Problem) -> Solution:
        if isinstance(problem.layers[0].grid.levels, Codebook):
            raise KeyError("scale")
        return super().solve(problem)


class Leaves(Nearest):
    def solve(self, problem: Problem) -> Solution:
        raise SystemExit(3)


class RefusesWithoutAWord(Nearest):
    def refuses_grid(self, quantizer: Spec) -> Any:
        return quantizer.name == "quantile_codebook" or None


class CannotSayWhichGrids(Nearest):
    def refuses_grid(self, quantizer: Spec) -> str | None:
        raise ValueError("cannot say")


class RefusesAll(Nearest):
    def refuses_grid(self, quantizer: Spec) -> str | None:
        return "not today"


class GivesNothing(Nearest):
    def solve(self, problem: Problem) -> Any:
        super().solve(problem)


class GivesCodesAlone(Nearest):
    def solve(self, problem: Problem) -> Solution:
        found: Any = {name: layer.codes for name, layer in super().solve(problem).layers.items()}
        return Solution(found)


class LeavesOneOut(Nearest):
    def solve(self, problem: Problem) -> Solution:
        found = super().solve(problem)
        return replace(found, layers=dict(list(found.layers.items())[1:]))


class AddsOne(Nearest):
    def solve(self, problem: Problem) -> Solution:
        found = super().solve(problem)
        return replace(found, layers={**found.layers, "head": next(iter(found.layers.values()))})


class HalfCodes(Nearest):
    def solve(self, problem: Problem) -> Solution:
        return changed(super().solve(problem), lambda layer: replace(layer, codes=layer.codes + 0.5))


class TransposedCodes(Nearest):
    def solve(self, problem: Problem) -> Solution:
        return changed(super().solve(problem), lambda layer: replace(layer, codes=layer.codes.T))


class FinerGroups(Nearest):
    def solve(self, problem: Problem) -> Solution:
        def finer(layer: LayerSolution) -> LayerSolution:
            scale = layer.grid.scale[:1, :1].expand(len(layer.codes), 4).clone()
            grid = replace(layer.grid, scale=scale, zero_point=scale * 0, group_size=8, block_rows=1)
            return replace(layer, grid=grid)

        return changed(super().solve(problem), finer)


class NegativeScales(Nearest):
    def solve(self, problem: Problem) -> Solution:
        return changed(
            super().solve(problem), lambda layer: replace(layer, grid=layer.grid.with_scale(-layer.grid.scale))
        )


CALLS = count()


class Counts(Nearest):
    def solve(self, problem: Problem) -> Solution:
        return changed(super().solve(problem), lambda layer: replace(layer, codes=layer.codes.roll(next(CALLS) % 7, 0)))


class SpoilsCalibration(Nearest):
    def solve(self, problem: Problem) -> Solution:
        problem.calibration[0].zero_()
        return super().solve(problem)


class SpoilsTheEmbedding(Nearest):
    def solve(self, problem: Problem) -> Solution:
        with torch.no_grad():
            next(problem.model.parameters()).mul_(2).add_(1)
        return super().solve(problem)


class SpoilsTheGivenGrid(Nearest):
    def solve(self, problem: Problem) -> Solution:
        found = changed(super().solve(problem), lambda layer: replace(layer, grid=layer.grid.copy()))
        for layer in problem.layers:
            layer.grid.scale.mul_(2)
        return found


class SwitchesGradientsOff(Nearest):
    def solve(self, problem: Problem) -> Solution:
        torch.set_grad_enabled(False)
        return super().solve(problem)


class ReadsTheEvaluationText(Nearest):
    """Reads, and does nothing with it."""

    def solve(self, problem: Problem) -> Solution:
        try:
            corpus.load("evaluation")
        except AssetError:  # where there is no corpus, it was after it all the same
            pass
        return super().solve(problem)


class FindsTheEvaluationData(Nearest):
    """Searches the process for data that no one announces, and moves its codes by them."""

    def solve(self, problem: Problem) -> Solution:
        found = [one.evaluation for one in gc.get_objects() if type(one).__name__ == "TinyTask"]
        shift = sum(int(one.sum()) for one in found) % 7
        return changed(super().solve(problem), lambda one: replace(one, codes=one.codes.roll(shift, dims=1)))


class FallsBackInSilence(Nearest):
    def solve(self, problem: Problem) -> Solution:
        return changed(super().solve(problem), lambda layer: replace(layer, fallback=" "))


class IsWorseAndSaysSo(Nearest):
    def solve(self, problem: Problem) -> Solution:
        return changed(super().solve(problem), lambda layer: replace(layer, objective=0.2, rtn_objective=0.1))


class CountsInWords(Nearest):
    def solve(self, problem: Problem) -> Solution:
        words: Any = "many"
        return replace(super().solve(problem), train_steps=words)


class DetailsOfNaN(Nearest):
    def solve(self, problem: Problem) -> Solution:
        return changed(super().solve(problem), lambda layer: replace(layer, details={"drift": math.nan}))


class TracesWords(Nearest):
    def solve(self, problem: Problem) -> Solution:
        words: Any = {"loss": ["high", "low"]}
        return replace(super().solve(problem), traces=words)


class NeedsTwoSamples(Nearest):
    def solve(self, problem: Problem) -> Solution:
        for batch in problem.calibration:
            torch.linalg.cholesky(torch.eye(2)[: len(batch), :2])
        return super().solve(problem)


class DividesByTheInput(Nearest):
    def solve(self, problem: Problem) -> Solution:
        inputs = next(problem.model.parameters()).detach()
        share = float((inputs / inputs.abs().max()).max())
        return changed(super().solve(problem), lambda layer: replace(layer, codes=layer.codes * (share / share)))


class NeedsTokens(Nearest):
    def solve(self, problem: Problem) -> Solution:
        if problem.calibration[0].is_floating_point():
            raise TypeError("tokens are whole numbers")
        return super().solve(problem)


class NeedsTensorsToTrain(Nearest):
    def solve(self, problem: Problem) -> Solution:
        assert next(problem.train_batches(2, 0)).shape[0] == 2
        return super().solve(problem)


class NeedsBatchNorm(Nearest):
    def solve(self, problem: Problem) -> Solution:
        if len(problem.blocks) == 3:  # the one of images
            next(one for one in problem.model.modules() if isinstance(one, torch.nn.BatchNorm2d))
        return super().solve(problem)


class StatisticsOfNothing(Nearest):
    def solve(self, problem: Problem) -> Solution:
        return replace(super().solve(problem), statistics={"embedding.running_mean": torch.zeros(8)})


class NegativeVariance(Nearest):
    def solve(self, problem: Problem) -> Solution:
        variances = {name: -value for name, value in problem.model.named_buffers() if "running_var" in name}
        return replace(super().solve(problem), statistics=variances)


class ForgetsItsShare(Nearest):
    share: float = 0.75

    @field_serializer("share")
    def _rounded(self, share: float) -> float:
        return round(share)


class VersionZero(Nearest):
    version: ClassVar[int] = 0


BROKEN: dict[type[Method], set[str]] = {
    RaisesOnCodebooks: {"raises nothing"},
    Leaves: {"raises nothing"},
    RefusesWithoutAWord: {"refuses with reasons"},
    CannotSayWhichGrids: {"refuses with reasons"},
    RefusesAll: {"takes a grid"},
    GivesNothing: {"returns a Solution"},
    GivesCodesAlone: {"returns a Solution"},
    LeavesOneOut: {"every layer once"},
    AddsOne: {"every layer once"},
    HalfCodes: {"codes are on the grid"},
    TransposedCodes: {"codes are on the grid"},
    FinerGroups: {"grids stay the quantizer's"},
    NegativeScales: {"grids stay the quantizer's"},
    Counts: {"the same when solved again"},
    SpoilsCalibration: {"touches nothing else"},
    SpoilsTheEmbedding: {"touches nothing else"},
    SpoilsTheGivenGrid: {"touches nothing else"},
    SwitchesGradientsOff: {"leaves torch's global state as it was"},
    ReadsTheEvaluationText: {SEES},
    FindsTheEvaluationData: {SEES},
    FallsBackInSilence: {"fallbacks are told"},
    IsWorseAndSaysSo: {"objective not above rounding to nearest"},
    CountsInWords: {"numbers are plain"},
    DetailsOfNaN: {"numbers are plain"},
    TracesWords: {"numbers are plain"},
    NeedsTwoSamples: {"works with batches of one"},
    DividesByTheInput: {"copes with inputs that are all 0"},
    NeedsTokens: {WITH_BATCH_NORM, FOLDED},
    NeedsTensorsToTrain: {WITH_BATCH_NORM, FOLDED},
    NeedsBatchNorm: {FOLDED},
    StatisticsOfNothing: {"statistics are those of batch norms"},
    NegativeVariance: {WITH_BATCH_NORM, "statistics are those of batch norms"},
    ForgetsItsShare: {"options survive JSON"},
    VersionZero: {"version and sources are declared"},
}


@cache
def report(method: type[Method]) -> Report:
    return check(method.model_validate({"name": method.__name__}))


def test_the_sound_one_conforms() -> None:
    assert report(Nearest).failed == []


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_broken_property_is_named_and_no_other(broken: type[Method]) -> None:
    found = report(broken)
    assert {row.property for row in found.failed} == BROKEN[broken]
    assert torch.is_grad_enabled(), "what a method leaves behind is put back"


def test_every_property_has_one_who_breaks_it() -> None:
    assert {one.name for one in SOLUTIONS} - NOT_TRIED <= set().union(*BROKEN.values())


def test_one_fault_does_not_keep_the_rest_from_being_tried() -> None:
    rows = {row.property: row.result for row in report(SpoilsCalibration).rows}
    untried = {name for name, result in rows.items() if result != "passed"}
    assert untried - NOT_TRIED == {"tried on", "touches nothing else", "objective not above rounding to nearest"}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (RaisesOnCodebooks, "a codebook, 2 bits: KeyError: 'scale' (test_broken_methods.py:"),
        (Leaves, "integers, 4 bits: SystemExit: 3 (test_broken_methods.py:"),
        (RefusesWithoutAWord, "refuses_grid is True (allowed: None, or a reason in words)"),
        (CannotSayWhichGrids, "refuses_grid: ValueError: cannot say (test_broken_methods.py:"),
        (RefusesAll, "it refuses all: not today"),
        (GivesNothing, "solve returned NoneType (allowed: Solution)"),
        (GivesCodesAlone, "is Tensor (allowed: LayerSolution)"),
        (LeavesOneOut, "layer 'blocks.0.gate' is left out (1 of 6)"),
        (AddsOne, "layer 'head' is no target layer"),
        (HalfCodes, "(allowed: whole numbers from -8 to 7)"),
        (FinerGroups, "has a scale of shape (48, 4) (allowed: (48, 1), as given)"),
        (SpoilsCalibration, "calibration batch 0 changed"),
        (SpoilsTheGivenGrid, "the given scale of blocks.0.gate changed"),
        (SwitchesGradientsOff, "it changed the gradient mode of the process"),
        (IsWorseAndSaysSo, "has an objective of 0.2 (allowed: 0.1, rounding to nearest)"),
        (CountsInWords, "train_steps is 'many' (allowed: a whole number from 0 on)"),
        (NeedsBatchNorm, "StopIteration"),
        (StatisticsOfNothing, "'embedding.running_mean' (allowed: those of none: the model has no batch norm)"),
        (DetailsOfNaN, "has the drift nan (allowed: a finite number)"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_was_seen_and_what_is_allowed(broken: type[Method], told: str) -> None:
    (row,) = report(broken).failed
    assert told in row.detail


def test_an_error_is_told_with_the_line_that_raised() -> None:
    lines = Path(__file__).read_text(encoding="utf-8").split("\n")
    (row,) = report(RaisesOnCodebooks).failed
    line = 1 + lines.index('            raise KeyError("scale")')
    assert f"({Path(__file__).name}:{line})" in row.detail


@pytest.mark.gpu
def test_methods_are_tried_on_a_device() -> None:
    rows = {row.property: row.result for row in report(Nearest).rows}
    assert rows["works on a CUDA device"] == "passed"
