"""Where probes measure: a model whose target layers can be given any weights, and its loss there."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.batch_norm import estimable, recalibrate
from qbench.methods.matrices import to_matrix
from qbench.methods.problem import Problem
from qbench.quant.block_grid import fake_quantize
from qbench.seeds import derive_seed

T = TypeVar("T")

NOTHING_TO_LOOK_ALONG = "rounding to nearest leaves every weight as it is: there is no error to look along"
"""What a probe says that has no direction."""

Weights = dict[str, Tensor]
"""A point in weight space: each target layer's matrix of shape (rows, columns), float32, by layer name."""


@dataclass(frozen=True)
class Findings:
    """What a probe found.

    Attributes
    ----------
    metrics : dict of str to float
        Single numbers.
    traces : dict of str to list of float
        Curves.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    traces: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """Weights that a cell deployed.

    Attributes
    ----------
    weights : dict of str to Tensor
        By layer name.
    statistics : dict of str to Tensor
        Running statistics of batch norms that are deployed with them, by buffer name.
    """

    weights: Weights
    statistics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Losses:
    """Losses on the evaluation split, document by document.

    Attributes
    ----------
    names : tuple of str
        Documents.
    tokens, sums : Tensor of shape (documents,)
        Predicted tokens (or images) and the sum of their losses, nats; float64, on the CPU.
    """

    names: tuple[str, ...]
    tokens: Tensor
    sums: Tensor

    @property
    def mean(self) -> float:
        """The loss in nats a token (or an image)."""
        return float(self.sums.sum() / self.tokens.sum())

    @classmethod
    def average(cls, draws: Sequence[Losses]) -> Losses:
        """Return the mean of several losses on the same documents, document by document."""
        return cls(draws[0].names, draws[0].tokens, torch.stack([one.sums for one in draws]).mean(dim=0))

    def excess(self, full: Losses) -> tuple[float, float]:
        """Return how far these losses lie above others on the same documents, and the standard error of that.

        Returns
        -------
        tuple of float
            Nats a token. The error is that of a ratio of sums over clusters (Cochran 1977, section 6.3), 0 where there
            is a single document: then nothing is drawn.
        """
        assert self.names == full.names
        difference, count = self.sums - full.sums, len(self.names)
        mean = float(difference.sum() / self.tokens.sum())
        if count < 2:
            return mean, 0.0
        residual = difference - mean * self.tokens
        return mean, math.sqrt(count / (count - 1) * float(residual.square().sum())) / float(self.tokens.sum())


class Scene:
    """A model in which the weights of the target layers can be moved.

    Parameters
    ----------
    task : Task
        Gives the data and the loss.
    problem : Problem
        A copy of the full-precision model, with the cell's grids. The scene owns it.
    points : mapping of str to Point
        Deployed weights, by the label of the method.
    recalibrates : bool
        Whether batch norms are estimated again at every point that is measured.
    memory : dict, optional
        What is kept of the full-precision model, for the scenes of other cells that start from the same one: hand them
        all one dictionary, for as long as the model, its data and the seed are the same.

    Raises
    ------
    CellError
        Batch norms are to be estimated again, and the model has none for which that can be done.
    """

    def __init__(
        self,
        task: Any,
        problem: Problem,
        points: Mapping[str, Point] | None = None,
        *,
        recalibrates: bool = False,
        memory: dict[Hashable, Any] | None = None,
    ) -> None:
        self.task, self.problem, self.points = task, problem, dict(points or {})
        self.model: nn.Module = problem.model.eval().requires_grad_(requires_grad=False)
        self._recalibrates = recalibrates
        if recalibrates:
            estimable(self.model)
        self._buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        self.full: Weights = {layer.name: layer.matrix().clone() for layer in problem.layers}
        self._memory: dict[Hashable, Any] = {} if memory is None else memory

    def remember(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept of the full-precision model under a key, making it where it is missing.

        Parameters
        ----------
        key : hashable
            Everything that it depends on, but for the model, the target layers and what batch norms are.
        make : callable
            Makes it. It must depend neither on the cell's grids nor on its points.
        """
        whole = (key, tuple(self.full), self._recalibrates)
        if whole not in self._memory:
            self._memory[whole] = make()
        found: T = self._memory[whole]
        return found

    @property
    def full_losses(self) -> Losses:
        """Losses of the full-precision weights."""
        return self.remember("losses", lambda: self.losses(self.full))

    @property
    def size(self) -> int:
        """Number of weights of the target layers."""
        return sum(matrix.numel() for matrix in self.full.values())

    def vector(self, weights: Weights) -> Tensor:
        """Return weights end to end, in the order of the layers, of shape (size,)."""
        return torch.cat([weights[name].flatten() for name in self.full])

    def weights(self, vector: Tensor) -> Weights:
        """Return what `vector` was given."""
        parts = vector.split([matrix.numel() for matrix in self.full.values()])
        return {name: part.view(self.full[name].shape) for name, part in zip(self.full, parts, strict=True)}

    def steps(self) -> Weights:
        """Return each weight's step, the scale of its block, in shapes that broadcast against the matrices."""
        return {
            layer.name: layer.grid.by_column(self.full[layer.name].shape[1], len(self.full[layer.name]))[0]
            for layer in self.problem.layers
        }

    def generator(self, *purpose: str | int) -> torch.Generator:
        """Return a named stream of the cell's chance, on the CPU: draws are the same on every device."""
        return torch.Generator().manual_seed(derive_seed(self.problem.seed_of(str(purpose[0])), *purpose))

    def rounded(self) -> Weights:
        """Return the nearest codeword of the full-precision weights on the cell's grids."""
        return {layer.name: fake_quantize(self.full[layer.name], layer.grid) for layer in self.problem.layers}

    def rounding_error(self) -> Weights:
        """Return what `rounded` lies off the full-precision weights.

        Raises
        ------
        CellError
            Nowhere: then there is no direction to look along.
        """
        rounded = self.rounded()
        error = {name: rounded[name] - weight for name, weight in self.full.items()}
        if not any(bool(one.any()) for one in error.values()):
            raise CellError(NOTHING_TO_LOOK_ALONG)
        return error

    def moved(self, direction: Weights, length: float) -> Weights:
        """Return the full-precision weights, moved along a direction by so many times its length."""
        return {name: weight + length * direction[name] for name, weight in self.full.items()}

    def between(self, one: Point, other: Point, t: float) -> Point:
        """Return the point ``(1 - t) one + t other``, statistics of batch norms likewise.

        Statistics that only one of the two has of its own go to those of full precision. Counts do not mix: they are
        those of full precision.
        """
        weights = {name: torch.lerp(one.weights[name], other.weights[name], t) for name in self.full}
        names = [name for name in {**one.statistics, **other.statistics} if self._buffers[name].is_floating_point()]
        ends = [{name: point.statistics.get(name, self._buffers[name]) for name in names} for point in (one, other)]
        return Point(weights, {name: torch.lerp(ends[0][name], ends[1][name], t) for name in names})

    def losses(self, weights: Weights, statistics: Mapping[str, Tensor] | None = None) -> Losses:
        """Return the losses of weights on the evaluation split."""
        with self.at(weights, statistics):
            found = self.task.evaluate(self.model, ("loss",))
        names, tokens, sums = zip(*found.documents, strict=True)
        return Losses(names, torch.tensor(tokens, dtype=torch.float64), torch.tensor(sums, dtype=torch.float64))

    def excess(self, weights: Weights, statistics: Mapping[str, Tensor] | None = None) -> tuple[float, float]:
        """Return the excess loss of weights over full precision and its standard error, nats a token (or an image)."""
        return self.losses(weights, statistics).excess(self.full_losses)

    def excess_at(self, point: Point) -> tuple[float, float]:
        """Return the excess loss of a point, as `excess` does."""
        return self.excess(point.weights, point.statistics)

    def excess_of(self, label: str) -> tuple[float, float]:
        """Return the excess loss of the point of a label, as `excess` does."""
        return self.excess_at(self.points[label])

    @contextmanager
    def at(self, weights: Weights, statistics: Mapping[str, Tensor] | None = None) -> Iterator[nn.Module]:
        """Put weights into the model for a while; afterwards it is as in full precision again.

        Raises
        ------
        CellError
            The weights are not finite.
        """
        for name, matrix in weights.items():
            require_finite_weights(name, matrix)
        try:
            self._write(weights)
            with torch.no_grad():
                for name, value in (statistics or {}).items():
                    self.model.get_buffer(name).copy_(value)
            if self._recalibrates:
                recalibrate(self.model, self.problem.forward, self.problem.calibration)
            self.model.eval()
            yield self.model
        finally:
            self._write(self.full)
            with torch.no_grad():
                for name, value in self._buffers.items():
                    self.model.get_buffer(name).copy_(value)

    @torch.no_grad()
    def _write(self, weights: Weights) -> None:
        for layer in self.problem.layers:
            layer.write(weights[layer.name])

    def batches(self, samples: int | None) -> list[tuple[Any, float]]:
        """Return batches of the evaluation split and their shares of its loss; `samples` as in `gradient`."""
        batches = self.task.evaluation_batches(samples)
        counts = [self.task.tokens_of(batch) for batch in batches]
        return [(batch, count / sum(counts)) for batch, count in zip(batches, counts, strict=True)]

    def mean_loss(
        self, weights: Weights, statistics: Mapping[str, Tensor] | None = None, samples: int | None = None
    ) -> float:
        """Return the loss of weights on some of the evaluation split; `samples` as in `gradient`."""
        with self.at(weights, statistics), torch.no_grad():
            return sum(share * float(self.task.loss(self.model, batch)) for batch, share in self.batches(samples))

    @contextmanager
    def leaves(self) -> Iterator[list[Tensor]]:
        """Let gradients reach the target layers' weights for a while, and yield these, each in its own shape."""
        try:
            yield [layer.module.weight.requires_grad_() for layer in self.problem.layers]  # type: ignore[misc]
        finally:
            self.model.requires_grad_(requires_grad=False)

    def joined(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return gradients of `leaves` as a vector, in float32; see `vector`."""
        pairs = zip(self.problem.layers, gradients, strict=True)
        return torch.cat([to_matrix(layer.module, one).flatten().float() for layer, one in pairs])

    def gradient(self, weights: Weights, samples: int | None = None) -> Weights:
        """Return the gradient of the mean evaluation loss with respect to the target layers' matrices.

        Parameters
        ----------
        weights : dict of str to Tensor
            Where.
        samples : int, optional
            Windows or images that the loss is taken over, spread over the evaluation split; all when left out.

        Returns
        -------
        dict of str to Tensor
            Matrices of shape (rows, columns), float32, by layer name; 0 for a layer that the loss does not depend on.
        """
        found = torch.zeros_like(self.vector(self.full))
        with self.at(weights), self.leaves() as leaves:
            for batch, share in self.batches(samples):
                loss = share * self.task.loss(self.model, batch)
                found += self.joined(torch.autograd.grad(loss, leaves, materialize_grads=True))
        return self.weights(found)


def require_finite_weights(layer: str, matrix: Tensor) -> None:
    """Raise CellError where a layer would get weights that are NaN or infinite."""
    if not torch.isfinite(matrix).all():
        raise CellError(f"layer {layer!r} would get weights that are not finite")
