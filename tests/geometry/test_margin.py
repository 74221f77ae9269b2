"""Probes that move weights by random errors: what they cost on a bowl, where they go, and on real models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.geometry.margin import LayerMargins, Margin
from qbench.geometry.moved import drawn, each_once
from qbench.geometry.sampled_loss import HIGHEST
from qbench.geometry.scene import Findings
from qbench.geometry.stand_in import Move, shrinkage
from qbench.registry import MODELS
from qbench.tasks.image_data import ImageBatch

from .scenes import Classification, _built, bowl, digits, language, network, normalised, regression, scene_of

INPUTS = [regression().data.images]


def margin(**options: Any) -> Margin:
    return Margin(name="margin", **options)


def each(**options: Any) -> LayerMargins:
    return LayerMargins(name="layer_margins", **options)


def test_on_a_bowl_it_is_the_cost_of_the_shrinkage_and_of_independent_signs() -> None:
    task, hessian, lowest = bowl(rows=1, columns=8)
    task.model[0].weight.data = lowest.view(1, 8)
    inputs = torch.eye(8)  # nothing to be handed on: both kinds are the same
    scene = scene_of(task, bits=2, calibration=[inputs])
    found = margin(draws=64).measure(scene)
    error, full = scene.vector(scene.rounding_error()), scene.vector(scene.full)
    along = float(shrinkage(full[None], error[None])) * full
    rest = error - along
    shrunk = 0.5 * float(along @ hessian @ along)
    costs = torch.tensor(found.traces["matched/draws"])
    wanted = shrunk + 0.5 * float(hessian.diagonal() @ rest.square())
    assert float(costs.mean()) == pytest.approx(wanted, abs=4 * float(costs.std()) / 8)
    assert found.metrics["matched/excess"] == pytest.approx(float(costs.mean()))
    assert found.metrics["matched/se"] == 0
    assert found.traces["second_order/draws"] == pytest.approx(found.traces["matched/draws"], rel=1e-3)
    assert found.metrics["shrinkage"] == pytest.approx(-float(error @ full) / float(full @ full), rel=1e-5)


def test_sizes_are_those_of_the_rounding_error() -> None:
    scene = scene_of(network(), calibration=INPUTS)
    found = margin().measure(scene).metrics
    error, full = scene.rounding_error(), scene.full
    assert found["relative_error"] == pytest.approx(float(scene.vector(error).norm() / scene.vector(full).norm()))
    for name, weight in full.items():
        assert found[f"relative_error/{name}"] == pytest.approx(float(error[name].norm() / weight.norm()))
        assert found[f"weights/{name}"] == weight.numel()
    assert found["sample_tokens"] == 33 and found["passes"] == 1 + 2 * 2
    assert found["full_loss"] == pytest.approx(scene.full_losses.mean, rel=1e-5)


def test_numbers_have_the_names_of_the_places() -> None:
    found = each(draws=2).measure(scene_of(network(), calibration=INPUTS))
    assert found.traces.keys() == {"0/draws", "2/draws"}
    assert {"0/excess", "0/se", "2/excess", "2/se"} <= found.metrics.keys()
    assert all(len(curve) == 2 for curve in found.traces.values())
    assert found.metrics["0/excess"] == pytest.approx(sum(found.traces["0/draws"]) / 2)


@pytest.mark.parametrize("place", ["0", "2"])
def test_a_place_is_the_loss_with_that_layer_moved_alone(place: str) -> None:
    scene = scene_of(network(), bits=2)
    found = each(budget=33).measure(scene)
    error = scene.rounding_error()[place]
    own = drawn(scene.full[place], error, Move("matched"), place, scene.problem.seed_of, None)
    moved = scene.full | {place: scene.full[place] + own}
    assert found.metrics[f"{place}/excess"] == pytest.approx(scene.excess(moved)[0], abs=1e-6)


def test_a_draw_of_a_layer_is_the_same_in_all_moves() -> None:
    scene = scene_of(network(), calibration=INPUTS)
    seed_of, full, error = scene.problem.seed_of, scene.full["2"], scene.rounding_error()["2"]
    alone = drawn(full, error, Move("matched", 1, frozenset({"2"})), "2", seed_of, None)
    assert torch.equal(alone, drawn(full, error, Move("matched", 1), "2", seed_of, None))
    assert not torch.equal(alone, drawn(full, error, Move("matched", 0), "2", seed_of, None))
    other = drawn(full, error, Move("matched", 1), "0", seed_of, None)
    assert not torch.equal(alone, other)


def test_a_move_with_two_names_is_made_once() -> None:
    one, other = Move("matched", 0, frozenset({"a"})), Move("matched", 0, frozenset({"b"}))
    assert each_once({"x": [one, other], "y": [other]}) == [one, other]


@pytest.mark.parametrize("probe", [margin(), each()], ids=["margin", "layer_margins"])
def test_it_is_the_same_again_and_the_model_stays_as_it_was(probe: Margin | LayerMargins) -> None:
    def measured() -> tuple[Findings, Any]:
        scene = scene_of(network(), calibration=INPUTS)
        before = {name: value.clone() for name, value in scene.model.state_dict().items()}
        found = probe.measure(scene)
        assert all(torch.equal(value, before[name]) for name, value in scene.model.state_dict().items())
        return found, scene

    first, scene = measured()
    assert measured()[0] == first
    torch.manual_seed(7)
    assert probe.measure(scene) == first


def test_what_is_remembered_of_full_precision_changes_nothing() -> None:
    memory: dict[Any, Any] = {}
    three = margin().measure(scene_of(network(), calibration=INPUTS, memory=memory, bits=3))
    assert memory
    two = margin().measure(scene_of(network(), calibration=INPUTS, memory=memory, bits=2))
    assert two == margin().measure(scene_of(network(), calibration=INPUTS, bits=2))
    assert two.metrics["full_loss"] == three.metrics["full_loss"]
    assert two.metrics["relative_error"] > three.metrics["relative_error"]


def test_a_loss_that_is_no_number_counts_as_the_highest() -> None:
    @dataclass
    class Breaks(Classification):
        def predict(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, Tensor]:
            logits, labels = super().predict(model, batch)
            same = torch.equal(model[2].weight, self.model[2].weight)  # type: ignore[index]
            return logits if same else logits / 0, labels

    task = network()
    found = each(budget=33).measure(scene_of(Breaks(task.model, task.data)))
    assert found.metrics["2/excess"] == pytest.approx(HIGHEST - found.metrics["full_loss"])
    assert abs(found.metrics["0/excess"]) < 1


def test_nothing_to_round_is_said() -> None:
    task = network()
    with torch.no_grad():
        for name in (0, 2):
            task.model[name].weight.zero_()  # type: ignore[index, operator]
    with pytest.raises(CellError, match=r"^rounding to nearest leaves every weight as it is: there is no error to"):
        margin().measure(scene_of(task, calibration=INPUTS))


def test_batch_norms_are_estimated_again_at_every_place() -> None:
    scenes = {
        way: scene_of(normalised(), bits=2, calibration=INPUTS, recalibrates=way == "recalibrate")
        for way in ("keep", "recalibrate")
    }
    found = {way: margin(bn=way).measure(scene) for way, scene in scenes.items()}
    assert found["keep"].metrics["matched/excess"] != found["recalibrate"].metrics["matched/excess"]
    assert found["keep"].metrics["relative_error"] == found["recalibrate"].metrics["relative_error"]
    scene = scenes["recalibrate"]
    moved = {
        name: full + drawn(full, scene.rounding_error()[name], Move("matched"), name, scene.problem.seed_of, None)
        for name, full in scene.full.items()
    }
    assert found["recalibrate"].traces["matched/draws"][0] == pytest.approx(scene.excess(moved)[0], abs=1e-6)


def test_it_measures_the_embedded_language_model_as_the_evaluation_does() -> None:
    scene = language(evaluation_windows=6)
    found = margin(draws=1).measure(scene)
    assert found.metrics["full_loss"] == pytest.approx(scene.full_losses.mean, rel=0.02)
    excess, _ = scene.excess(scene.rounded())
    assert found.metrics["matched/excess"] == pytest.approx(excess, rel=0.5)
    assert 0 < found.metrics["second_order/excess"] < found.metrics["matched/excess"]
    assert found.metrics["matched/se"] > 0


def test_it_measures_classifiers() -> None:
    scene = digits()
    found = margin(budget=205, draws=1).measure(scene)
    assert found.metrics["matched/excess"] > 0
    assert len(each(budget=100).measure(scene).traces) == len(scene.full)


def test_convolutions_with_groups_hand_on_group_by_group() -> None:
    spec: Any = MODELS.get("mobilenet-mnist").model_validate(
        {"name": "mobilenet-mnist", "evaluation_images": 64, "calibration_images": 64}
    )
    scene = _built(spec, recalibrates=True)
    assert any(getattr(layer.module, "groups", 1) > 1 for layer in scene.problem.layers)
    found = margin(budget=64, calibration=32, draws=1, bn="recalibrate").measure(scene)
    assert all(math.isfinite(value) for value in found.metrics.values())
    assert found.metrics["second_order/excess"] != found.metrics["matched/excess"]
    by_place = each(budget=32, most=8, bn="recalibrate").measure(scene)
    assert all(math.isfinite(value) for value in by_place.metrics.values())


@pytest.mark.parametrize("options", [{"draws": 0}, {"draws": 65}, {"budget": 0}, {"most": 3}])
def test_options_have_limits(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        each(**options)
