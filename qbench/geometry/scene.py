"""Where probes measure: a model whose target layers can be given any weights, and its loss there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.batch_norm import estimable, recalibrate
from qbench.methods.matrices import to_matrix
from qbench.methods.problem import Problem
from qbench.quant.block_grid import fake_quantize

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

    Raises
    ------
    CellError
        Batch norms are to be estimated again, and the model has none for which that can be done.
    """

    def __init__(
        self, task: Any, problem: Problem, points: Mapping[str, Point] | None = None, *, recalibrates: bool = False
    ) -> None:
        self.task, self.problem, self.points = task, problem, dict(points or {})
        self.model: nn.Module = problem.model.eval().requires_grad_(requires_grad=False)
        self._recalibrates = recalibrates
        if recalibrates:
            estimable(self.model)
        self._buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        self.full: Weights = {layer.name: layer.matrix().clone() for layer in problem.layers}
        self._losses: Losses | None = None

    @property
    def full_losses(self) -> Losses:
        """Losses of the full-precision weights."""
        if self._losses is None:
            self._losses = self.losses(self.full)
        return self._losses

    def rounded(self) -> Weights:
        """Return the nearest codeword of the full-precision weights on the cell's grids."""
        return {layer.name: fake_quantize(self.full[layer.name], layer.grid) for layer in self.problem.layers}

    def losses(self, weights: Weights, statistics: Mapping[str, Tensor] | None = None) -> Losses:
        """Return the losses of weights on the evaluation split."""
        with self.at(weights, statistics):
            found = self.task.evaluate(self.model, ("loss",))
        names, tokens, sums = zip(*found.documents, strict=True)
        return Losses(names, torch.tensor(tokens, dtype=torch.float64), torch.tensor(sums, dtype=torch.float64))

    def excess(self, weights: Weights, statistics: Mapping[str, Tensor] | None = None) -> tuple[float, float]:
        """Return the excess loss of weights over full precision and its standard error, nats a token (or an image)."""
        return self.losses(weights, statistics).excess(self.full_losses)

    def excess_of(self, label: str) -> tuple[float, float]:
        """Return the excess loss of a point."""
        point = self.points[label]
        return self.excess(point.weights, point.statistics)

    @contextmanager
    def at(self, weights: Weights, statistics: Mapping[str, Tensor] | None = None) -> Iterator[nn.Module]:
        """Put weights into the model for a while; afterwards it is as in full precision again."""
        self._write(weights)
        try:
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
            matrix = weights[layer.name]
            if not torch.isfinite(matrix).all():
                raise CellError(f"layer {layer.name!r} would get weights that are not finite")
            layer.write(matrix)

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
            Matrices of shape (rows, columns), float32, by layer name.
        """
        batches = self.task.evaluation_batches(samples)
        total = sum(self.task.tokens_of(batch) for batch in batches)
        modules = [layer.module for layer in self.problem.layers]
        found = [torch.zeros_like(self.full[layer.name]) for layer in self.problem.layers]
        with self.at(weights):
            leaves: list[Tensor] = [module.weight.requires_grad_() for module in modules]  # type: ignore[operator, union-attr]
            try:
                for batch in batches:
                    loss = self.task.loss(self.model, batch) * (self.task.tokens_of(batch) / total)
                    for sum_, module, one in zip(found, modules, torch.autograd.grad(loss, leaves), strict=True):
                        sum_ += to_matrix(module, one).float()
            finally:
                self.model.requires_grad_(requires_grad=False)
        return {layer.name: one for layer, one in zip(self.problem.layers, found, strict=True)}
