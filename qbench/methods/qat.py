"""The quantized weights of STE-QAT and LSQ, and their training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.distillation import distilled_loss
from qbench.methods.latent import QuantizedWeight
from qbench.methods.layer_inputs import QuantizedInput, input_ranges, installed, static_params
from qbench.methods.problem import Problem, Solution, TargetLayer
from qbench.methods.training import Training
from qbench.quant.activation import InputRange, positive_reach
from qbench.quant.block_grid import BlockGrid
from qbench.quant.fused import block_sums, pass_inside, step_size_gradients
from qbench.quant.qparams import QParams
from qbench.quant.scale_format import ScaledE4M3
from qbench.quant.ste import fake_quantize_lsq
from qbench.quantizers.layout import choose_grid

if TYPE_CHECKING:
    from qbench.methods.lsq import LearnedStepSize
    from qbench.methods.qat_options import LatentTraining
    from qbench.methods.ste_qat import StraightThroughQAT


class StraightThroughWeight(QuantizedWeight):
    """Round to nearest, straight-through gradient, on a grid that is fixed or chosen again at each step.

    Parameters
    ----------
    layer : TargetLayer
        The layer and its grid.
    options : StraightThroughQAT
        Mask and scale.

    Raises
    ------
    CellError
        The scale is dynamic and the layer has no quantizer to choose it.
    """

    def __init__(self, layer: TargetLayer, options: StraightThroughQAT) -> None:
        super().__init__(layer, options)
        self._grid, self._masked = layer.grid, options.gradient == "masked"
        self._dynamic = options.scale == "dynamic"
        if self._dynamic and layer.quantizer is None:
            raise CellError(
                f"layer {layer.name!r} has a grid but no quantizer, which scale: dynamic needs to choose scales again "
                "(allowed here: scale: frozen)"
            )

        if self._dynamic and layer.share is not None and layer.grid.scale_format.shared_bits:
            count = layer.share.sharding.count
            raise CellError(
                f"layer {layer.name!r} has a scale of the whole weight above its scales, which scale: dynamic cannot "
                f"choose where ranks: {count} shares the rows out (allowed here: scale: frozen)"
            )

    def grid(self) -> BlockGrid:
        """Return the grid that the last weight written lies on."""
        return self._grid

    def write(self) -> None:
        """Give the model the nearest levels, of a newly chosen grid where the scale is dynamic."""
        if self._dynamic:
            assert self.layer.quantizer is not None
            self.require_finite()
            self._grid = choose_grid(self._matrix, self.layer.quantizer, self._grid.levels.bits)
        super().write()

    def state(self) -> dict[str, Tensor]:
        """Return the grid too, where it is chosen again: held weights have moved since it was."""
        if not self._dynamic:
            return super().state()
        grid = self._grid
        found = super().state() | {"scale": grid.scale, "zero_point": grid.zero_point}
        if grid.table is not None:
            found["table"] = grid.table
        if isinstance(grid.scale_format, ScaledE4M3):
            found["tensor_scale"] = torch.tensor(grid.scale_format.tensor_scale, dtype=torch.float64)
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on with the grid of then; see `LatentWeight.restore`."""
        if self._dynamic:
            own: dict[str, Any] = {
                name: state[name].to(self._matrix.device) for name in ("scale", "zero_point", "table") if name in state
            }
            if "tensor_scale" in state:
                own["scale_format"] = ScaledE4M3(float(state["tensor_scale"]))
            self._grid = replace(self._grid, **own)
        super().restore(state)

    def gradient_to_latent(self, gradient: Tensor) -> Tensor:
        """Return the gradient itself, without that of clipped weights where those are masked."""
        return pass_inside(self._matrix, gradient, self._grid, gradient) if self._masked else gradient


