"""Second derivatives of the evaluation loss along directions in the target layers' weights, to the last digit.

A Hessian-vector product is the derivative of ``g(w) . v`` (Pearlmutter, 1994): the gradient's own graph is built once a
batch and walked again for each direction. The Gauss-Newton matrix of logits z is ``G = sum_i c_i J_i^T A_i J_i``, with
``A = diag(p) - p p^T`` the Hessian of the cross entropy in the logits of position i, p its softmax, and c_i the
position's share of the loss (Schraudolph, 2002). ``J v`` is the derivative in u of ``(J^T u) . v``, which is linear in
u, so that its graph serves every v; ``J^T`` of something is a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from qbench.geometry.scene import Scene
from qbench.methods.matrices import from_matrix


class Derivatives:
    """Derivatives of the mean evaluation loss at the weights that are in a scene's model.

    Parameters
    ----------
    scene : Scene
        With the weights in it: to be used inside ``scene.at(weights)``.
    samples : int or None
        Windows or images that the loss is taken over, as in `Scene.gradient`.

    Notes
    -----
    Vectors are those of `Scene.vector`. Where a task has no logits (no ``predict``, a landscape), the Gauss-Newton
    matrix is the Hessian itself: the loss is then its own model. Attention runs as plain products and a softmax
    meanwhile: fused kernels have first derivatives only. Batch norms have the statistics that they have; these do not
    move with the weights.
    """

    def __init__(self, scene: Scene, samples: int | None = None) -> None:
        self._scene = scene
        self._batches = scene.batches(samples)

    def gradient_and_hessian(self, directions: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the gradient, and the product of the Hessian with each direction, all of shape (size,)."""
        scene = self._scene
        gradient = torch.zeros_like(scene.vector(scene.full))
        products = [torch.zeros_like(gradient) for _ in directions]
        with sdpa_kernel(SDPBackend.MATH), scene.leaves() as leaves:
            for batch, share in self._batches:
                loss = share * scene.task.loss(scene.model, batch)
                slopes = torch.autograd.grad(loss, leaves, create_graph=bool(directions), materialize_grads=True)
                gradient += scene.joined([one.detach() for one in slopes])
                for place, direction in enumerate(directions):
                    # A slope that does not depend on any weight has no graph: the loss is linear in its layer.
                    pairs = zip(slopes, self.shaped(direction), strict=True)
                    curved = [(slope, along) for slope, along in pairs if slope.requires_grad]
                    if curved:
                        outputs, along = zip(*curved, strict=True)
                        bent = torch.autograd.grad(outputs, leaves, along, retain_graph=True, materialize_grads=True)
                        products[place] += scene.joined(bent)
        return gradient, products

    @contextmanager
    def gauss_newton(self) -> Iterator[GaussNewton | HessianInstead]:
        """Hold the Gauss-Newton matrix ready for products; it keeps the activations of all samples in memory."""
        scene = self._scene
        if scene.problem.predict is None:
            yield HessianInstead(self)
            return
        with sdpa_kernel(SDPBackend.MATH), scene.leaves() as leaves:
            linear = []
            for batch, share in self._batches:
                logits = scene.problem.predict(scene.model, batch)[0]
                pulled = torch.zeros_like(logits, requires_grad=True)
                slopes = torch.autograd.grad(logits, leaves, pulled, create_graph=True, materialize_grads=True)
                linear.append(_Linearised(share / len(logits), logits, pulled, slopes))
            yield GaussNewton(self, leaves, linear)

    def joined(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return gradients of the layers' weights as a vector; see `Scene.joined`."""
        return self._scene.joined(gradients)

    def shaped(self, direction: Tensor) -> list[Tensor]:
        """Return a vector as a list of tensors in the shapes and types of the layers' weights."""
        matrices = self._scene.weights(direction)
        return [
            from_matrix(layer.module, matrices[layer.name]).to(layer.weight.dtype)
            for layer in self._scene.problem.layers
        ]


@dataclass(frozen=True)
class _Linearised:
    """A batch's logits, of shape (positions, classes), and the graph of ``J^T u`` at u of the same shape."""

    share: float
    logits: Tensor
    pulled: Tensor
    slopes: Sequence[Tensor]

    def moved(self, tangents: Sequence[Tensor]) -> Tensor:
        """Return ``J v``, for v in the shapes of the weights."""
        pairs = [(slope, along) for slope, along in zip(self.slopes, tangents, strict=True) if slope.requires_grad]
        if not pairs:
            return torch.zeros_like(self.logits)
        outputs, along = zip(*pairs, strict=True)
        found: Tensor = torch.autograd.grad(outputs, self.pulled, along, retain_graph=True)[0]
        return found


class GaussNewton:
    """The Gauss-Newton matrix at the weights in a scene's model; made by `Derivatives.gauss_newton`."""

    def __init__(self, derivatives: Derivatives, leaves: Sequence[Tensor], batches: Sequence[_Linearised]) -> None:
        self._derivatives, self._leaves, self._batches = derivatives, leaves, batches

    def product(self, direction: Tensor) -> Tensor:
        """Return the matrix times a direction, of shape (size,)."""
        tangents, product = self._derivatives.shaped(direction), torch.zeros_like(direction)
        for one in self._batches:
            bent = one.share * _bent(one.logits.detach(), one.moved(tangents))
            found = torch.autograd.grad(one.logits, self._leaves, bent, retain_graph=True, materialize_grads=True)
            product += self._derivatives.joined(found)
        return product

    def form(self, direction: Tensor) -> float:
        """Return ``v^T G v``, at half the cost of a product."""
        tangents, total = self._derivatives.shaped(direction), 0.0
        for one in self._batches:
            moved = one.moved(tangents)
            total += one.share * float((moved * _bent(one.logits.detach(), moved)).sum(dtype=torch.float64))
        return total


class HessianInstead:
    """The Hessian in the place of the Gauss-Newton matrix, where there are no logits."""

    def __init__(self, derivatives: Derivatives) -> None:
        self._derivatives = derivatives

    def product(self, direction: Tensor) -> Tensor:
        """Return the matrix times a direction, of shape (size,)."""
        return self._derivatives.gradient_and_hessian([direction])[1][0]

    def form(self, direction: Tensor) -> float:
        """Return ``v^T H v``."""
        return dot(direction, self.product(direction))


def _bent(logits: Tensor, moved: Tensor) -> Tensor:
    """Return ``(diag(p) - p p^T) u`` at each position, for u of shape (positions, classes)."""
    p = logits.softmax(dim=1)
    pulled = p * moved
    return pulled - p * pulled.sum(dim=1, keepdim=True)


def dot(one: Tensor, other: Tensor) -> float:
    """Return the scalar product of two vectors, summed in float64."""
    return float(one.double() @ other.double())


def norm(vector: Tensor) -> float:
    """Return the Euclidean length of a vector, summed in float64."""
    return math.sqrt(dot(vector, vector))


def cosine(one: Tensor, other: Tensor) -> float:
    """Return the cosine of two vectors; 0 where one of them has no length."""
    lengths = norm(one) * norm(other)
    return dot(one, other) / lengths if lengths > 0 else 0.0
