"""A scene: what is put into the model, what is measured there, and that nothing of it stays."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from qbench.errors import CellError
from qbench.geometry.scene import Losses, Point, Scene
from qbench.methods.batch_norm import recalibrate
from qbench.quant.block_grid import fake_quantize

from .scenes import bowl, digits, language, network, normalised, regression, scene_of

REAL = {"language model": language, "classifier": digits}
each_real = pytest.mark.parametrize("make", REAL.values(), ids=REAL.keys())


@each_real
def test_the_loss_of_gradients_is_the_loss_that_is_measured(make: Callable[..., Scene]) -> None:
    scene = make()
    for weights in (scene.full, scene.rounded()):
        assert scene.mean_loss(weights) == pytest.approx(scene.losses(weights).mean, rel=1e-6)


@each_real
def test_the_gradient_is_the_slope_of_the_loss_that_is_measured(make: Callable[..., Scene]) -> None:
    scene = make()
    gradient = scene.gradient(scene.rounded())
    direction = {name: one / scene.vector(gradient).norm() for name, one in gradient.items()}
    step = 0.02

    def loss(length: float) -> float:
        return scene.losses({name: one + length * direction[name] for name, one in scene.rounded().items()}).mean

    slope = (8 * (loss(step) - loss(-step)) - (loss(2 * step) - loss(-2 * step))) / (12 * step)
    assert slope == pytest.approx(float(scene.vector(gradient).norm()), rel=0.01)


def test_a_gradient_on_some_samples_is_that_of_their_loss() -> None:
    scene, x, y = scene_of(task := network()), task.data.images[:9], task.data.labels[:9]
    model = copy.deepcopy(task.model)
    wanted = torch.autograd.grad(functional.cross_entropy(model(x), y), [model[0].weight, model[2].weight])
    found = scene.gradient(scene.full, 9)
    for one, other in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert scene.mean_loss(scene.full, None, 9) == pytest.approx(functional.cross_entropy(model(x), y).item(), rel=1e-6)


def test_a_layer_that_the_loss_leaves_alone_has_no_slope() -> None:
    task, _, _ = bowl()
    task.model.add_module("idle", torch.nn.Linear(3, 2))
    assert not scene_of(task).gradient(scene_of(task).full)["idle"].any()


@each_real
def test_nothing_stays(make: Callable[..., Scene]) -> None:
    scene = make()
    before = {name: value.clone() for name, value in scene.model.state_dict().items()}
    scene.gradient(scene.rounded())
    scene.excess(scene.rounded())
    with pytest.raises(ZeroDivisionError), scene.at(scene.rounded()):
        raise ZeroDivisionError
    with pytest.raises(CellError, match="not finite"):
        scene.losses({name: one * math.nan for name, one in scene.full.items()})
    for name, value in scene.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(parameter.requires_grad for parameter in scene.model.parameters())
    assert scene.excess(scene.full) == (0.0, 0.0)


def test_excess_and_its_error_are_those_of_the_documents() -> None:
    scene = scene_of(task := regression())
    excess, se = scene.excess(scene.rounded())
    model = copy.deepcopy(task.model)
    full = functional.cross_entropy(model(task.data.images), task.data.labels, reduction="none")
    model[0].weight.data = scene.rounded()["0"]
    other = functional.cross_entropy(model(task.data.images), task.data.labels, reduction="none")
    difference = (other - full).detach().double()
    assert excess == pytest.approx(float(difference.mean()), rel=1e-5)
    jackknife = torch.stack([torch.cat([difference[: 5 * i], difference[5 * i + 5 :]]).mean() for i in range(7)])
    # Leaving documents out one by one is another way to the error of a ratio.
    assert se == pytest.approx(math.sqrt(6 / 7 * float((jackknife - jackknife.mean()).square().sum())), rel=0.1)


def test_a_landscape_has_no_sampling_error() -> None:
    scene = scene_of(bowl()[0])
    excess, se = scene.excess(scene.rounded())
    assert excess != 0 and se == 0


def test_an_average_is_document_by_document() -> None:
    draws = [Losses(("a", "b"), torch.tensor([1.0, 3.0]), torch.tensor(sums)) for sums in ([1.0, 2.0], [3.0, 8.0])]
    assert Losses.average(draws).sums.tolist() == [2.0, 5.0]
    assert Losses.average(draws).mean == pytest.approx((draws[0].mean + draws[1].mean) / 2)


def test_rounded_weights_are_nearest_on_the_grid() -> None:
    scene = scene_of(network(), bits=2)
    for layer in scene.problem.layers:
        assert torch.equal(scene.rounded()[layer.name], fake_quantize(layer.matrix(), layer.grid))
        steps = scene.steps()[layer.name].expand_as(layer.matrix())
        inside = scene.rounding_error()[layer.name].abs() <= 0.5 * steps * (1 + 1e-5)
        assert inside.all()  # absmax: nothing is clipped


def test_a_vector_holds_the_weights_in_order() -> None:
    scene = scene_of(network())
    vector = scene.vector(scene.full)
    assert vector.shape == (scene.size,) == (36,)
    assert torch.equal(vector[:24], scene.full["0"].flatten())
    back = scene.weights(vector)
    assert all(torch.equal(back[name], one) for name, one in scene.full.items())


def test_weights_on_their_grid_have_no_error_to_look_along() -> None:
    task, _, _ = bowl()
    task.model[0].weight.data = torch.tensor([[1.0, -2, 0, 1], [0, 1, -2, 1]])
    scene = scene_of(task, bits=2, rule_options={"convention": "larger_side"})
    with pytest.raises(CellError, match=r"^rounding to nearest leaves every weight as it is"):
        scene.rounding_error()


def test_recalibrated_statistics_are_those_of_the_weights_in_losses_and_gradients() -> None:
    task = normalised()
    calibration = [task.data.images[:16] * 1.5, task.data.images[16:]]
    scene = scene_of(task, bits=2, calibration=calibration, recalibrates=True)
    model = copy.deepcopy(task.model)
    model[0].weight.data, model[3].weight.data = scene.rounded()["0"], scene.rounded()["3"]
    recalibrate(model, lambda model, batch: model(batch), calibration)
    loss = functional.cross_entropy(model(task.data.images), task.data.labels)
    assert scene.losses(scene.rounded()).mean == pytest.approx(loss.item(), rel=1e-5)
    wanted = torch.autograd.grad(loss, [model[0].weight, model[3].weight])
    for one, other in zip(scene.gradient(scene.rounded()).values(), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    kept = scene_of(task, bits=2, calibration=calibration)
    assert kept.losses(scene.rounded()).mean != pytest.approx(loss.item(), rel=1e-3)


def test_statistics_are_estimated_again_only_where_there_are_any() -> None:
    with pytest.raises(CellError, match="no batch norm"):
        scene_of(network(), recalibrates=True)


def test_a_point_brings_its_statistics_and_a_path_between_mixes_them() -> None:
    task = normalised()
    scene = scene_of(task)
    mean = task.model[1].running_mean.clone()
    counted = {"1.num_batches_tracked": torch.tensor(99)}
    scene.points["moved"] = Point(scene.full, {"1.running_mean": mean + 1, **counted})
    assert scene.excess_of("moved")[0] != 0
    half = scene.between(Point(scene.full), scene.points["moved"], 0.25)
    torch.testing.assert_close(half.statistics, {"1.running_mean": mean + 0.25})
    end = scene.between(Point(scene.full), scene.points["moved"], 1.0)
    assert scene.excess_at(end)[0] == pytest.approx(scene.excess_of("moved")[0], rel=1e-6)


def test_memory_is_shared_by_scenes_of_other_grids_and_by_no_others() -> None:
    memory: dict[object, object] = {}
    task, calls = normalised(), []
    calibration = [task.data.images]

    def ask(**options: object) -> None:
        scene = scene_of(task, calibration=calibration, memory=memory, **options)
        scene.remember("what", lambda: calls.append(options))
        assert scene.full_losses.mean == pytest.approx(scene.losses(scene.full).mean)

    ask(bits=2)
    ask(bits=4)
    assert len(calls) == 1
    ask(bits=2, recalibrates=True)
    assert len(calls) == 2


def test_chance_is_the_same_again_and_another_for_another_purpose() -> None:
    scene = scene_of(regression())
    drawn = [torch.rand(3, generator=scene.generator(*purpose)) for purpose in (("a", 0), ("a", 0), ("a", 1), ("b", 0))]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[3])
