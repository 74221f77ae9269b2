"""Of each broken quantizer the contract names what is broken, and nothing else."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qbench.conformance.contract import Report
from qbench.conformance.deployment import DEPLOYMENT
from qbench.conformance.quantizers import PROPERTIES, check
from qbench.conformance.repetition import REPETITION
from qbench.conformance.rounding import ROUNDING
from qbench.quant.levels import Levels
from qbench.quant.qparams import QParams
from qbench.quantizers.base import IntegerQuantizer, Quantizer
from qbench.quantizers.percentile import Percentile

from . import broken_quantizers
from .broken_levels import (
    BlowsUpConstants,
    CountsTooMany,
    FewerBitsThanAsked,
    FourLevelsTooMany,
    InfiniteTable,
    LevelsAsANumber,
    OneBitMore,
    RoundsToHalves,
    UnsortedTable,
    WakesTheDead,
)
from .broken_quantizers import (
    BROKEN,
    Clips,
    Draws,
    EightTimesTooCoarse,
    FlatScale,
    ForgetsItsShare,
    GivesATuple,
    Leaves,
    NamesNoModule,
    NoNumbersForScales,
    NoScaleForZeros,
    RaisesAtTwoBits,
    RefusesAll,
    RefusesAndSwitches,
    ScalesForFree,
    SeesTheOthers,
    SwitchesDeterminism,
    SwitchesTheDefaultType,
    TakesAllThreads,
    VersionInWords,
    ZeroPointOfHalf,
)
from .sound_quantizers import OfCodebooks, Sound

# What no broken quantizer fails on a machine without CUDA, and what only informs.
NOT_TRIED = {"CPU and CUDA agree", "time"}


@cache
def report(quantizer: type[Quantizer]) -> Report:
    return check(quantizer.model_validate({"name": quantizer.__name__}))


def detail(quantizer: type[Quantizer]) -> str:
    (row,) = report(quantizer).failed
    return row.detail


@pytest.mark.parametrize("sound", [Sound, OfCodebooks])
def test_the_sound_ones_conform(sound: type[Quantizer]) -> None:
    assert report(sound).failed == []


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_broken_property_is_named_and_no_other(broken: type[Quantizer]) -> None:
    found = report(broken)
    assert {row.property for row in found.failed} == BROKEN[broken]
    assert found.name == broken.__name__ and all(name in found.verdict() for name in BROKEN[broken])


def test_every_property_has_one_who_breaks_it() -> None:
    assert {one.name for one in PROPERTIES} - NOT_TRIED <= set().union(*BROKEN.values())


def test_one_fault_does_not_keep_the_rest_from_being_tried() -> None:
    rows = {row.property: row for row in report(Clips).rows}
    assert rows.keys() >= {one.name for one in PROPERTIES}
    tried = {name for name, row in rows.items() if row.result == "passed"}
    assert {one.name for one in PROPERTIES} - tried == NOT_TRIED | {
        "its input stays as it was",
        "levels of a codebook rise",
    }


def test_what_cannot_be_tried_does_not_count_as_passed() -> None:
    rows = {row.property: row for row in report(GivesATuple).rows}
    assert rows["rounded weights are on the grid"].result == "skipped"
    assert rows["parameters have a row a block"].result == "skipped"
    assert rows["raises nothing"].result == "passed"
    partly = {row.property: row for row in report(RaisesAtTwoBits).rows}["rounding twice changes nothing"]
    assert partly.result == "passed" and "more left out: another property failed there" in partly.detail


def test_what_depends_on_mended_parameters_does_not_count_as_passed() -> None:
    rows = {row.property: row for row in report(NoNumbersForScales).rows}
    for name in (one.name for one in (*ROUNDING, *REPETITION, *DEPLOYMENT[:2])):
        assert rows[name].result == "skipped", name
        if name != "CPU and CUDA agree":
            assert rows[name].detail == "its scales are not positive finite numbers"
    assert rows["zero points are among the levels'"].result == "passed"


def test_cases_without_a_fault_are_counted_and_the_others_told() -> None:
    found = report(NoScaleForZeros)
    (broken,) = found.failed
    (rounded,) = [row for row in found.rows if row.property == "rounded weights are on the grid"]
    told = re.fullmatch(r"(\d+) cases \((\d+) more left out: another property failed there\)", rounded.detail)
    at_fault = re.search(r"and in (\d+) more of (\d+) cases", broken.detail)
    assert told and at_fault and rounded.result == "passed"
    assert int(told[2]) == int(at_fault[1]) + 1
    assert int(told[1]) + int(told[2]) == int(at_fault[2])


class FaultyWhenAskedAgain(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        broken = len(blocks) == 8  # every second row of 16
        return QParams(super().choose_qparams(blocks, grid).scale * (torch.nan if broken else 1))


def test_a_fault_in_a_later_answer_is_told() -> None:
    rows = {row.property: row for row in check(FaultyWhenAskedAgain(name="faulty"), [4]).failed}
    row = rows["each block on its own"]
    assert "when it was asked again: a scale of nan (allowed: positive finite numbers)" in row.detail


class SecondLargest(IntegerQuantizer):
    """Clips each block to its second largest magnitude."""

    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        largest = blocks.abs().topk(min(2, blocks.shape[1]), dim=1).values
        second = torch.where(largest[:, -1:] > 0, largest[:, -1:], largest[:, :1])
        return QParams.from_range(-second, second, grid)


@pytest.mark.parametrize(
    "clips",
    [
        SecondLargest.model_validate({"name": "second_largest", "granularity": {"per_group": 16}}),
        Percentile(name="percentile", q=90),
    ],
    ids=str,
)
def test_a_rule_may_clip_much_at_many_bits(clips: Quantizer) -> None:
    (row,) = [row for row in check(clips, [3, 8]).rows if row.property == "error not above the coarsest sane grid's"]
    assert row.result == "passed", row.detail


def test_a_check_leaves_the_process_as_it_was() -> None:
    def state() -> list[Any]:
        of_numpy = [np.asarray(part).tolist() for part in np.random.get_state(legacy=True)]
        settings = [torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()]
        settings += [torch.are_deterministic_algorithms_enabled(), torch.get_default_device()]
        return [torch.get_rng_state().tolist(), of_numpy, random.getstate(), *settings]

    before = state()
    switching = [SwitchesDeterminism, SwitchesTheDefaultType, TakesAllThreads, RefusesAndSwitches, CountsTooMany]
    for broken in switching:
        check(broken.model_validate({"name": broken.__name__}), [4])
        assert state() == before, broken.__name__
    first = check(Draws(name="draws"), [4])
    assert state() == before
    assert [row for row in check(Draws(name="draws"), [4]).rows if row.result != "info"] == [
        row for row in first.rows if row.result != "info"
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_told() -> None:
    (row,) = [row for row in report(Sound).rows if row.property == "CPU and CUDA agree"]
    assert (row.result, row.detail) == ("skipped", "no CUDA device")


class GoesByTheDevice(Sound):
    def choose_qparams(self, blocks: Tensor, grid: Levels) -> QParams:
        return QParams(super().choose_qparams(blocks, grid).scale * (2 if blocks.is_cuda else 1))


@pytest.mark.gpu
def test_devices_must_agree() -> None:
    assert [row.property for row in report(GoesByTheDevice).failed] == ["CPU and CUDA agree"]
    assert report(Sound).failed == []


def test_an_error_is_told_with_the_line_that_raised() -> None:
    said = detail(RaisesAtTwoBits)
    here = Path(broken_quantizers.__file__)
    line = 1 + here.read_text(encoding="utf-8").split("\n").index('            raise ValueError("no luck\\nat all")')
    assert said.startswith(f"2 bits, per_channel, gaussian: ValueError: no luck ({here.name}:{line})")
    assert "more of" in said


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (Leaves, "SystemExit: 3"),
        (GivesATuple, "choose_qparams returned tuple (allowed: QParams of tensors)"),
        (FlatScale, "a scale of shape (16,) (allowed: (16, 1))"),
        (NoScaleForZeros, "a scale of 0 (allowed: positive finite numbers)"),
        (ZeroPointOfHalf, "a zero point of 0.5 (allowed: 0 to 0)"),
        (Clips, "weights that it was given changed"),
        (OneBitMore, "levels(2) returned levels of 3 bits (allowed: 2)"),
        (FewerBitsThanAsked, "levels(2) returned levels of 1 bits (allowed: 2)"),
        (CountsTooMany, "levels(2) returned 10 levels (allowed: at most 4)"),
        (FourLevelsTooMany, "levels 'many': given 8 values"),
        (UnsortedTable, "levels 'unsorted': given 3 values that do not rise"),
        (InfiniteTable, "levels 'endless': given a value that is not a finite number"),
        (LevelsAsANumber, "levels(2) returned int (allowed: IntegerGrid, LevelTable or Codebook)"),
        (ScalesForFree, "are stored: effective bits would be wrong"),
        (SwitchesDeterminism, "it changed the deterministic flag of the process (allowed: to put it back)"),
        (RefusesAndSwitches, "refuses(2) changed the gradient mode of the process (allowed: to put it back)"),
        (WakesTheDead, "zeros became 1 (allowed: 1e-06)"),
        (BlowsUpConstants, "(allowed error: 1 of it)"),
        (EightTimesTooCoarse, "half above that of the best 2 bits for the whole matrix"),
        (Draws, "it drew from torch's global generator (allowed: one of its own, with a fixed seed)"),
        (SeesTheOthers, "has another scale beside other rows (allowed where shares_scale_unit is set)"),
        (NamesNoModule, "sources names 'qbench.no_such_module', which is no module with a file"),
        (VersionInWords, "version is 'two' (allowed: a whole number from 1 on)"),
        (ForgetsItsShare, "share is 0.75, and 1.0 when it was written as JSON and read again"),
        (RefusesAll, "it refuses all bits from 1 to 8: not today"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_was_seen_and_what_is_allowed(broken: type[Quantizer], told: str) -> None:
    assert told in detail(broken)


def test_values_between_the_levels_are_counted() -> None:
    (row,) = [row for row in report(RoundsToHalves).failed if row.property == "at most 2^bits levels a block"]
    assert "values in one block (allowed: at most 4)" in row.detail
