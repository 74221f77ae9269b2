"""Cells of a classifier of images: every method with every way with batch norms, stored and read back to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.errors import StoreError
from qbench.methods.adaround import AdaRound
from qbench.methods.base import Method
from qbench.methods.batch_norm import batch_norms, recalibrate
from qbench.methods.block_ap import BlockAP
from qbench.methods.brecq import BRECQ
from qbench.methods.fine_tune import FineTuning
from qbench.methods.gptq import GPTQ
from qbench.methods.layer_inputs import input_ranges, installed, static_params
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.rtn import RoundToNearest
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.runner import execute as execution
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.packed_file import apply_packed, export_packed, read_packed
from qbench.runner.session import Session
from qbench.runner.targets import GridPlace, make_problem, no_grid
from qbench.store.record import Record
from qbench.store.schema import dump_record, parse_record
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]
Run = Callable[..., Record]

RTN = RoundToNearest(name="rtn")
QAT: dict[str, Any] = {"steps": 2, "batch_size": 20}
METHODS: dict[str, Method] = {
    "rtn": RTN,
    "gptq": GPTQ(name="gptq"),
    "adaround": AdaRound(name="adaround", iterations=3),
    "brecq": BRECQ(name="brecq", iterations=3),
    "block_ap": BlockAP(name="block_ap", epochs=1, batch_size=40),
    "ste_qat": StraightThroughQAT(name="ste_qat", distillation=0.5, **QAT),
    "lsq": LearnedStepSize(name="lsq", **QAT),
    "lsq-update": LearnedStepSize(name="lsq", bn_training="update", **QAT),
}
SETTINGS = ("keep", "recalibrate", "fold")
STATIC = {"bits": 8, "scale": "static"}
GRIDS: dict[str, dict[str, Any]] = {
    "weights": {},
    "weights, ends in floats": {"first_last": "float"},
    "dynamic, ends in 8 bits": {"activations": {"bits": 4}, "first_last": "8bit"},
    "dynamic per tensor, ends in floats": {
        "activations": {"bits": 4, "granularity": "per_tensor"},
        "first_last": "float",
    },
    "static": {"activations": {**STATIC, "range": "mse"}, "granularity": "per_tensor"},
    "static, ends in floats": {"activations": STATIC, "first_last": "float"},
}
LOSS, ACCURACY = "loss/cross_entropy", "accuracy/top1"
CALIBRATION = 100
NORMS = {"0.1": 8, "1.1": 8, "1.4": 16}
FOLDED = {"0.0": "0.1", "1.0": "1.1", "1.3": "1.4"}

each_setting = pytest.mark.parametrize("bn", SETTINGS)


def using(method: Any, bn: str) -> Any:
    return method.model_copy(update={"bn": bn})


@pytest.fixture
def run(tmp_path: Path, session: Session) -> Run:
    def run(cell: Cell, own_session: Session | None = None, name: str = "weights.safetensors") -> Record:
        record = execute(identify(cell), "test", own_session or session, tmp_path / name)
        assert record.clean, record.facts.get("traceback", record.reason)
        return record

    return run


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the last evaluated model, and its logits."""
    kept: dict[str, Any] = {}
    evaluate = execution._evaluate

    def watched(task: Any, model: nn.Module, cell: Cell, record: Record) -> None:
        kept.update(model=model, logits=task.logits(model))
        evaluate(task, model, cell, record)

    monkeypatch.setattr(execution, "_evaluate", watched)
    return kept


def stored_logits(session: Session, cell: Cell, path: Path) -> Tensor:
    """Return the logits of the model with what a packed file holds put into it."""
    task = session.task(cell)
    model = copy.deepcopy(task.model)
    with installed(apply_packed(model, read_packed(path))):
        found: Tensor = task.logits(model)
    return found


@pytest.mark.parametrize("grid", GRIDS)
@each_setting
@pytest.mark.parametrize("name", METHODS)
def test_every_cell_is_whole_and_read_back_to_the_bit(
    run: Run,
    images: MakeCell,
    session: Session,
    measured: dict[str, Any],
    tmp_path: Path,
    name: str,
    bn: str,
    grid: str,
) -> None:
    method = using(METHODS[name], bn)
    cell = images(method, bits=3, **GRIDS[grid])
    record = run(cell)
    assert parse_record(dump_record(record)) == record
    assert len(record.layers) == record.facts["quantized_layers"] == (2 if "floats" in grid else 4)
    assert record.facts["bn"] == ("update" if (name, bn) == ("lsq-update", "keep") else bn)
    assert record.facts["batch_norm_layers"] == len(NORMS)
    assert record.facts.get("folded_batch_norms") == (len(FOLDED) if bn == "fold" else None)
    assert record.cost.train_tokens == (40 if name in ("ste_qat", "lsq", "lsq-update") else 0)
    uses_data = name in ("gptq", "adaround", "brecq", "block_ap") or bn == "recalibrate" or "static" in grid
    assert record.cost.calibration_tokens == (CALIBRATION if uses_data else 0)
    assert torch.equal(stored_logits(session, cell, tmp_path / "weights.safetensors"), measured["logits"])
    packed = read_packed(tmp_path / "weights.safetensors")
    assert packed.extra == {}
    assert packed.folded == (FOLDED if bn == "fold" else {})
    has_statistics = bn == "recalibrate" or (name, bn) == ("lsq-update", "keep")
    assert {name.rpartition(".")[0] for name in packed.statistics} == (set(NORMS) if has_statistics else set())


