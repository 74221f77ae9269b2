"""One cell: its record is whole, repeatable, and tells what went wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from qbench import atomic
from qbench.methods.adaround import AdaRound
from qbench.methods.base import Method
from qbench.methods.block_ap import BlockAP
from qbench.methods.brecq import BRECQ
from qbench.methods.gptq import GPTQ
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.rtn import RoundToNearest
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quant.packing import unpack
from qbench.runner import execute as execution
from qbench.runner import session as sessions
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.store.record import Record
from qbench.store.schema import dump_record, parse_record
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]

RTN = RoundToNearest(name="rtn")
QUICK: dict[str, Method] = {
    "rtn": RTN,
    "gptq": GPTQ(name="gptq"),
    "adaround": AdaRound(name="adaround", iterations=3),
    "brecq": BRECQ(name="brecq", iterations=3),
    "block_ap": BlockAP(name="block_ap", epochs=1, batch_size=4),
    "ste_qat": StraightThroughQAT(name="ste_qat", steps=2, batch_size=2),
    "lsq": LearnedStepSize(name="lsq", steps=2, batch_size=2),
}


@pytest.fixture
def run(tmp_path: Path, session: Session) -> Callable[..., Record]:
    def run(cell: Cell, own_session: Session | None = None, name: str = "weights.safetensors") -> Record:
        return execute(identify(cell), "test", own_session or session, tmp_path / name)

    return run


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Return the weights that the last evaluated model held."""
    kept: dict[str, torch.Tensor] = {}
    evaluate = execution._evaluate

    def watched(task: Any, model: torch.nn.Module, cell: Cell, record: Record) -> None:
        kept.clear()
        kept.update({name: value.clone() for name, value in model.state_dict().items()})
        evaluate(task, model, cell, record)

    monkeypatch.setattr(execution, "_evaluate", watched)
    return kept


