"""Landscapes as models: their options, and what a task offers the runner, methods and probes."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from qbench.geometry.landscape_cases import CASES
from qbench.geometry.valley import Valley
from qbench.geometry.valley_task import ValleyTask
from qbench.registry import METHODS, QUANTIZERS
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.store.record import Record
from qbench.store.schema import dump_record
from qbench.suite.cell import Cell

MakeValley = Callable[..., Valley]
Run = Callable[..., Record]
NAMES = [*CASES, "river_valley"]


def moved(task: ValleyTask, by: float) -> nn.Module:
    """Return the task's model with each weight moved by as much."""
    model = copy.deepcopy(task.model)
    with torch.no_grad():
        model.get_submodule("line").weight.add_(by)
    return model


class TestOptions:
    """What a suite can say of a landscape."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"visible": 200}, "visible and flat are 264 directions, more than dimension 256"),
            (
                {"visible": 192, "curve": 0.1},
                "visible and flat leave no river of dimension 256 to fall along or to bend",
            ),
            (
                {"visible": 192, "slope": 0.1},
                "visible and flat leave no river of dimension 256 to fall along or to bend",
            ),
            ({"offset": 1.0}, "offset 1 lies outside the basin (allowed: below rho, 1)"),
        ],
    )
    def test_parts_that_do_not_fit_are_refused(self, options: dict[str, Any], message: str, valley: MakeValley) -> None:
        with pytest.raises(ValidationError) as caught:
            valley("river_valley", **options)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("river_valley", {"dimension": 1}),
            ("river_valley", {"flat": 0}),
            ("river_valley", {"eps": 0}),
            ("river_valley", {"curvature": -1}),
            ("river_valley", {"metric": "fisher"}),
            ("valley_a", {"noise": -0.1}),
            ("valley_a", {"rho": 0.5}),
        ],
        ids=str,
    )
    def test_options_out_of_bounds_are_refused(self, name: str, options: dict[str, Any], valley: MakeValley) -> None:
        with pytest.raises(ValidationError, match=next(iter(options))):
            valley(name, **options)

    @pytest.mark.parametrize("name", NAMES)
    def test_defaults_have_the_name_for_a_label(self, name: str, valley: MakeValley) -> None:
        assert valley(name).label() == name
        assert valley(name, noise=0.3).label() == f"{name}[noise=0.3]"

    def test_the_hash_follows_numbers_and_seeds(self, valley: MakeValley) -> None:
        same = [valley("river_valley"), valley("river_valley", metric="normal"), valley("river_valley", noise=0.1)]
        assert len({one.fingerprint(0)["landscape"] for one in same}) == 1, "the landscape itself is the same"
        different = [valley("river_valley", **{name: 0.7}) for name in ("offset", "curvature", "slope", "curve")]
        hashes = [one.fingerprint(seed)["landscape"] for one in (same[0], *different) for seed in (0, 1)]
        assert len(set(hashes)) == len(hashes)
        assert valley("valley_a").fingerprint(0) == valley("valley_a").fingerprint(5)
        assert valley("valley_a").fingerprint(0) != valley("valley_a", reverse=True).fingerprint(0)


class TestTask:
    """What the landscape offers as a task."""

    @pytest.mark.parametrize("name", NAMES)
    def test_another_seed_is_another_landscape_where_it_says_so(self, name: str, valley: MakeValley) -> None:
        tasks = [ValleyTask(valley(name), seed, "cpu") for seed in (0, 1)]
        same = torch.equal(*(task.model.get_submodule("line").weight for task in tasks))
        assert same != tasks[0].facts()["seeded"]

    @pytest.mark.parametrize("name", NAMES)
    def test_the_model_starts_at_the_full_precision_weights(self, name: str, valley: MakeValley) -> None:
        model = valley(name)
        task = ValleyTask(model, 2, "cpu")
        assert [one for one, _ in task.blocks()] == ["line"]
        weights = task.model.get_submodule("line").weight
        assert weights.shape == (1, len(task.landscape.start)) and weights.dtype == torch.float32
        np.testing.assert_allclose(weights[0].detach().numpy(), model.setting(2).start, rtol=1e-6)

    @pytest.mark.parametrize("metric", ["hessian", "normal"])
    @pytest.mark.parametrize("name", NAMES)
    def test_second_moments_of_the_inputs_are_the_metric(self, name: str, metric: str, valley: MakeValley) -> None:
        task = ValleyTask(valley(name, metric=metric), 0, "cpu")
        (inputs,) = task.calibration
        assert inputs.dtype == torch.float32 and task.tokens_of(inputs) == len(inputs)
        expected = task.landscape.metric(metric)  # type: ignore[arg-type]
        found = inputs.double().T @ inputs.double() / len(inputs)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
        assert torch.equal(task.forward(task.model, inputs), inputs @ task.model.get_submodule("line").weight.T)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_loss_is_the_function_on_every_kind_of_batch(self, name: str, valley: MakeValley) -> None:
        task = ValleyTask(valley(name), 0, "cpu")
        for model in (task.model, moved(task, 0.5)):
            expected = float(task.landscape.value(model.get_submodule("line").weight[0].detach()))
            batches = [*task.calibration, *task.evaluation_batches(None), *task.evaluation_batches(3)]
            batches += islice(task.train_batches(8, 0), 2)
            assert all(task.loss(model, batch).item() == expected for batch in batches)
            (_, count, total), *others = task.evaluate(model, ("loss",)).documents
            assert not others and total / count == expected

    def test_the_gradient_of_the_loss_is_the_function_s_and_the_noise(self, valley: MakeValley) -> None:
        task = ValleyTask(valley("river_valley", noise=0.3), 0, "cpu")
        for batch in islice(task.train_batches(8, 0), 3):
            model = moved(task, 0.5)
            task.loss(model, batch).backward()
            weight = model.get_submodule("line").weight
            expected = task.landscape.gradient(weight[0].detach()) + batch
            torch.testing.assert_close(weight.grad[0].double(), expected, rtol=1e-5, atol=1e-7)

    def test_the_noise_has_the_asked_deviation_and_is_the_seed_s(self, valley: MakeValley) -> None:
        task = ValleyTask(valley("river_valley", noise=0.3), 0, "cpu")

        def drawn(seed: int, batch_size: int = 8) -> torch.Tensor:
            return torch.stack(list(islice(task.train_batches(batch_size, seed), 100)))

        assert float(drawn(0).std()) == pytest.approx(0.3, rel=0.02)
        assert float(drawn(0).mean()) == pytest.approx(0.0, abs=0.01)
        assert torch.equal(drawn(0), drawn(0, batch_size=64)) and not torch.equal(drawn(0), drawn(1))

    def test_parts_of_the_loss_are_metrics(self, valley: MakeValley) -> None:
        task = ValleyTask(valley("river_valley"), 0, "cpu")
        weights = task.landscape.start + 1.5 * task.landscape.flat[:, 0] + 2.0 * task.landscape.visible[:, 3]
        model = copy.deepcopy(task.model)
        with torch.no_grad():
            model.get_submodule("line").weight.copy_(weights)
        found = task.evaluate(model, ("loss",)).metrics
        away = float((0.6**2 + 1.5**2 + 2 * 1.5 * task.landscape.coordinates(task.landscape.start)[1][0]) ** 0.5)
        expected = {
            "loss/landscape": 0.04 + away - 1 + 5e-5 * away**2,
            "valley/normal_distance": away,
            "valley/visible_distance": 2.0,
            "valley/visible_loss": 0.04,
            "valley/wall": away - 1,
        }
        assert found == pytest.approx(expected, rel=1e-5)

    def test_what_two_points_of_a_training_are_compared_by(self, valley: MakeValley) -> None:
        task = ValleyTask(valley("valley_a"), 0, "cpu")
        deployed = copy.deepcopy(task.model)
        with torch.no_grad():
            deployed.get_submodule("line").weight.copy_(torch.tensor([[11.0, -6.0]]))
        found = task.compare(task.model, deployed)
        # z is 0.65 before and 0.862 after rounding; the gradient is the wall's and eps z / rho^2.
        assert found == pytest.approx(
            {
                "quantization_error": 0.3 / math.sqrt(2),
                "gradient_norm": 1 + 1e-3 * 0.86213 / 0.64,
                "latent_distance": 0.65,
                "inward_cosine": 1.0,
            },
            rel=1e-5,
        )
        assert task.compare(task.model, task.model)["quantization_error"] == 0

    def test_facts(self, valley: MakeValley) -> None:
        for name, tolerance in (("valley_a", 0.01), ("valley_b", 0.01), ("valley_c", 0.02), ("river_valley", 0.02)):
            facts = ValleyTask(valley(name), 0, "cpu").facts()
            assert facts["tolerance"] == tolerance
            assert facts["seeded"] == (name == "river_valley")
            assert ValleyTask(valley(name, noise=0.1), 0, "cpu").facts()["seeded"]
            assert json.loads(json.dumps(facts)) == facts
        assert facts["valley"]["exit_step"] == pytest.approx(0.346, abs=5e-4)
        assert facts["valley"]["compatible_step"] == pytest.approx(0.433, abs=5e-4)
        assert facts["valley"]["offset"] == pytest.approx(0.6)
        case = ValleyTask(valley("valley_c"), 0, "cpu").facts()["valley"]
        assert case["worst_error_per_step"] == pytest.approx(math.sqrt(0.5)) and "exit_step" not in case


@pytest.fixture
def run(valley: MakeValley, tmp_path: Path) -> Run:
    """Return a function that executes a cell of a landscape as a suite does."""

    def execute_cell(name: str, method: str | None, options: dict[str, Any] | None = None, **model: Any) -> Record:
        made: Any = None
        if method is not None:
            made = METHODS.get(method).model_validate({"name": method, **(options or {})})
        rule: Any = QUANTIZERS.get("lattice").model_validate({"name": "lattice", "unit": "absolute", "step": 1.0})
        quantized = {"quantizer": rule, "bits": 8} if made is not None else {"quantizer": None, "bits": None}
        cell = Cell(model=valley(name, **model), method=made, seed=0, metrics=("loss",), **quantized)
        return execute(identify(cell), "valleys", Session("cpu"), tmp_path / "weights.safetensors")

    return execute_cell


@pytest.mark.parametrize("name", NAMES)
def test_cells_of_landscapes_are_executed(name: str, run: Run) -> None:
    full = run(name, None)
    assert full.status == "ok", full.reason
    for method in ("rtn", "gptq", "adaround", "qubo", "block_ap", "brecq"):
        record = run(name, method)
        assert record.status == "ok", f"{method}: {record.reason}"
        assert all(math.isfinite(value) for value in record.metrics.values())
        assert {"loss/landscape", "valley/normal_distance", "valley/wall"} <= record.metrics.keys()
        assert record.documents[0].loss_sum == record.metrics["loss/landscape"] >= full.metrics["loss/landscape"] - 1e-4
        dump_record(record)


def test_a_cell_has_the_loss_of_the_table(run: Run) -> None:
    assert run("valley_c", "rtn").metrics["loss/landscape"] == pytest.approx(0.1863, abs=5e-5)
    plain = {"optimizer": "sgd", "momentum": 0, "schedule": "constant", "clip_norm": None, "learning_rate": 0.05}
    assert run("valley_c", "ste_qat", {"steps": 50, **plain}).metrics["loss/landscape"] < 1e-4
    assert run("valley_c", "latent_grad", {"steps": 50, **plain}).metrics["loss/landscape"] > 0.18