class LearnedStepWeight(QuantizedWeight):
    """Round to nearest with learned step sizes.

    Parameters
    ----------
    layer : TargetLayer
        The layer and its grid, whose zero points stay.
    options : LearnedStepSize
        First step sizes, their rate and the scale of their gradient.

    Attributes
    ----------
    step_size : nn.Parameter
        In the shape of the grid's scale.
    gain : float
        The gradient scale g.
    """

    def __init__(self, layer: TargetLayer, options: LearnedStepSize) -> None:
        super().__init__(layer, options)
        levels, first = layer.grid.levels, layer.grid.scale.clone()
        reach = levels.reach
        if options.init == "lsq":
            shared = layer.total_by_scale(block_sums(torch.ones_like(self._matrix), layer.grid))
            mean = layer.total_by_scale(block_sums(self._matrix.abs(), layer.grid)) / shared
            first = torch.where(mean > 0, mean * 2 / math.sqrt(reach), first)  # weights that are all 0 keep the grid's
        weights, scales, mean_scale = _counted(layer, self._matrix, first)
        sharing = weights / (1 if options.gradient_scale == "layer" else scales)
        self.gain = 1 / math.sqrt(sharing * reach)
        self.step_size = nn.Parameter(first)
        self._least = first * 1e-3
        self._rate = options.step_size_learning_rate or options.learning_rate * mean_scale
        if layer.share is not None and layer.share.whole_scale:
            layer.share.sharding.holds_whole(self.step_size)

    def grid(self) -> BlockGrid:
        """Return the grid at the step sizes as they are now."""
        return self.layer.grid.with_scale(self.step_size.detach())

    def step_sizes(self) -> list[dict[str, Any]]:
        """Return the step sizes with their own rate."""
        return [{"params": [self.step_size], "lr": self._rate}]

    def gradient_to_latent(self, gradient: Tensor) -> Tensor:
        """Return the gradient of weights within the range, and set that of the step sizes."""
        grid, frozen = self.grid(), self.frozen()
        of_frozen = None
        if frozen is not None:
            # A frozen weight is its level times the step size: it has no rounding error that could change.
            scale, snapping = grid.on_matrix(self._matrix)
            multiples = self._matrix / scale
            snapping.snap(multiples, out=multiples)
            of_frozen = block_sums(multiples * gradient.masked_fill(~frozen, 0.0), grid)
            gradient = gradient.masked_fill(frozen, 0.0)
        gradient, by_step = step_size_gradients(self._matrix, gradient, grid, gradient)
        by_step = self.layer.total_by_scale(by_step if of_frozen is None else by_step + of_frozen)
        self.step_size.grad = by_step.mul_(self.gain)
        return gradient

    @torch.no_grad()
    def after_update(self) -> None:
        """Keep the step sizes positive."""
        torch.maximum(self.step_size, self._least, out=self.step_size)


def _counted(layer: TargetLayer, matrix: Tensor, scale: Tensor) -> tuple[int, int, float]:
    """Return how many weights and scales the whole layer has, and the mean of these."""
    if layer.share is None:
        return matrix.numel(), scale.numel(), float(scale.mean())
    own = torch.tensor([matrix.numel(), scale.numel(), float(scale.sum())], dtype=torch.float64, device=scale.device)
    weights, scales, total = layer.total(own).tolist()
    return int(weights), scale.numel() if layer.share.whole_scale else int(scales), total / scales


