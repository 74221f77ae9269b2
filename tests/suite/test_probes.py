"""Probes in suites: cells of their own, after the methods, that know whose weights they read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qbench.errors import QBenchError, SuiteError, UnknownNameError
from qbench.suite.enumerate import enumerate_cells, filter_cells, measured_cells, places
from qbench.suite.schema import Suite

from .conftest import SUITE, Grid, Near, Train

Load = Callable[..., Suite]

LOOKING = SUITE + "  probes: [look, {name: stare, points: [near]}]\n"
BLOCKS = """\
name: s
matrix:
  - models: [zoo]
    quantizers: [grid]
    bits: [4, 2]
    methods: [near, train, {name: train, steps: 7}, {name: warm, steps: 5}, {name: warm, steps: 7}]
    seeds: 1
  - {models: [zoo], quantizers: [grid], bits: [2], probes: [{name: look, points: [PLACE]}], seeds: 1}
"""


def test_a_probe_is_a_cell_behind_the_methods_of_its_bits(load: Load) -> None:
    labels = [cell.label() for cell in enumerate_cells(load(LOOKING)) if cell.seed == 0]
    assert labels == [
        "zoo/fp/s0",
        *(
            f"zoo/grid/{bits}b/{name}/s0"
            for bits in (4, 2)
            for name in ("near", "train[steps=10]", "look", "stare[points=('near',)]")
        ),
    ]


def test_a_probe_has_no_place_in_the_leaderboard(load: Load) -> None:
    cells = enumerate_cells(load(LOOKING))
    assert [cell.is_probe for cell in cells].count(True) == 2 * 2 * 2
    assert not any(cell.is_fp or cell.is_control or cell.method for cell in cells if cell.is_probe)
    assert [{**cell.axes(), "skip": None} for cell in cells if not cell.is_probe] == places(cells)
    assert len(measured_cells(cells)) == len(places(cells))


@pytest.mark.parametrize(
    ("named", "read"),
    [
        ("near", ["near"]),
        ("train", ["train"]),  # a full label is that cell alone
        ("warm", ["warm[steps=5]", "warm[steps=7]"]),
        ("'train[steps=7]'", ["train[steps=7]"]),
    ],
)
def test_it_reads_the_cells_of_its_own_place_in_any_block(load: Load, named: str, read: list[str]) -> None:
    (probe,) = (cell for cell in enumerate_cells(load(BLOCKS.replace("PLACE", named))) if cell.is_probe)
    assert probe.skip is None
    assert [point.label() for point in probe.points] == [f"zoo/grid/2b/{name}/s0" for name in read]


def test_what_it_reads_must_be_there(load: Load) -> None:
    where = r"s.yaml:8: `matrix\[1\].probes\[0\].points\[0\]`"
    with pytest.raises(SuiteError, match=where + r": 'nearr' is no method of the suite.*'near'"):
        enumerate_cells(load(BLOCKS.replace("PLACE", "nearr")))
    elsewhere = BLOCKS.replace("PLACE", "near").replace("bits: [2], probes", "bits: [3], probes")
    (probe,) = (cell for cell in enumerate_cells(load(elsewhere)) if cell.is_probe)
    assert probe.skip == "it reads the weights of near, which the suite has no cell of beside it"
    excluded = BLOCKS.replace("PLACE", "near") + "exclude:\n  - {when: {methods: near}, reason: too slow}\n"
    (probe,) = (cell for cell in enumerate_cells(load(excluded)) if cell.is_probe)
    assert probe.skip == "it reads the weights of near, which is skipped: too slow"


def test_a_filter_keeps_what_a_probe_reads(load: Load) -> None:
    cells = enumerate_cells(load(BLOCKS.replace("PLACE", "near")))
    probe = next(cell.label() for cell in cells if cell.is_probe)
    kept = [cell.label() for cell in filter_cells(cells, "method=look")]
    assert kept == ["zoo/fp/s0", "zoo/grid/2b/near/s0", probe]
    assert probe not in [cell.label() for cell in filter_cells(cells, "method=near")]


def test_a_block_needs_methods_or_probes(load: Load) -> None:
    with pytest.raises(SuiteError, match=r"'methods' is missing"):
        load("name: s\nmatrix: {models: [zoo], quantizers: [grid], bits: [2]}\n")


def test_a_misspelt_probe_is_told_the_nearest(load: Load) -> None:
    with pytest.raises(SuiteError, match=r"unknown probe 'loook'.*'look'"):
        load(LOOKING.replace("[look,", "[loook,"))


def test_an_exclusion_names_a_probe_as_it_does_a_method(load: Load) -> None:
    text = LOOKING + "exclude:\n  - {when: {methods: look, bits: 4}, reason: not asked}\n"
    skipped = {cell.label() for cell in enumerate_cells(load(text)) if cell.skip == "not asked"}
    assert skipped == {f"zoo/grid/4b/look/s{seed}" for seed in (0, 1)}
    with pytest.raises(UnknownNameError):
        filter_cells(enumerate_cells(load(text)), "method=lok")


@pytest.mark.parametrize("given", ["-1", "many", "1.5"])
def test_a_trajectory_is_a_count(load: Load, given: str) -> None:
    with pytest.raises((SuiteError, QBenchError), match="trajectory"):
        load(SUITE + f"  trajectory: {given}\n")


def test_what_moves_weights_alone_is_left_out_where_inputs_are_quantized(load: Load, monkeypatch: Any) -> None:
    monkeypatch.setattr(Train, "control", lambda self: Near(name="warm"))
    monkeypatch.setattr(Grid, "activations", {"bits": 4}, raising=False)
    cells = enumerate_cells(load(LOOKING + "  trajectory: 5\n"))
    skips = {cell.axes()["method"]: cell.skip or "" for cell in cells}
    assert skips["near"] == skips["fp"] == ""
    assert "a probe moves weights alone" in skips["look"]
    assert "a trajectory measures weights alone" in skips["train[steps=10]"]


def test_a_trajectory_does_not_see_weights_that_processes_share(load: Load, monkeypatch: Any) -> None:
    monkeypatch.setattr(Train, "control", lambda self: Near(name="warm"))
    monkeypatch.setattr(Train, "ranks", 2, raising=False)
    for count, skip in ((5, "a trajectory sees whole weights, and train[steps=10] shares their rows out"), (0, "")):
        cells = enumerate_cells(load(LOOKING + f"  trajectory: {count}\n"))
        skips = {cell.axes()["method"]: cell.skip or "" for cell in cells}
        assert skips["train[steps=10]"].startswith(skip)
        assert bool(skips["train[steps=10]"]) == (count > 0)
