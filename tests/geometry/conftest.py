"""Landscapes as problems for methods, the way the runner makes them, and a look at every step of a training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import pytest
from torch import Tensor

from qbench.geometry.landscape import Landscape, Parts
from qbench.geometry.valley import Valley
from qbench.geometry.valley_task import ValleyTask
from qbench.methods.problem import LayerSolution
from qbench.quantizers.layout import choose_grid
from qbench.registry import METHODS, MODELS, QUANTIZERS
from qbench.runner.targets import make_problem
from qbench.suite.cell import Cell


@dataclass
class Path:
    """Where a training went, update by update, from the start on.

    Attributes
    ----------
    landscape : Landscape
        The function.
    solution : LayerSolution
        What the method returned.
    latent, deployed : list of Tensor of shape (d,)
        Weights in training and their nearest levels, in float64; of methods that train.
    """

    landscape: Landscape
    solution: LayerSolution
    latent: list[Tensor] = field(default_factory=list)
    deployed: list[Tensor] = field(default_factory=list)

    @property
    def end(self) -> Tensor:
        """The deployed weights, of shape (d,)."""
        return self.solution.weight()[0].double()

    @property
    def end_parts(self) -> Parts:
        """What f is made of there."""
        return self.landscape.parts(self.end)

    def losses(self) -> list[float]:
        """Return f of the deployed weights on the way."""
        return [float(self.landscape.value(point)) for point in self.deployed]

    def entry(self) -> int | None:
        """Return the first moment at which the deployed weights are within the wall."""
        rho = self.landscape.setting.rho
        distances = (self.landscape.parts(point).normal_distance for point in self.deployed)
        return next((step for step, distance in enumerate(distances) if distance <= rho), None)


Solve = Callable[..., Path]


class _EveryStep:
    def __init__(self) -> None:
        self.latent: list[Tensor] = []
        self.deployed: list[Tensor] = []

    def wants(self, step: int) -> bool:
        return True

    def see(self, step: int, weights: Sequence[Any]) -> None:
        (weight,) = weights
        self.latent.append(weight.latent.detach()[0].double().clone())
        self.deployed.append(weight.deployed()[0].double())


@lru_cache(maxsize=64)
def _task(model: Valley, seed: int) -> ValleyTask:
    return ValleyTask(model, seed, "cpu")


@pytest.fixture
def solve() -> Solve:
    """Return a function that lets a method of the registry solve a landscape on a lattice of a given step."""

    def run(model: Valley, step: float, method: str, seed: int = 0, **options: Any) -> Path:
        rule: Any = QUANTIZERS.get("lattice").model_validate({"name": "lattice", "unit": "absolute", "step": step})
        spec: Any = METHODS.get(method).model_validate({"name": method, **options})
        task = _task(model, seed)
        cell = Cell(model=model, quantizer=rule, bits=8, method=spec, seed=seed, metrics=("loss",))
        problem = make_problem(
            task, copy.deepcopy(task.model), cell, lambda place: choose_grid(place.weight, rule, place.bits)
        )
        watch = _EveryStep()
        solution = spec.solve(replace(problem, watch=watch))
        solution.check(problem)
        return Path(task.landscape, solution.layers["line"], watch.latent, watch.deployed)

    return run


@pytest.fixture
def valley() -> Callable[..., Valley]:
    """Return a function that makes a landscape by its name in the registry."""

    def make(name: str, **options: Any) -> Valley:
        made = MODELS.get(name).model_validate({"name": name, **options})
        assert isinstance(made, Valley)
        return made

    return make