@each_setting
def test_the_control_is_trained_in_the_same_model(
    run: Run, images: MakeCell, measured: dict[str, Any], bn: str
) -> None:
    control = using(METHODS["lsq"], bn).control()
    assert isinstance(control, FineTuning) and control.bn == bn
    record, full = run(images(control)), run(images())
    assert record.axes["method"] == using(METHODS["lsq"], bn).control().label()
    assert record.facts["bn"] == bn and record.facts["batch_norm_layers"] == 3
    assert record.cost.calibration_tokens == (CALIBRATION if bn == "recalibrate" else 0)
    assert record.metrics[LOSS] != full.metrics[LOSS]
    assert not {"bn", "batch_norm_layers"} & full.facts.keys()


def test_folding_alone_changes_nothing_of_a_control(run: Run, images: MakeCell) -> None:
    least = {"steps": 1, "batch_size": 1, "learning_rate": 1e-12}
    full = run(images()).metrics[LOSS]
    for bn in ("keep", "fold"):
        found = run(images(FineTuning.model_validate({"name": "fine_tune", "bn": bn, **least})))
        assert found.metrics[LOSS] == pytest.approx(full, rel=1e-4)


def test_folding_leaves_what_is_rounded_with_a_scale_a_row(run: Run, images: MakeCell) -> None:
    # A positive factor of a row is one of its scale: the codes are the same. With one scale for all they are not.
    rows, whole = {}, {}
    for bn in ("keep", "fold"):
        rows[bn] = run(images(using(RTN, bn), bits=2)).metrics[LOSS]
        whole[bn] = run(images(using(RTN, bn), bits=2, granularity="per_tensor")).metrics[LOSS]
    assert rows["fold"] == pytest.approx(rows["keep"], rel=1e-3)
    assert whole["fold"] != pytest.approx(whole["keep"], rel=0.1)


def test_two_bits_come_back_a_long_way_by_statistics_alone(run: Run, images: MakeCell) -> None:
    full = run(images())
    keep, again = (run(images(using(RTN, bn), bits=2)) for bn in ("keep", "recalibrate"))
    assert again.layers == keep.layers
    assert full.metrics[ACCURACY] > again.metrics[ACCURACY] > keep.metrics[ACCURACY] + 0.1
    assert full.metrics[LOSS] < again.metrics[LOSS] < keep.metrics[LOSS]
    assert again.cost.method_seconds > 0 and again.weights_sha256 != keep.weights_sha256
    assert again.axes["method"] == "rtn[bn=recalibrate]" and keep.axes["method"] == "rtn"


def test_they_are_those_of_the_quantized_model_on_the_calibration_images(
    run: Run, images: MakeCell, session: Session, measured: dict[str, Any], tmp_path: Path
) -> None:
    cell = images(using(METHODS["lsq-update"], "recalibrate"), bits=2, activations={"bits": 3})
    run(cell)
    task, model = session.task(cell), copy.deepcopy(measured["model"])
    packed = read_packed(tmp_path / "weights.safetensors")
    with installed(apply_packed(model, packed)):
        found = recalibrate(model, task.forward, task.calibration)
    assert found.keys() == packed.statistics.keys()
    assert all(torch.equal(found[name], one) for name, one in packed.statistics.items())
    assert not torch.equal(
        recalibrate(model, task.forward, task.calibration)["1.4.running_mean"], found["1.4.running_mean"]
    )


def test_static_ranges_are_found_behind_estimated_statistics(
    run: Run, images: MakeCell, session: Session, tmp_path: Path
) -> None:
    cell = images(using(RTN, "recalibrate"), bits=2, activations=STATIC)
    run(cell)
    packed = read_packed(tmp_path / "weights.safetensors")
    model = copy.deepcopy(session.task(cell).model)
    apply_packed(model, replace(packed, statistics={}))
    problem = make_problem(session.task(cell), model, cell, lambda place: session.grid(cell, place).copy())
    with_others = static_params(problem, input_ranges(problem))
    recalibrate(model, problem.forward, problem.calibration)
    for name, params in static_params(problem, input_ranges(problem)).items():
        assert torch.equal(params.scale, packed.inputs[name].scale)
    assert not torch.equal(with_others["2.1"].scale, packed.inputs["2.1"].scale)


