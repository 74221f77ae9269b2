"""AdaRound behind the activation function (equation 25 of the paper with its f_a), on mini-batches of the inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qbench.methods.activations import Activation, activations_of
from qbench.methods.adaround_solver import learn_rounding, solve_stage
from qbench.methods.matrices import input_columns
from qbench.methods.problem import LayerSolution, Problem, TargetLayer
from qbench.methods.soft_rounding import Neighbours, beta_at, rectified, regularizer_gradient, soft_weight
from qbench.methods.stage import Inputs, Stage
from qbench.methods.stage_error import layer_solutions
from qbench.quant.block_grid import dequantize, quantize

if TYPE_CHECKING:
    from qbench.methods.adaround import AdaRound


@dataclass(frozen=True)
class BehindActivation:
    """A layer's error behind its activation, on samples of its inputs.

    Attributes
    ----------
    layer : TargetLayer
        The layer, in full precision.
    activation : Activation
        f_a.
    inputs : Inputs
        What the layer is given, a tensor a calibration batch.
    """

    layer: TargetLayer
    activation: Activation
    inputs: Inputs

    def batches(self, batch_size: int) -> list[tuple[Tensor, Tensor]]:
        """Return mini-batches of samples: inputs from the quantized predecessors, and full-precision ones."""
        pairs = zip(self.inputs.seen, self.inputs.full, strict=True)
        return [cut for pair in pairs for cut in zip(*(one.split(batch_size) for one in pair), strict=True)]

    def output(self, weight: Tensor, x: Tensor) -> Tensor:
        """Return ``f_a(W x + b)``, of shape (groups, positions, rows), of a weight of shape (groups, rows, n)."""
        columns = input_columns(self.layer.module, x).float()
        bias = self.layer.module.bias
        product = torch.bmm(columns, weight.mT)
        if isinstance(bias, Tensor):
            product = product + bias.detach().float().view(len(weight), 1, -1)
        return self.activation(product)

    def error(self, weight: Tensor, batches: list[tuple[Tensor, Tensor]], full: Tensor) -> float:
        """Return ``|f_a(W x_fp) - f_a(Wq x)|^2``, the mean over positions of the sum over rows.

        Parameters
        ----------
        weight : Tensor of shape (groups, rows, n)
            Wq.
        batches : list of pairs of Tensor
            See `batches`.
        full : Tensor of shape (groups, rows, n)
            W.
        """
        total, count = 0.0, 0
        for seen, wanted in batches:
            difference = self.output(weight, seen) - self.output(full, wanted)
            total += float(difference.square().sum())
            count += difference.shape[1]
        return total / count


class ActivationSolver:
    """AdaRound stage by stage, with the activation in the loss where there is one.

    Parameters
    ----------
    problem : Problem
        Model, blocks and calibration data; nothing in it is quantized yet.
    options : AdaRound
        The method's options.
    """

    def __init__(self, problem: Problem, options: AdaRound) -> None:
        self._options = options
        self._activations = activations_of(problem)
        self._generator = torch.Generator().manual_seed(problem.seed_of("adaround"))

    def solve_stage(self, stage: Stage) -> dict[str, LayerSolution]:
        """Learn the rounding of a stage's layers, whose inputs were kept; see `adaround_solver.solve_stage`."""
        found: dict[str, LayerSolution] = {}
        (part,) = stage.parts
        plain = tuple(layer for layer in part if layer.name not in self._activations)
        if plain:
            alone = solve_stage(replace(stage, parts=(plain,)), self._options)
            found |= {name: _noted(one, activation=0.0) for name, one in alone.items()}
        assert stage.inputs is not None
        for layer in part:
            if layer.name in self._activations:
                own = replace(stage, parts=((layer,),))
                behind = BehindActivation(layer, self._activations[layer.name], stage.inputs)
                found |= learn_behind(own, behind, self._options, self._generator)
        return found


def learn_behind(
    stage: Stage, behind: BehindActivation, options: AdaRound, generator: torch.Generator
) -> dict[str, LayerSolution]:
    """Learn the rounding of one layer with its activation in the loss.

    V starts at the roundings that are best for the plain layer error, each h a quarter off the middle. These remain
    if they are the better ones behind the activation over all data in the end.

    Parameters
    ----------
    stage : Stage
        Of this layer alone.
    behind : BehindActivation
        The layer, its activation and its inputs.
    options : AdaRound
        Budget of the mini-batch form, annealing.
    generator : torch.Generator
        Draws the order of the mini-batches.

    Returns
    -------
    dict of str to LayerSolution
        Under the layer's name. ``activation_error`` and ``rtn_activation_error`` in its details are errors behind the
        activation relative to the power there; the objective is the plain layer error.
    """
    weight, grid = stage.weight(), stage.grid()
    between = Neighbours.of(weight, grid)
    batches = behind.batches(options.batch_size)
    nearest = quantize(weight, grid)
    rtn_error = behind.error(dequantize(nearest, grid), batches, weight)
    power = _power(behind, batches, weight)
    # Where the activation passes nothing there is nothing to gain.
    gain = weight.numel() / rtn_error if rtn_error > 1e-30 * power else 0.0
    asked = options.model_copy(update={"iterations": options.batch_iterations})
    on_moments, _ = learn_rounding(weight, grid, stage.gram, options)
    v = between.start_at(on_moments).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=options.batch_learning_rate, fused=True)
    order: list[int] = []
    for iteration in range(options.batch_iterations):
        order = order or torch.randperm(len(batches), generator=generator).tolist()
        seen, wanted = batches[order.pop()]
        with torch.enable_grad():
            difference = behind.output(soft_weight(v, between), seen) - behind.output(weight, wanted)
            loss = difference.square().sum() * (gain / difference.shape[1])
            (gradient,) = torch.autograd.grad(loss, v)
        beta = beta_at(iteration, asked)
        if beta is not None and options.regularization > 0:
            h, slope = rectified(v.detach())
            gradient.add_(regularizer_gradient(h, beta).mul_(slope), alpha=options.regularization)
        v.grad = gradient
        optimizer.step()
    h, _ = rectified(v.detach())
    learned = between.harden(h) if gain else nearest
    candidates = [(behind.error(dequantize(codes, grid), batches, weight), codes) for codes in (learned, on_moments)]
    least, codes = min(candidates, key=lambda candidate: candidate[0])
    found = layer_solutions(stage, weight, codes, details={"unsettled": between.unsettled(h)})
    errors = {
        "activation_error": least / (power or 1.0),
        "rtn_activation_error": rtn_error / (power or 1.0),
    }
    return {name: _noted(one, activation=1.0, **errors) for name, one in found.items()}


def _power(behind: BehindActivation, batches: list[tuple[Tensor, Tensor]], weight: Tensor) -> float:
    total, count = 0.0, 0
    for _, wanted in batches:
        output = behind.output(weight, wanted)
        total += float(output.square().sum())
        count += output.shape[1]
    return total / count


def _noted(solution: LayerSolution, **details: float) -> LayerSolution:
    return replace(solution, details=solution.details | details)
