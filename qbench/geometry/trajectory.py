"""Where training goes: the loss of the deployed and of the latent weights on the way."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from qbench.geometry.scene import Losses, Scene, Weights
from qbench.methods.latent import LatentWeight
from qbench.methods.matrices import to_matrix

_TRAIN_BATCHES, _TRAIN_BATCH = 4, 32
_LATE = 0.8  # of the steps; behind it moments lie evenly, so that a share of them is a share of the steps


def moments(steps: int, count: int) -> tuple[int, ...]:
    """Return the steps at which a training is measured, the first and the last among them.

    Parameters
    ----------
    steps : int
        Updates in all.
    count : int
        At most how many moments; every step where there are enough of them. A third of them lies evenly in the last
        fifth of the steps, the others geometrically before.

    Examples
    --------
    >>> moments(4, 10)
    (0, 1, 2, 3, 4)
    >>> moments(100, 10)
    (0, 1, 2, 6, 14, 33, 80, 87, 93, 100)
    """
    if count > steps:
        return tuple(range(steps + 1))
    late = max(count // 3, 1)
    start = round(_LATE * steps)
    early = max(count - late - 1, 1)
    geometric = {round(start ** (index / max(early - 1, 1))) for index in range(early)}
    even = {round(start + (steps - start) * (index + 1) / late) for index in range(late)}
    # The two ends come first where there is no room for more.
    return tuple(sorted({0, steps} | geometric | even))


class Trajectory:
    """Measures the weights of a training; see `qbench.methods.watch.Watch`.

    Everything is measured in a model of its own: training goes on as if nobody looked.

    Parameters
    ----------
    scene : Scene
        A copy of the full-precision model to measure in.
    trained : nn.Module
        The model in training; its running statistics are taken over where it updates them.
    steps, count : int
        See `moments`.

    Attributes
    ----------
    seconds : float
        Spent here and not in training.
    """

    def __init__(self, scene: Scene, trained: nn.Module, steps: int, count: int) -> None:
        self.seconds = 0.0
        self._scene, self._trained, self._wanted = scene, trained, frozenset(moments(steps, count))
        self._curves: dict[str, list[float]] = {}
        started = time.monotonic()
        self._batches = _training_batches(scene)
        self._train_full = scene.remember("training losses", lambda: self._train_losses(scene.full))
        self._first = {name: value.clone() for name, value in trained.named_buffers()}
        self._before = time.monotonic() - started
        self.seconds += self._before

    def wants(self, step: int) -> bool:
        """Return whether the weights after so many updates are to be measured."""
        return step in self._wanted

    @torch.no_grad()
    def see(self, step: int, weights: Sequence[LatentWeight]) -> None:
        """Measure the weights after `step` updates."""
        started = time.monotonic()
        deployed = {weight.layer.name: weight.deployed().float() for weight in weights}
        latent = {weight.layer.name: to_matrix(weight.layer.module, weight.latent.detach()) for weight in weights}
        finite = all(torch.isfinite(one).all() for one in (*deployed.values(), *latent.values()))
        if finite:  # otherwise training itself says that it diverged
            statistics = self._statistics()
            found = {"step": float(step)}
            for name, own in (("deployed", deployed), ("latent", latent)):
                found[name], found[f"{name}_se"] = self._scene.excess(own, statistics)
            found["train"], found["train_se"] = self._train_losses(deployed, statistics).excess(self._train_full)
            for name, value in (found | self._of_task(latent, deployed)).items():
                self._curves.setdefault(f"trajectory/{name}", []).append(float(value))
        self.seconds += time.monotonic() - started

    def traces(self) -> dict[str, list[float]]:
        """Return the curves, for a record."""
        return dict(self._curves)

    def state(self) -> dict[str, Any]:
        """Return the curves so far, and the seconds that they took after what came before the training."""
        curves = {name: list(curve) for name, curve in self._curves.items()}
        return {"curves": curves, "seconds": self.seconds - self._before}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the curves of an earlier process; see `state`."""
        self._curves = {name: list(curve) for name, curve in state["curves"].items()}
        self.seconds += state["seconds"]

    def _statistics(self) -> dict[str, Tensor]:
        """Return the running statistics that training has changed."""
        return {
            name: value.detach().clone()
            for name, value in self._trained.named_buffers()
            if not torch.equal(value, self._first[name])
        }

    def _train_losses(self, weights: Weights, statistics: dict[str, Tensor] | None = None) -> Losses:
        """Return the losses on fixed training batches, which stand for documents."""
        task = self._scene.task
        sizes = [float(task.tokens_of(batch)) for batch in self._batches]
        with self._scene.at(weights, statistics) as model, torch.no_grad():
            means = [float(task.loss(model, batch)) for batch in self._batches]
        sums = [mean * size for mean, size in zip(means, sizes, strict=True)]
        names = tuple(f"batch {index}" for index in range(len(sums)))
        return Losses(names, torch.tensor(sizes, dtype=torch.float64), torch.tensor(sums, dtype=torch.float64))

    def _of_task(self, latent: Weights, deployed: Weights) -> dict[str, float]:
        """Return what a synthetic landscape knows of two points beside their losses."""
        compare: Callable[..., dict[str, float]] | None = getattr(self._scene.task, "compare", None)
        if compare is None:
            return {}
        with self._scene.at(latent) as model:
            before = copy.deepcopy(model)
        with self._scene.at(deployed) as model:
            found = compare(before, model)
            measured: dict[str, Any] = self._scene.task.evaluate(model, ("loss",)).metrics
        return {f"valley/{name}": value for name, value in found.items()} | {
            name: value for name, value in measured.items() if name.startswith("valley/")
        }


def _training_batches(scene: Scene) -> list[Any]:
    problem = scene.problem
    seed = problem.seed_of("trajectory")
    rows = min(_TRAIN_BATCH, getattr(scene.task, "loss_rows", _TRAIN_BATCH))  # logits of large vocabularies are large
    return list(islice(problem.train_batches(rows, seed), _TRAIN_BATCHES))