def test_grids_and_moments_are_those_of_the_folded_weights(images: MakeCell, session: Session) -> None:
    plain, folded = (images(using(RTN, bn)) for bn in ("recalibrate", "fold"))
    weights = {}
    for cell in (plain, folded):
        problem = make_problem(session.task(cell), session.model(cell), cell, lambda place: no_grid())
        weights[cell] = {layer.name: layer.matrix() for layer in problem.layers}
    for name in FOLDED:
        one, other = (session.grid(cell, GridPlace(name, weights[cell][name], 4)) for cell in (plain, folded))
        for cell, grid in ((plain, one), (folded, other)):
            torch.testing.assert_close(grid.scale, 2 * weights[cell][name].abs().amax(dim=1, keepdim=True) / 15)
        assert not torch.equal(one.scale, other.scale)
        # A fold changes what a layer makes, not what it is given.
        torch.testing.assert_close(session.hessians(folded)[name], session.hessians(plain)[name], rtol=1e-3, atol=1e-4)


def test_cells_that_come_after_see_nothing_of_it(run: Run, images: MakeCell, session: Session) -> None:
    before = {bn: run(images(using(GPTQ(name="gptq"), bn))) for bn in SETTINGS}
    state = {name: value.clone() for name, value in session.task(images()).model.state_dict().items()}
    for bn in reversed(SETTINGS):
        for name in ("lsq-update", "gptq"):
            again = run(images(using(METHODS[name], bn)))
        fresh = run(images(using(METHODS["gptq"], bn)), Session("cpu"))
        for part in ("metrics", "documents", "layers", "weights_sha256", "facts"):
            assert getattr(again, part) == getattr(fresh, part) == getattr(before[bn], part), part
    after = session.task(images()).model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in state.items()) and len(after) == len(state)


@pytest.mark.parametrize("bn", ["recalibrate", "fold"])
@pytest.mark.parametrize("method", [RTN, METHODS["lsq"], METHODS["lsq"].control()], ids=lambda method: method.name)
def test_a_model_without_batch_norm_costs_its_cell(
    images: MakeCell, session: Session, tmp_path: Path, method: Any, bn: str
) -> None:
    record = execute(identify(images(using(method, bn), normed=False)), "test", session, tmp_path / "weights")
    assert record.status == "failed" and record.metrics == {} and "traceback" not in record.facts
    assert record.reason is not None and record.reason.startswith("the model has no batch norm ")
    assert record.reason.endswith("(allowed here: bn: keep)")
    kept = execute(identify(images(using(method, "keep"), normed=False)), "test", session, tmp_path / "weights")
    assert kept.clean and "bn" not in kept.facts


def test_an_export_has_the_biases_and_fits_no_other_model(
    run: Run, images: MakeCell, session: Session, measured: dict[str, Any], tmp_path: Path
) -> None:
    cell = images(using(RTN, "fold"), first_last="float")
    record = run(cell)
    exported = export_packed(record, tmp_path / "weights.safetensors", tmp_path / "exported.safetensors")
    assert exported.parameters.keys() == {"0.0.weight", *(f"{name}.bias" for name in FOLDED)}
    assert torch.equal(stored_logits(session, cell, tmp_path / "exported.safetensors"), measured["logits"])
    # What is folded already stays so.
    model = copy.deepcopy(session.model(cell))
    apply_packed(model, exported)
    assert torch.equal(session.task(cell).logits(model), measured["logits"])
    assert not batch_norms(model)
    for changed in (
        replace(exported, folded={"0.0": "0.7"}),
        replace(exported, parameters={**exported.parameters, "0.0.bias": torch.zeros(3)}),
        replace(exported, parameters={**exported.parameters, "0.0.weight": torch.zeros(8, 1)}),
    ):
        with pytest.raises(StoreError, match=r"layer '0\.0'"):
            apply_packed(copy.deepcopy(session.task(cell).model), changed)


def test_it_is_part_of_the_identity(images: MakeCell) -> None:
    planned = [identify(images(using(RTN, bn))) for bn in SETTINGS]
    assert len({one.cell_id for one in planned}) == 3
    assert planned[0].cell_id == identify(images(RTN)).cell_id
    assert "qbench.methods.batch_norm" in planned[0].key["runner"]
