"""What becomes of the first and the last layer, on every method and in the record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.methods.adaround import AdaRound
from qbench.methods.base import Method
from qbench.methods.gptq import GPTQ
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.rtn import RoundToNearest
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.runner.targets import left_alone, make_problem, no_grid
from qbench.store.record import Record
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]
RTN = RoundToNearest(name="rtn")
METHODS: list[Method] = [
    RTN,
    GPTQ(name="gptq"),
    AdaRound(name="adaround", iterations=3),
    LearnedStepSize(name="lsq", steps=2, batch_size=2),
]
FIRST, LAST = "model.layers.0.self_attn.q_proj", "model.layers.3.mlp.down_proj"

each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@pytest.fixture
def run(tmp_path: Path, session: Session) -> Callable[..., Record]:
    return lambda cell: execute(identify(cell), "test", session, tmp_path / "weights.safetensors")


@each_method
def test_first_and_last_in_8_bits(run: Callable[..., Record], llama: MakeCell, method: Method) -> None:
    record = run(llama(method, bits=2, first_last="8bit"))
    assert record.clean, record.reason
    levels = {layer.name: layer.levels for layer in record.layers}
    assert len(levels) == 28 and next(iter(levels)) == FIRST and list(levels)[-1] == LAST
    assert min(levels[FIRST], levels[LAST]) > 16
    assert max(count for name, count in levels.items() if name not in (FIRST, LAST)) <= 4
    assert record.facts["grid"] == f"symmetric full_range; {FIRST}, {LAST}: 8 bits"
    sizes = {layer.name: layer.shape[0] * layer.shape[1] for layer in record.layers}
    wide = sizes[FIRST] + sizes[LAST]
    rows = sum(layer.shape[0] for layer in record.layers)
    stored = 2 * (sum(sizes.values()) - wide) + 8 * wide + 32 * rows
    assert record.effective_bits == pytest.approx(stored / sum(sizes.values()))


@each_method
def test_first_and_last_left_in_floating_point(run: Callable[..., Record], llama: MakeCell, method: Method) -> None:
    record = run(llama(method, bits=2, first_last="float"))
    assert record.clean, record.reason
    names = {layer.name for layer in record.layers}
    assert len(names) == 26 and not {FIRST, LAST} & names
    assert record.facts["quantized_layers"] == 26
    assert "q_proj" in record.facts["floating_point"] and "down_proj" in record.facts["floating_point"]
    all_same = run(llama(method, bits=2))
    assert all_same.effective_bits is not None and record.effective_bits is not None
    # Two of 28 layers at 32 bits are not for free.
    assert record.effective_bits > all_same.effective_bits + 1


def test_layers_left_alone_by_one_cell_are_there_for_the_next(llama: MakeCell, tmp_path: Path) -> None:
    session = Session("cpu")
    for policy, count in (("float", 26), ("same", 28)):
        record = execute(identify(llama(RTN, bits=2, first_last=policy)), "test", session, tmp_path / policy)
        assert record.clean and len(record.layers) == count, record.reason


def test_the_policy_stands_in_the_label(llama: MakeCell) -> None:
    label = llama(RTN, bits=2, first_last="8bit").axes()["quantizer"]
    assert label == "absmax[per_channel,first_last=8bit]"


def test_less_is_lost_with_first_and_last_kept(run: Callable[..., Record], llama: MakeCell) -> None:
    same, eight, full = (run(llama(RTN, bits=2, first_last=policy)).loss for policy in ("same", "8bit", "float"))
    assert same is not None and eight is not None and full is not None
    assert eight < same and abs(full - eight) < 0.05 * (same - eight)


@pytest.mark.parametrize(("policy", "count"), [("same", 0), ("8bit", 0), ("float", 2)])
def test_what_is_left_alone(llama: MakeCell, session: Session, policy: Any, count: int) -> None:
    cell = llama(RTN, first_last=policy)
    task = session.task(cell)
    problem = make_problem(task, task.model, cell, lambda place: no_grid())
    alone = left_alone(task, task.model, cell)
    assert len(alone) == count and len(problem.layers) == 28 - count
    quantized = {layer.module.weight.data_ptr() for layer in problem.layers}
    assert not quantized & {weight.data_ptr() for weight in alone}
