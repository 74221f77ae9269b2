"""Layers on other bits than the cell's, the first and the last or by name, on every method and in the record."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.methods.adaround import AdaRound
from qbench.methods.base import Method
from qbench.methods.gptq import GPTQ
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.rtn import RoundToNearest
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quant.block_grid import BlockGrid
from qbench.quantizers.absmax import AbsMax
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.packed_file import apply_packed, read_packed
from qbench.runner.session import Session
from qbench.runner.targets import GridPlace, left_alone, make_problem, no_grid
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
STE = StraightThroughQAT(name="ste_qat", steps=2, batch_size=2)
FIRST, LAST = "model.layers.0.self_attn.q_proj", "model.layers.3.mlp.down_proj"

each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@pytest.fixture
def run(tmp_path: Path, session: Session) -> Callable[..., Record]:
    return lambda cell: execute(identify(cell), "test", session, tmp_path / "weights.safetensors")


@pytest.fixture(scope="module")
def lms() -> Iterator[ModuleType]:
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    yield importlib.import_module("streamed_lm")
    sys.path.remove(folder)


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


MIXED = {"model.layers.0.*": 4, "*.down_proj": 3, "model.layers.1.mlp.up_proj": 8}


def asked_bits(name: str, otherwise: int = 2) -> int:
    """Return what `MIXED` says of a layer, by its words."""
    if name.startswith("model.layers.0."):
        return 4
    return 3 if name.endswith(".down_proj") else 8 if name == "model.layers.1.mlp.up_proj" else otherwise


@pytest.mark.parametrize("method", [*METHODS, STE], ids=lambda one: one.name)
def test_layers_on_bits_of_their_own(session: Session, llama: MakeCell, method: Method, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    record = execute(identify(llama(method, bits=2, layer_bits=MIXED)), "test", session, path)
    assert record.clean, record.reason
    assert record.facts["grid"] == "symmetric full_range (layers of 2 bits: 17, 3 bits: 3, 4 bits: 7, 8 bits: 1)"
    packed = read_packed(path).layers
    assert {name: found.grid.levels.bits for name, found in packed.items()} == {
        layer.name: asked_bits(layer.name) for layer in record.layers
    }
    for layer in record.layers:
        assert layer.levels <= 2 ** asked_bits(layer.name)
    # Each layer counts as it is stored: codes of its own bits, and a scale of 32 bits a row.
    sizes = [layer.shape[0] * layer.shape[1] for layer in record.layers]
    stored = sum(
        asked_bits(layer.name) * size + 32 * layer.shape[0] for layer, size in zip(record.layers, sizes, strict=True)
    )
    assert record.effective_bits == pytest.approx(stored / sum(sizes))


@pytest.mark.parametrize("method", METHODS[:2], ids=lambda method: method.name)
def test_packed_layers_of_many_bits_are_the_weights_that_were_measured(
    session: Session, llama: MakeCell, method: Method, tmp_path: Path
) -> None:
    cell, path = llama(method, bits=2, layer_bits=MIXED), tmp_path / "weights.safetensors"
    record = execute(identify(cell), "test", session, path)
    task = session.task(cell)
    model = copy.deepcopy(task.model)
    apply_packed(model, read_packed(path))
    assert task.evaluate(model, cell.metrics).metrics["loss/blocks128"] == record.loss
    again = execute(identify(cell), "test", Session("cpu"), tmp_path / "again.safetensors")
    assert again.weights_sha256 == record.weights_sha256


def test_one_bitwidth_by_name_is_the_cells_own(run: Callable[..., Record], llama: MakeCell) -> None:
    mixed, plain = run(llama(RTN, bits=2, layer_bits={"*": 4})), run(llama(RTN, bits=4))
    for part in ("weights_sha256", "metrics", "layers", "effective_bits"):
        assert getattr(mixed, part) == getattr(plain, part), part
    assert mixed.cell_id != plain.cell_id


@pytest.mark.parametrize(("policy", "bits"), [("8bit", 8), ("float", None)])
def test_first_and_last_go_before_bits_of_layers(
    run: Callable[..., Record], llama: MakeCell, session: Session, policy: Any, bits: int | None
) -> None:
    laid: dict[str, int] = {}

    def note(place: GridPlace) -> BlockGrid:
        laid[place.name] = place.bits
        return no_grid()

    cell = llama(RTN, bits=2, first_last=policy, layer_bits={FIRST: 3, **MIXED})
    task = session.task(cell)
    make_problem(task, task.model, cell, note)
    assert (laid.pop(FIRST, None), laid.pop(LAST, None)) == (bits, bits)
    assert laid == {name: asked_bits(name) for name in laid} and len(laid) == 26


def test_a_pattern_that_fits_no_layer_fails_the_cell(run: Callable[..., Record], llama: MakeCell) -> None:
    record = run(llama(RTN, bits=2, layer_bits={"*.down_proj": 3, "model.layers.1.mlp.upp_proj": 4}))
    assert record.status == "failed" and record.reason is not None
    assert record.reason.startswith(
        "layer_bits: 'model.layers.1.mlp.upp_proj' fits no layer that can be quantized: did you mean "
        "'model.layers.1.mlp.up_proj'? (allowed: *.down_proj, *.gate_proj, "
    )


def test_cells_that_differ_in_bits_of_layers_alone_are_others(llama: MakeCell) -> None:
    turned = dict(reversed(MIXED.items()))
    cells = [identify(llama(RTN, bits=2, layer_bits=given)) for given in (None, MIXED, turned)]
    assert len({one.cell_id for one in cells}) == len({one.cell.label() for one in cells}) == 3
    again = AbsMax.model_validate(json.loads(json.dumps(cells[1].key["quantizer"]["options"])))
    assert again == cells[1].cell.quantizer


@pytest.mark.parametrize("method", METHODS[:2], ids=lambda method: method.name)
def test_a_streamed_cell_has_the_same_codes(tmp_path: Path, method: Method, lms: ModuleType) -> None:
    lm = lms.Both(lms.saved_lm(tmp_path / "model"))
    grid = AbsMax.model_validate({"name": "absmax", "layer_bits": MIXED})
    record = lm.require_same(method, grid, 2)
    for folder in ("whole", "streamed"):
        layers = read_packed(lm.weights(folder)).layers
        assert {name: one.grid.levels.bits for name, one in layers.items()} == {
            layer.name: asked_bits(layer.name) for layer in record.layers
        }