def read_back(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a packed file, by what its metadata and the docstring of `packed_weights` say."""
    weights = {}
    with safe_open(path, "pt") as file:
        for name, about in json.loads(file.metadata()["qbench"]).items():
            (rows, columns), levels = about["shape"], about["levels"]
            bits, shift = levels["bits"], 0 if not levels["symmetric"] else -(2 ** (levels["bits"] - 1))
            codes = unpack(file.get_tensor(f"{name}.codes"), bits, rows * columns).reshape(rows, columns)
            scale = file.get_tensor(f"{name}.scale")
            zero_point = torch.zeros_like(scale)
            if not levels["symmetric"]:
                packed = file.get_tensor(f"{name}.zero_point")
                zero_point = unpack(packed, bits, scale.numel()).reshape(scale.shape).float()
            elif levels["convention"] == "larger_side":
                packed = file.get_tensor(f"{name}.zero_point")
                zero_point = unpack(packed, 1, scale.numel()).reshape(scale.shape).float() - 1
            group = (
                torch.arange(columns) // about["group_size"]
                if scale.shape[1] > 1
                else torch.zeros(1, dtype=torch.int64)
            )
            weights[f"{name}.weight"] = (codes.float() + shift - zero_point[:, group]) * scale[:, group]
    return weights


def test_a_full_precision_record_is_whole(run: Callable[..., Record], llama: MakeCell, tmp_path: Path) -> None:
    cell = llama()
    record = run(cell)
    assert (record.status, record.reason, record.clean) == ("ok", None, True)
    assert record.cell_id == identify(cell).cell_id
    assert (record.key, record.axes, record.suite) == (identify(cell).key, cell.axes(), "test")
    assert set(record.metrics) == {"loss/blocks128", "perplexity/blocks128"}
    assert record.layers == [] and record.effective_bits is None and record.weights_sha256 is None
    assert record.facts["chance_loss"] == pytest.approx(math.log(1024))
    assert list(tmp_path.iterdir()) == []
    assert datetime.fromisoformat(record.started) <= datetime.fromisoformat(record.ended)
    assert record.started.endswith("+00:00")
    for name in ("qbench", "python", "torch", "device", "device_name", "threads", "deterministic"):
        assert record.environment[name] is not None, name
    assert record.cost.peak_memory_bytes > 2**20
    assert record.cost.evaluation_seconds > 0


@pytest.mark.parametrize("name", QUICK)
def test_a_quantized_record_is_whole(run: Callable[..., Record], llama: MakeCell, name: str, tmp_path: Path) -> None:
    record = run(llama(QUICK[name], bits=3))
    assert record.clean, record.reason
    assert len(record.layers) == record.facts["quantized_layers"] == 28
    assert sum(math.prod(layer.shape) for layer in record.layers) == record.facts["quantized_parameters"]
    for layer in record.layers:
        assert 0 < layer.weight_error < 1 and 0 < layer.output_error < 1
        assert 2 <= layer.levels <= 8
    assert record.weights_sha256 == atomic.sha256_file(tmp_path / "weights.safetensors")
    assert sum(row.loss_sum for row in record.documents) / sum(row.tokens for row in record.documents) == pytest.approx(
        record.metrics["loss/blocks128"]
    )
    assert record.metrics["weight_sqnr_db"] == pytest.approx(-10 * math.log10(sum_of_errors(record, llama)), abs=1e-3)
    sees_data = name in ("gptq", "adaround", "brecq", "block_ap")
    assert record.cost.calibration_tokens == (8 * 128 if sees_data else 0)
    # Steps of block reconstruction: those of each of four blocks, over windows of the calibration split.
    steps = {"ste_qat": 2, "lsq": 2, "brecq": 3 * 4, "block_ap": 2 * 4}.get(name, 0)
    assert record.cost.train_steps == steps
    assert record.cost.train_tokens == (2 * 2 * 128 if name in ("ste_qat", "lsq") else 0)
    assert parse_record(dump_record(record)) == record


def sum_of_errors(record: Record, llama: MakeCell) -> float:
    """Return ``sum (w - w_q)^2 / sum w^2`` over all layers, from the error of each."""
    model = llama().model.load(0, "cpu").model  # type: ignore[attr-defined]
    power = {
        name: float(module.weight.detach().square().sum())
        for name, module in model.named_modules()
        if hasattr(module, "weight")
    }
    return sum(layer.weight_error * power[layer.name] for layer in record.layers) / sum(
        power[layer.name] for layer in record.layers
    )


def test_a_control_is_the_model_trained_as_long_and_left_unquantized(
    run: Callable[..., Record], llama: MakeCell, deployed: dict[str, torch.Tensor]
) -> None:
    method = QUICK["ste_qat"]
    quantized, full = run(llama(method, bits=8)), run(llama())
    cell = replace(llama(), method=method.control())
    assert cell.is_control and not cell.is_fp and cell.label().endswith("/fine_tune[steps=2,batch_size=2]/s0")
    record = run(cell)
    assert record.clean, record.reason
    assert record.layers == [] and record.effective_bits is None and record.weights_sha256 is None
    assert (record.cost.train_steps, record.cost.train_tokens) == (2, 2 * 2 * 128)
    assert record.traces["train_loss"][0] == pytest.approx(quantized.traces["train_loss"][0], abs=0.01)
    assert record.metrics["loss/blocks128"] != full.metrics["loss/blocks128"]
    original = llama().model.load(0, "cpu").model.state_dict()  # type: ignore[attr-defined]
    moved = {name for name, value in deployed.items() if not torch.equal(value, original[name])}
    assert len(moved) == 28 and all("_proj" in name for name in moved)
    again = run(cell, Session("cpu"))
    assert (again.metrics, again.documents, again.traces) == (record.metrics, record.documents, record.traces)


@pytest.mark.parametrize("name", QUICK)
def test_the_same_cell_gives_the_same_floats(
    run: Callable[..., Record], llama: MakeCell, name: str, tmp_path: Path
) -> None:
    first = run(llama(QUICK[name], bits=2))
    torch.manual_seed(99)  # whatever ran before must not matter
    second = run(llama(QUICK[name], bits=2), Session("cpu"), "again")
    for part in ("metrics", "documents", "layers", "traces", "weights_sha256", "effective_bits", "facts"):
        assert getattr(second, part) == getattr(first, part), part
    assert (tmp_path / "again").read_bytes() == (tmp_path / "weights.safetensors").read_bytes()


def test_cells_of_a_session_do_not_see_each_other(
    run: Callable[..., Record], llama: MakeCell, toys: ModuleType, toy: MakeCell
) -> None:
    before = run(llama(RTN)), run(llama())
    for other in (llama(toys.Spoils(name="spoils")), llama(QUICK["lsq"]), toy("rtn"), llama(RTN, seed=1)):
        assert run(other).status == "ok"
    after = run(llama(RTN)), run(llama())
    for one, two in zip(before, after, strict=True):
        assert (one.metrics, one.documents, one.weights_sha256) == (two.metrics, two.documents, two.weights_sha256)


def test_what_a_method_does_to_its_model_beside_its_codes_is_not_measured(
    run: Callable[..., Record], llama: MakeCell, toys: ModuleType
) -> None:
    spoilt, sound = run(llama(toys.Spoils(name="spoils"))), run(llama(RTN))
    assert spoilt.clean, spoilt.reason
    for part in ("metrics", "documents", "layers", "weights_sha256"):
        assert getattr(spoilt, part) == getattr(sound, part), part


def test_chance_comes_from_the_cell(run: Callable[..., Record], llama: MakeCell, toys: ModuleType) -> None:
    noisy = toys.Noisy(name="noisy")
    first, again, other = (run(llama(noisy, seed=seed)) for seed in (0, 0, 1))
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(
    "quantizer",
    [
        {},
        {"symmetric": False},
        {"granularity": "per_tensor"},
        {"granularity": {"per_group": 64}},
        {"granularity": {"per_group": 64}, "symmetric": False},  # 344 columns: the last group is shorter
        {"convention": "larger_side"},
    ],
    ids=["channel", "channel-asymmetric", "tensor", "group", "group-asymmetric", "larger side"],
)
def test_packed_weights_are_the_deployed_ones_and_cost_what_the_record_says(
    run: Callable[..., Record],
    llama: MakeCell,
    deployed: dict[str, torch.Tensor],
    tmp_path: Path,
    bits: int,
    quantizer: dict[str, Any],
) -> None:
    record = run(llama(RTN, bits=bits, **quantizer))
    assert record.clean, record.reason
    path = tmp_path / "weights.safetensors"
    found = read_back(path)
    assert len(found) == 28
    for name, weight in found.items():
        assert torch.equal(weight, deployed[name]), name
    stored = sum(8 * tensor.nbytes for tensor in load_file(path).values())
    quantized = sum(weight.numel() for weight in found.values())
    assert record.effective_bits == pytest.approx(stored / quantized, abs=28 * 2 * 7 / quantized)  # ends of bytes
    assert record.effective_bits > bits


@pytest.mark.parametrize("name", ["adaround", "lsq"])
def test_packed_weights_of_methods_that_learn(
    run: Callable[..., Record], llama: MakeCell, deployed: dict[str, torch.Tensor], tmp_path: Path, name: str
) -> None:
    assert run(llama(QUICK[name], bits=3, symmetric=False)).clean
    found = read_back(tmp_path / "weights.safetensors")
    assert all(torch.equal(weight, deployed[layer]) for layer, weight in found.items())


def test_everything_but_the_quantized_layers_stays_as_it_was(
    run: Callable[..., Record], llama: MakeCell, deployed: dict[str, torch.Tensor]
) -> None:
    run(llama())
    full = dict(deployed)
    for method in QUICK.values():
        record = run(llama(method, bits=2))
        quantized = {f"{layer.name}.weight" for layer in record.layers}
        for name, value in full.items():
            assert torch.equal(deployed[name], value) == (name not in quantized), (method.name, name)


@pytest.mark.parametrize(
    ("method", "status", "reason"),
    [
        ("raises", "failed", "RuntimeError: no luck today"),
        ("gives_nan", "diverged", "layer 'model.layers.0.self_attn.q_proj' has codes that are not finite"),
        ("off_grid", "failed", "layer 'model.layers.0.self_attn.q_proj' has codes that are not levels of its grid"),
        ("leaves_out", "failed", "the method left layer 'model.layers.0.self_attn.q_proj' out"),
        ("leaves", "failed", "SystemExit: 3"),
        ("returns_nothing", "failed", "the method returned NoneType (allowed: a Solution)"),
        (
            "finer_grid",
            "failed",
            "layer 'model.layers.0.self_attn.q_proj' has a scale of shape (128, 128) in groups of 1, expected (128, 1) "
            "in groups of 128: the granularity is the quantizer's",
        ),
    ],
)
def test_a_method_that_fails_costs_its_cell(
    run: Callable[..., Record], llama: MakeCell, toys: ModuleType, tmp_path: Path, method: str, status: str, reason: str
) -> None:
    record = run(llama(toys.METHODS[method](name=method)))
    assert (record.status, record.reason, record.clean) == (status, reason, False)
    assert record.metrics == {} and record.weights_sha256 is None and record.ended
    assert list(tmp_path.iterdir()) == []
    assert ("traceback" in record.facts) == (method in ("raises", "leaves"))
    assert ("no luck today" in record.facts.get("traceback", "")) == (method == "raises")
    assert parse_record(dump_record(record)) == record
    assert run(llama(RTN)).clean  # the session is none the worse


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_zero_point_that_is_no_level_is_refused(
    run: Callable[..., Record], llama: MakeCell, toys: ModuleType, symmetric: bool
) -> None:
    record = run(llama(toys.WrongZeroPoint(name="wrong_zero_point"), symmetric=symmetric))
    assert record.status == "failed"
    assert record.reason == "layer 'model.layers.0.self_attn.q_proj' has a zero point that is not a level of its grid"


def test_a_loss_that_is_nan_is_a_divergence(
    run: Callable[..., Record], toys: ModuleType, toy: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toys.ToyTask, "loss", lambda self, model, batch: torch.tensor(math.nan))
    record = run(toy())
    assert (record.status, record.reason) == ("diverged", "the evaluation loss is NaN or infinite")
    assert parse_record(dump_record(record)).metrics.keys() == {"loss/toy"}


def test_a_fallback_is_ok_and_never_clean(run: Callable[..., Record], llama: MakeCell, toys: ModuleType) -> None:
    record = run(llama(toys.FallsBack(name="falls_back")))
    assert (record.status, record.clean) == ("ok", False)
    assert record.fallbacks == ["rtn: dead layer"] * 28


def test_a_curve_of_tensors_is_kept_as_numbers(run: Callable[..., Record], llama: MakeCell, toys: ModuleType) -> None:
    record = run(llama(toys.TracesTensors(name="traces_tensors")))
    assert record.clean
    again = parse_record(dump_record(record))
    assert again.traces["train_loss"][0] == 2.5 and math.isnan(again.traces["train_loss"][1])


def test_a_model_that_cannot_be_loaded_fails_with_one_line(run: Callable[..., Record], toy: MakeCell) -> None:
    record = run(toy(broken_seed=0))
    assert (record.status, record.reason) == ("failed", "RuntimeError: the weights are gone")
    assert run(toy(seed=1, broken_seed=0)).clean


def test_a_session_loads_a_model_once_and_lays_a_grid_once(
    toys: ModuleType, toy: MakeCell, run: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, grids = [], []
    load, choose = toys.Toy.load, sessions.choose_grid
    monkeypatch.setattr(toys.Toy, "load", lambda self, seed, device: loads.append(seed) or load(self, seed, device))
    monkeypatch.setattr(sessions, "choose_grid", lambda *given: grids.append(given[2]) or choose(*given))
    session = Session("cpu")
    for cell in (toy(), toy("rtn"), toy("falls_back"), toy("rtn", bits=2), toy("rtn", seed=1), toy(seed=1)):
        assert run(cell, session).status == "ok"
    assert loads == [0, 1]
    # The first layer's is asked for twice: a quantizer that draws at random shows it there.
    assert grids == [4] * 5 + [2] * 5 + [4] * 5


def test_all_methods_of_a_seed_get_the_same_grid_and_data(
    llama: MakeCell, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def solve(self: RoundToNearest, problem: Any) -> Any:
        batches = problem.train_batches(2, problem.seed_of("batches"))
        seen[self.label()] = (
            [layer.grid.scale for layer in problem.layers],
            [*problem.calibration, next(batches)],
        )
        raise RuntimeError

    monkeypatch.setattr(RoundToNearest, "solve", solve)
    monkeypatch.setattr(GPTQ, "solve", solve)
    for method in (RTN, GPTQ(name="gptq")):
        execute(identify(llama(method)), "test", session, tmp_path / "weights")
    first, second = seen.values()
    for one, two in zip([*first[0], *first[1]], [*second[0], *second[1]], strict=True):
        assert torch.equal(one, two)
