"""The losses of weights that are moved by stand-ins of their rounding errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.geometry.sampled_loss import excess, sample_of, sampled_losses
from qbench.geometry.scene import Findings, Scene
from qbench.geometry.second_order import HandedOn, few_of, handed_on
from qbench.geometry.stand_in import Move, matched, shrinkage
from qbench.seeds import derive_seed

if TYPE_CHECKING:
    from qbench.geometry.margin import MovingProbe

_MOST_KEPT = 1 << 30
"""Bytes of factors that are kept for the other cells of a model."""


def measure_moves(probe: MovingProbe, scene: Scene) -> Findings:
    """Return the excess of every move of a probe, and how large the rounding errors are.

    Parameters
    ----------
    probe : MovingProbe
        Says where the weights go.
    scene : Scene
        The model.

    Raises
    ------
    CellError
        Rounding changes nothing.
    """
    error = scene.rounding_error()
    sample = sample_of(scene.task, probe.budget)
    calibrated = _handed_on(scene, probe.calibration_tokens)

    def losses(weights: dict[str, Tensor]) -> Tensor:
        with scene.at(weights) as model:
            return sampled_losses(scene.task, model, sample)

    def moved(move: Move) -> dict[str, Tensor]:
        found = dict(scene.full)
        for name in filter(move.moves, found):
            found[name] = found[name] + drawn(
                found[name], error[name], move, name, scene.problem.seed_of, calibrated.get(name)
            )
        return found

    full = scene.remember(("sampled", probe.budget), lambda: losses(scene.full))
    moves = probe.moves(tuple(scene.full))
    found = {move: losses(moved(move)) for move in each_once(moves)}
    sizes = Sizes()
    for name, weight in scene.full.items():
        sizes.add(name, weight, error[name])
    return findings(moves, found, full, sizes, sample.tokens)


def each_once(moves: Mapping[str, list[Move]]) -> list[Move]:
    """Return all moves; one that has two names is there once."""
    return list(dict.fromkeys(move for own in moves.values() for move in own))


def _handed_on(scene: Scene, tokens: int) -> Mapping[str, HandedOn]:
    if not tokens:
        return {}

    def make() -> Mapping[str, HandedOn]:
        problem = scene.problem
        return handed_on(replace(problem, calibration=few_of(problem.calibration, problem.tokens_of, tokens)))

    size = sum(weight.shape[1] ** 2 * weight.element_size() for weight in scene.full.values())
    return make() if size > _MOST_KEPT else scene.remember(("handed on", tokens), make)


def drawn(
    full: Tensor,
    error: Tensor,
    move: Move,
    layer: str,
    seed_of: Callable[[str], int],
    calibrated: HandedOn | None,
) -> Tensor:
    """Return the stand-in of a layer's rounding error in a move: each layer has a stream of chance of its own.

    Parameters
    ----------
    full, error : Tensor of shape (rows, columns)
        Weights and their rounding error.
    move : Move
        What is drawn.
    layer : str
        The layer's name.
    seed_of : callable
        See `Problem`.
    calibrated : HandedOn or None
        Needed where the move is of second order.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed_of("margin"), move.draw, layer))
    own = matched(full, error, generator)
    if move.kind == "matched":
        return own
    assert calibrated is not None
    return calibrated.spread(own)


class Sizes:
    """How large rounding errors are, layer by layer."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, float, float, float]] = {}

    def add(self, layer: str, full: Tensor, error: Tensor) -> None:
        """Take a layer's weights and their rounding error, matrices of one shape."""
        along = float((shrinkage(full, error) * full.square().sum(dim=1, keepdim=True)).sum())
        squares = float(full.square().sum()), float(error.square().sum())
        self._layers[layer] = (full.numel(), *squares, along)

    def metrics(self) -> dict[str, float]:
        """Return what a record says of them.

        ``relative_error`` is ``|e| / |w|`` over all layers, ``relative_error/LAYER`` that of a layer; ``shrinkage`` is
        ``-e . w / |w|^2``; ``weights/LAYER`` counts.
        """
        weights, errors, along = (math.fsum(one[part] for one in self._layers.values()) for part in (1, 2, 3))
        found = {"relative_error": math.sqrt(errors / weights), "shrinkage": -along / weights}
        for name, (count, square, error, _) in self._layers.items():
            found[f"relative_error/{name}"] = math.sqrt(error / square) if square else 0.0
            found[f"weights/{name}"] = float(count)
        return found


def findings(
    moves: Mapping[str, list[Move]], losses: Mapping[Move, Tensor], full: Tensor, sizes: Sizes, tokens: int
) -> Findings:
    """Return what a record says of the losses of moved weights.

    Parameters
    ----------
    moves : mapping of str to list of Move
        Of a probe, by name.
    losses : mapping of Move to Tensor of shape (windows,)
        Nats.
    full : Tensor of shape (windows,)
        In full precision.
    sizes : Sizes
        Of all layers.
    tokens : int
        Tokens or images in the windows.
    """
    metrics = {"full_loss": float(full.mean()), "sample_tokens": float(tokens), "passes": float(1 + len(losses))}
    traces = {}
    for name, own in moves.items():
        mean = torch.stack([losses[move] for move in own]).mean(dim=0)
        metrics[f"{name}/excess"], metrics[f"{name}/se"] = excess(mean, full)
        traces[f"{name}/draws"] = [excess(losses[move], full)[0] for move in own]
    return Findings(metrics | sizes.metrics(), traces)
