"""Products with the Hessian and the Gauss-Newton matrix, beside other ways to them, on the embedded language model.

F is a forward pass over the samples, nearly all of it products of matrices. A gradient is 3 F. A Hessian-vector product
walks the graph of the gradient once more: two products of each layer's backward pass have two derivatives each, and the
forward pass two, 6 F beside the 3 F of the gradient, which serves all directions. Differences of gradients are two
gradients, 6 F, and right to three digits only.

A Gauss-Newton product is ``J v`` and ``J^T u``, 2 F each once the model is linearised, which costs 3 F and serves all
directions: Lanczos makes 40 of them. The reference is torch's forward mode and a gradient: 3 F and 3 F. One thread.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.func import functional_call, jvp, vjp
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from qbench.geometry.derivatives import Derivatives
from qbench.geometry.lanczos import largest
from qbench.geometry.scene import Scene
from qbench.quantizers.layout import choose_grid
from qbench.registry import MODELS, QUANTIZERS
from qbench.runner.targets import make_problem
from qbench.suite.cell import Cell

InTurns = Callable[..., float]
PAIRS, WINDOWS = 5, 32


@pytest.fixture(scope="module")
def scene() -> Scene:
    spec: Any = MODELS.get("llama-1m").model_validate({"name": "llama-1m", "evaluation_windows": WINDOWS})
    rule: Any = QUANTIZERS.get("mse").model_validate({"name": "mse"})
    task = spec.load(0, "cpu")
    cell = Cell(spec, rule, 2, None, 0, ("loss",))
    model = copy.deepcopy(task.model)
    return Scene(task, make_problem(task, model, cell, lambda place: choose_grid(place.weight, rule, place.bits)))


@pytest.mark.benchmark(group="Hessian-vector product")
def test_a_hessian_product_costs_little_more_than_differences(
    benchmark: BenchmarkFixture, in_turns: InTurns, scene: Scene
) -> None:
    error = scene.rounding_error()
    direction, step = scene.vector(error), 0.02
    found: dict[str, Tensor] = {}

    def ours() -> None:
        with scene.at(scene.full):
            found["ours"] = Derivatives(scene, WINDOWS).gradient_and_hessian([direction])[1][0]

    def reference() -> None:
        ahead, behind = (scene.vector(scene.gradient(scene.moved(error, length), WINDOWS)) for length in (step, -step))
        found["differences"] = (ahead - behind) / (2 * step)

    ratio = in_turns(benchmark, ours, reference, PAIRS, "time beside two gradients")
    off = (found["ours"] - found["differences"]).norm() / found["ours"].norm()
    benchmark.extra_info["relative error of differences"] = float(off)
    assert ratio < 3 and off < 0.02


# torch.func scripts a few formulas with a tool that its newer versions warn of.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.benchmark(group="Gauss-Newton product")
def test_a_gauss_newton_product_is_faster_than_forward_mode(
    benchmark: BenchmarkFixture, in_turns: InTurns, scene: Scene
) -> None:
    direction = scene.vector(scene.rounding_error())
    names = [f"{layer.name}.weight" for layer in scene.problem.layers]
    (batch,) = scene.task.evaluation_batches(WINDOWS)
    found: dict[str, Tensor] = {}

    def logits(weights: dict[str, Tensor]) -> Tensor:
        output = functional_call(scene.model, weights, (), {"input_ids": batch, "use_cache": False})
        return output.logits[:, :-1].flatten(0, 1)

    def reference() -> None:
        weights = {name: layer.weight for name, layer in zip(names, scene.problem.layers, strict=True)}
        along = {f"{name}.weight": one for name, one in scene.weights(direction).items()}
        with sdpa_kernel(SDPBackend.MATH):
            z, moved = jvp(logits, (weights,), (along,))
            p = functional.softmax(z, dim=1)
            bent = (p * moved - p * (p * moved).sum(dim=1, keepdim=True)) / len(z)
            pulled = vjp(logits, weights)[1](bent)[0]
        found["forward mode"] = torch.cat([pulled[name].flatten() for name in names])

    with scene.at(scene.full), Derivatives(scene, WINDOWS).gauss_newton() as matrix:

        def ours() -> None:
            found["ours"] = matrix.product(direction)

        ratio = in_turns(benchmark, ours, reference, PAIRS, "time beside forward mode and a gradient")
    torch.testing.assert_close(found["ours"], found["forward mode"], rtol=1e-3, atol=1e-5)
    assert ratio < 0.7


@pytest.mark.benchmark(group="Lanczos, 40 vectors of a million")
def test_keeping_vectors_orthogonal_costs_little_beside_the_products(
    benchmark: BenchmarkFixture, in_turns: InTurns, scene: Scene
) -> None:
    diagonal = torch.rand(scene.size, generator=torch.Generator().manual_seed(0))
    direction = scene.vector(scene.rounding_error())
    with scene.at(scene.full), Derivatives(scene, WINDOWS).gauss_newton() as matrix:

        def ours() -> None:
            largest(lambda vector: diagonal * vector, direction, 16, 40, torch.Generator().manual_seed(0))

        def reference() -> None:
            for _ in range(40):
                matrix.product(direction)

        ratio = in_turns(benchmark, ours, reference, 1, "time beside 40 products on 32 windows")
    assert ratio < 0.5
