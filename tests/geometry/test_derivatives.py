"""Second derivatives beside closed forms, torch's own, and differences on a real network with attention."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from qbench.geometry.derivatives import Derivatives, cosine, norm
from qbench.geometry.scene import Scene

from .scenes import Classification, Landscape, bowl, language, network, normalised, regression, scene_of


def explicit(scene: Scene, matrix: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([matrix(axis) for axis in torch.eye(scene.size)])


def hessian_of(scene: Scene, samples: int | None = None) -> Tensor:
    with scene.at(scene.full):
        return torch.stack(Derivatives(scene, samples).gradient_and_hessian(list(torch.eye(scene.size)))[1])


def gauss_newton_of(scene: Scene, samples: int | None = None) -> Tensor:
    with scene.at(scene.full), Derivatives(scene, samples).gauss_newton() as matrix:
        return explicit(scene, matrix.product)


def as_function(scene: Scene, task: Classification) -> Callable[[Tensor], Tensor]:
    """Return the logits of all inputs as a function of the weights end to end."""
    model = copy.deepcopy(task.model)

    def logits(vector: Tensor) -> Tensor:
        weights = {f"{name}.weight": one for name, one in scene.weights(vector).items()}
        return functional_call(model, weights, (task.data.images,))

    return logits


def test_softmax_regression_in_closed_form() -> None:
    scene = scene_of(task := regression())
    x, p = task.data.images, task.model(task.data.images).softmax(dim=1).detach()
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    wanted = torch.einsum("nab,nc,nd->acbd", middle, x, x).reshape(18, 18) / len(x)
    torch.testing.assert_close(hessian_of(scene), wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gauss_newton_of(scene), wanted, rtol=1e-4, atol=1e-6)
    error = (p - functional.one_hot(task.data.labels, 3)).T @ x / len(x)
    torch.testing.assert_close(scene.gradient(scene.full)["0"], error, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [network, normalised])
def test_hessian_and_gauss_newton_are_those_of_torch(make: Callable[[], Classification]) -> None:
    scene = scene_of(task := make())
    logits, start = as_function(scene, task), scene.vector(scene.full)
    hessian = torch.autograd.functional.hessian(
        lambda vector: functional.cross_entropy(logits(vector), task.data.labels), start
    )
    torch.testing.assert_close(hessian_of(scene), hessian, rtol=1e-4, atol=1e-5)
    jacobian = torch.autograd.functional.jacobian(logits, start)
    p = logits(start).softmax(dim=1).detach()
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    wanted = torch.einsum("nai,nab,nbj->ij", jacobian, middle, jacobian) / len(p)
    torch.testing.assert_close(gauss_newton_of(scene), wanted, rtol=1e-4, atol=1e-5)
    assert float((hessian - wanted).norm() / wanted.norm()) > 0.01  # two different matrices


def test_forms_are_those_of_the_products() -> None:
    for scene in (scene_of(network()), scene_of(bowl()[0])):
        direction = scene.vector(scene.rounding_error())
        with scene.at(scene.full), Derivatives(scene).gauss_newton() as matrix:
            assert matrix.form(direction) == pytest.approx(float(direction @ matrix.product(direction)), rel=1e-5)


def test_a_landscape_has_its_hessian_for_a_gauss_newton_matrix() -> None:
    task, hessian, _ = bowl()
    scene = scene_of(task)
    torch.testing.assert_close(hessian_of(scene), hessian, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gauss_newton_of(scene), hessian, rtol=1e-5, atol=1e-6)


def test_a_linear_loss_is_flat() -> None:
    task = Landscape(nn.Sequential(nn.Linear(3, 2, bias=False)), lambda model: model[0].weight.sum() * 2)
    scene = scene_of(task)
    with scene.at(scene.full):
        gradient, products = Derivatives(scene).gradient_and_hessian([torch.ones(6)])
    assert gradient.tolist() == [2] * 6 and products[0].tolist() == [0] * 6


def test_derivatives_are_those_of_the_samples() -> None:
    task = network()
    few = Classification(task.model, type(task.data)(task.data.images[:9], task.data.labels[:9]))
    torch.testing.assert_close(hessian_of(scene_of(task), 9), hessian_of(scene_of(few)))
    torch.testing.assert_close(gauss_newton_of(scene_of(task), 9), gauss_newton_of(scene_of(few)))


def test_a_network_with_attention_beside_differences() -> None:
    scene = language(evaluation_windows=2)
    direction = scene.vector(scene.rounding_error())
    step = 0.02
    ahead, behind = (scene.moved(scene.rounding_error(), length) for length in (step, -step))
    slopes = [scene.vector(scene.gradient(weights)).double() for weights in (ahead, behind)]
    with scene.at(scene.full):
        gradient, (product,) = Derivatives(scene).gradient_and_hessian([direction])
        with Derivatives(scene).gauss_newton() as matrix:
            form = matrix.form(direction)
    difference = (slopes[0] - slopes[1]) / (2 * step)
    assert norm(product.double() - difference) < 0.02 * norm(difference)
    torch.testing.assert_close(gradient, scene.vector(scene.gradient(scene.full)), rtol=1e-3, atol=1e-5)
    logits = []
    for weights in (ahead, behind):
        with scene.at(weights), torch.no_grad():
            logits.append(scene.task.predict(scene.model, scene.task.evaluation_batches()[0])[0].double())
    with torch.no_grad():
        p = scene.task.predict(scene.model, scene.task.evaluation_batches()[0])[0].double().softmax(dim=1)
    moved = (logits[0] - logits[1]) / (2 * step)
    # The variance of the moved logits under the softmax, averaged over positions.
    wanted = ((p * moved.square()).sum(dim=1) - (p * moved).sum(dim=1).square()).mean()
    assert form == pytest.approx(float(wanted), rel=0.01)


def test_weights_are_free_of_graphs_afterwards() -> None:
    scene = scene_of(network())
    hessian_of(scene)
    gauss_newton_of(scene)
    assert not any(parameter.requires_grad for parameter in scene.model.parameters())


def test_cosines() -> None:
    assert cosine(torch.tensor([1.0, 0]), torch.tensor([1.0, 1])) == pytest.approx(0.5**0.5)
    assert cosine(torch.zeros(2), torch.ones(2)) == 0