class LearnedInput(QuantizedInput):
    """Inputs on a static grid whose step size is learned.

    Parameters
    ----------
    layer : TargetLayer
        The layer.
    params : QParams
        The calibrated grid, whose zero point stays.
    seen : InputRange
        The calibration inputs.
    options : LearnedStepSize
        First step size and its rate.

    Attributes
    ----------
    step_size : nn.Parameter
        Of shape (1, 1).

    Notes
    -----
    The gradient scale is ``1 / sqrt(N Qp)``. N are the features of a token (Linear, Conv1D) or of a sample (Conv2d),
    not those of a whole batch. Qp are the levels on the longer side of 0: all but one of an unsigned grid with its zero
    point at 0, which is what the paper has behind a ReLU. The backward pass has two passes over the inputs in memory.
    """

    def __init__(self, layer: TargetLayer, params: QParams, seen: InputRange, options: LearnedStepSize) -> None:
        super().__init__(layer, params)
        self._zero_point = params.zero_points()
        self._reach = positive_reach(self.levels, self._zero_point)
        first = params.scale.clone()
        if options.init == "lsq":
            mean = seen.mean_magnitude().to(first.device)
            first = torch.where(mean > 0, mean * 2 / math.sqrt(self._reach), first)  # inputs that are all 0
        self.step_size = nn.Parameter(first)
        self._least = first * 1e-3
        self._rate = options.step_size_learning_rate or options.learning_rate * float(first)

    def quantized(self, rows: Tensor) -> Tensor:
        """Return inputs of shape (rows, columns) on their levels at the present step size."""
        gain = 1 / math.sqrt(rows.shape[1] * self._reach)
        return fake_quantize_lsq(rows, self.step_size, self._grid(rows), gain)

    def step_sizes(self) -> list[dict[str, Any]]:
        """Return the step size with its own rate."""
        return [{"params": [self.step_size], "lr": self._rate}]

    @torch.no_grad()
    def after_update(self) -> None:
        """Keep the step size positive."""
        torch.maximum(self.step_size, self._least, out=self.step_size)

    def params(self) -> QParams:
        """Return the grid as it is now, with tensors of its own."""
        return QParams(self.step_size.detach().clone(), self._zero_point.clone())


MakeInput = Callable[[TargetLayer, QParams | None, InputRange | None], QuantizedInput]
"""What quantizes a layer's inputs in training; without a grid and a range where the scale is dynamic."""


def train(
    problem: Problem,
    options: LatentTraining,
    weights: Sequence[QuantizedWeight],
    make_input: MakeInput = lambda layer, params, seen: QuantizedInput(layer, params),
) -> Solution:
    """Train the latent weights of all target layers through their quantizers.

    Parameters
    ----------
    problem : Problem
        Model, loss and training batches.
    options : LatentTraining
        Budget, optimizer and loss.
    weights : sequence of QuantizedWeight
        One for each target layer.
    make_input : callable
        ``make_input(layer, params, seen)`` quantizes the inputs of a layer for which this is asked.

    Returns
    -------
    Solution
        The codes of the last weights, which the model is left with, and the static grids of inputs; the trace
        ``train_loss`` is that of the model in training before each update.

    Raises
    ------
    CellError
        Distillation is asked for, and the task gives no predictions; or a layer with a static range gets no input.
    DivergedError
        The training loss, a weight or an input is NaN or infinite.
    """
    loss = distilled_loss(problem, options.distillation)
    inputs = _inputs(problem, weights, make_input)
    learned = [one for one in inputs if isinstance(one, LearnedInput)]
    training = Training(problem, options, weights, loss, learned)
    with installed(inputs):
        training.run()
    for weight in weights:
        weight.deploy()
    found = {weight.layer.name: weight.solution() for weight in weights}
    static = {one.layer.name: params for one in inputs if (params := one.params()) is not None}
    return Solution(
        {name: replace(layer, grid=_owned(layer.grid)) for name, layer in found.items()},
        calibration_tokens=problem.calibration_tokens if static else 0,
        train_tokens=training.tokens,
        train_steps=training.steps_done,
        watched_seconds=training.watched_seconds,
        traces={"train_loss": training.losses},
        statistics=training.statistics(),
        inputs=static,
    )


def _inputs(problem: Problem, weights: Sequence[QuantizedWeight], make_input: MakeInput) -> list[QuantizedInput]:
    """Return what quantizes the inputs, with static ranges of the model as training finds it: quantized weights."""
    layers = [layer for layer in problem.layers if layer.activations is not None]
    if not layers:
        return []
    problem.model.eval()
    for weight in weights:
        weight.deploy()
    ranges = input_ranges(problem)
    static = static_params(problem, ranges)
    return [make_input(layer, static.get(layer.name), ranges.get(layer.name)) for layer in layers]


def _owned(grid: BlockGrid) -> BlockGrid:
    return grid.with_scale(grid.scale.clone())
