"""What a method is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qbench.errors import CellError, DivergedError
from qbench.methods.checkpoints import Checkpoints
from qbench.methods.matrices import from_matrix, to_matrix
from qbench.methods.watch import Watch
from qbench.quant.block_grid import BlockGrid, dequantize
from qbench.quant.qparams import QParams
from qbench.quantizers.activations import Activations
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import zero_points_fit

if TYPE_CHECKING:
    from qbench.methods.sharding import RowShare, Sharding


@dataclass(frozen=True)
class TargetLayer:
    """A layer to be quantized, and the grid it is to be quantized on.

    Attributes
    ----------
    name : str
        Its name in the model.
    module : nn.Module
        The layer: ``Linear``, ``Conv2d`` or transformers' ``Conv1D``. Its weight may have any shape and floating-point
        type; methods work on `matrix`.
    grid : BlockGrid
        Chosen from the full-precision weight before any method runs, the same for all methods.
    quantizer : Quantizer or None
        What chose the grid, for methods that choose scales again; None where there is only a grid.
    activations : Activations or None
        How the layer's inputs are quantized once its codes are deployed; None where they are not. A method that trains
        through the quantizer quantizes them in training too, every other method leaves them as they are.
    share : RowShare or None
        Which rows of the layer these are, where several processes train it; None for a layer that is whole.
    """

    name: str
    module: nn.Module
    grid: BlockGrid
    quantizer: Quantizer | None = None
    activations: Activations | None = None
    share: RowShare | None = None

    @property
    def weight(self) -> Tensor:
        """The layer's weight as it is, in its own shape."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight.detach()

    @property
    def has_static_inputs(self) -> bool:
        """Whether its inputs are quantized with a range that is fixed beforehand."""
        return self.activations is not None and self.activations.scale == "static"

    def matrix(self) -> Tensor:
        """Return the weight as it is now, as a matrix of shape (rows, columns) in float32; see `to_matrix`."""
        return to_matrix(self.module, self.weight).float()

    def total(self, of_rows: Tensor) -> Tensor:
        """Return what a sum over these rows is over all rows of the layer."""
        return of_rows if self.share is None else self.share.sharding.total(of_rows)

    def total_by_scale(self, sums: Tensor) -> Tensor:
        """Return what sums over weights that share a scale, in its shape, are over all rows of the layer."""
        return self.total(sums) if self.share is not None and self.share.whole_scale else sums

    def write(self, matrix: Tensor) -> None:
        """Put a matrix of shape (rows, columns) in the place of the weight, in the weight's own type."""
        self.weight.copy_(from_matrix(self.module, matrix))


@dataclass(frozen=True)
class Block:
    """A part of the model that is run on its own (a decoder block), and its target layers in the order of the model."""

    module: nn.Module
    layers: tuple[TargetLayer, ...]


@dataclass(frozen=True)
class Problem:
    """A model to be quantized.

    Attributes
    ----------
    model : nn.Module
        Full precision. The method owns it and may change its target layers' weights.
    blocks : sequence of Block
        In forward order.
    calibration : sequence of Tensor
        Batches for `forward`; the only data a post-training method sees.
    forward : callable
        ``forward(model, batch)`` runs the model on a batch.
    loss : callable
        ``loss(model, batch)`` is the training loss, a scalar.
    train_batches : callable
        ``train_batches(batch_size, seed)`` yields training batches for ever: whatever `loss` and `predict` take.
    tokens_of : callable
        ``tokens_of(batch)`` counts the tokens (or images) of a batch of either kind.
    seed_of : callable
        ``seed_of(purpose)`` is the seed of a named stream of this cell.
    predict : callable or None
        ``predict(model, batch)`` is (logits of shape (positions, classes), targets of shape (positions,)), of which the
        loss is the mean cross entropy; None for a task that has no such thing.
    watch : Watch or None
        Who looks on where the whole model is trained.
    sharding : Sharding or None
        The processes that train the model together, each with its rows of the target layers; None where this process
        has the whole model.
    checkpoints : Checkpoints or None
        Who keeps what the training of the whole model leaves on the way.
    """

    model: nn.Module
    blocks: Sequence[Block]
    calibration: Sequence[Tensor]
    forward: Callable[[nn.Module, Tensor], object]
    loss: Callable[[nn.Module, Any], Tensor]
    train_batches: Callable[[int, int], Iterator[Any]]
    tokens_of: Callable[[Any], int]
    seed_of: Callable[[str], int]
    predict: Callable[[nn.Module, Any], tuple[Tensor, Tensor]] | None = None
    watch: Watch | None = None
    sharding: Sharding | None = None
    checkpoints: Checkpoints | None = None

    @property
    def layers(self) -> list[TargetLayer]:
        """All target layers, in forward order."""
        return [layer for block in self.blocks for layer in block.layers]

    @property
    def calibration_tokens(self) -> int:
        """Tokens in the calibration data."""
        return sum(self.tokens_of(batch) for batch in self.calibration)


@dataclass(frozen=True)
class LayerSolution:
    """The quantized weight of one layer.

    Attributes
    ----------
    codes : Tensor of shape (rows, columns)
        Of the layer's matrix. Integers from ``quant_min`` to ``quant_max``.
    grid : BlockGrid
        What the codes stand for; the problem's own grid unless the method learns it.
    objective, rtn_objective : float or None
        The relative layer error the method minimised, and the one rounding to nearest has on the same inputs.
    fallback : str or None
        What was done instead of the method, and why.
    damping : float or None
        Relative damping of the Hessian that was used.
    details : dict of str to float
        Further numbers for the record.
    """

    codes: Tensor
    grid: BlockGrid
    objective: float | None = None
    rtn_objective: float | None = None
    fallback: str | None = None
    damping: float | None = None
    details: dict[str, float] = field(default_factory=dict)

    def weight(self) -> Tensor:
        """Return the deployed weight as a matrix, of shape (rows, columns)."""
        return dequantize(self.codes, self.grid)


@dataclass(frozen=True)
class Solution:
    """What a method found, layer by layer, and what it used.

    Attributes
    ----------
    layers : dict of str to LayerSolution
        By layer name; every target layer once.
    calibration_tokens, train_tokens, train_steps : int
        Data consumed.
    watched_seconds : float
        What `Problem.watch` took, which is no part of the method's time.
    traces : dict of str to list of float
        Curves for the record.
    statistics : dict of str to Tensor
        Running statistics of batch-norm layers that are deployed with the codes, by buffer name; those left out stay
        as they are in the full-precision model.
    inputs : dict of str to QParams
        Static grids of layers' inputs that the method used in training, by layer name: scale and zero point of shape
        (1, 1). All layers with static input quantization, or none; then the ranges are found on the calibration data
        in the model with the quantized weights.
    """

    layers: dict[str, LayerSolution]
    calibration_tokens: int = 0
    train_tokens: int = 0
    train_steps: int = 0
    watched_seconds: float = 0.0
    traces: dict[str, list[float]] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, QParams] = field(default_factory=dict)

    def check(self, problem: Problem) -> None:
        """Make sure that every layer is there, finite, and on its grid.

        Raises
        ------
        CellError
            A layer is missing or was never asked for, its codes have a wrong shape or are elsewhere, its grid has
            another shape than the given one, or a code is not an integer of the grid. Or static grids of inputs are
            those of other layers than asked for, or no grids.
        DivergedError
            A code or a scale is NaN or infinite, or a scale is not positive.
        """
        unknown = sorted(set(self.layers) - {layer.name for layer in problem.layers})
        if unknown:
            raise CellError(f"the method gave layer {unknown[0]!r}, which is no target layer")
        for layer in problem.layers:
            found = self.layers.get(layer.name)
            if found is None:
                raise CellError(f"the method left layer {layer.name!r} out")
            if found.codes.device != layer.grid.scale.device:
                raise CellError(
                    f"layer {layer.name!r} has codes on {found.codes.device}, expected {layer.grid.scale.device}"
                )
            shape, expected = tuple(found.codes.shape), tuple(layer.matrix().shape)
            if shape != expected:
                raise CellError(f"layer {layer.name!r} has codes of shape {shape}, expected {expected}")
            _check_grid(layer, found)
        self._check_statistics(problem)
        if self.inputs:
            self._check_inputs(problem)

    def _check_statistics(self, problem: Problem) -> None:
        allowed = {
            f"{name}.{buffer}": value
            for name, module in problem.model.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for buffer, value in module.named_buffers(recurse=False)
        }
        for name, value in self.statistics.items():
            if name not in allowed or value.shape != allowed[name].shape:
                raise CellError(f"the method gave statistics {name!r}, which are those of no batch-norm layer")
            if not torch.isfinite(value.float()).all():
                raise DivergedError(f"the statistics {name!r} are not finite")

    def _check_inputs(self, problem: Problem) -> None:
        static = {layer.name: layer for layer in problem.layers if layer.has_static_inputs}
        for name, params in self.inputs.items():
            if name not in static:
                raise CellError(f"the method gave an input scale of {name!r}, whose inputs have no static range")
            scale, zero_point = params.scale, params.zero_points()
            activations, device = static[name].activations, static[name].grid.scale.device
            if scale.device != device or zero_point.device != device:
                raise CellError(f"layer {name!r} has an input scale on {scale.device}, expected {device}")
            if scale.shape != (1, 1) or zero_point.shape != (1, 1):
                raise CellError(
                    f"layer {name!r} has an input scale and zero point of shapes {tuple(scale.shape)} and "
                    f"{tuple(zero_point.shape)}, expected (1, 1) for both"
                )
            if not (torch.isfinite(scale).all() and torch.isfinite(zero_point).all()):
                raise DivergedError(f"layer {name!r} has an input scale or zero point that is not finite")
            if not (scale > 0).all():
                raise DivergedError(f"layer {name!r} has an input scale that is not positive")
            if activations is not None and not zero_points_fit(zero_point, activations.levels()):
                raise CellError(f"layer {name!r} has an input zero point that is not a level of its grid")
        missing = [name for name in static if name not in self.inputs]
        if missing:
            raise CellError(f"the method left the input scale of layer {missing[0]!r} out")


def _check_grid(layer: TargetLayer, found: LayerSolution) -> None:
    """Make sure that codes are levels of their grid, and the grid is one of the quantizer's; see `Solution.check`."""
    grid, given = found.grid, layer.grid
    for part in ("scale", "zero_point", "table"):
        own, expected = getattr(grid, part), getattr(given, part)
        if own is None and expected is None:
            continue
        shape, wanted = (None if one is None else tuple(one.shape) for one in (own, expected))
        if shape != wanted or grid.group_size != given.group_size or grid.block_rows != given.block_rows:
            raise CellError(
                f"layer {layer.name!r} has a {part} of shape {shape} in groups of {grid.group_size}, "
                f"expected {wanted} in groups of {given.group_size}: the granularity is the quantizer's"
            )
        if not torch.isfinite(own).all():
            raise DivergedError(f"layer {layer.name!r} has a {part} that is not finite")
    if not torch.isfinite(found.codes).all():
        raise DivergedError(f"layer {layer.name!r} has codes that are not finite")
    low, high = grid.levels.quant_min, grid.levels.quant_max
    on_grid = (found.codes == found.codes.round()) & (found.codes >= low) & (found.codes <= high)
    if not on_grid.all() or grid.levels != given.levels:
        raise CellError(f"layer {layer.name!r} has codes that are not levels of its grid")
    if not (grid.scale > 0).all():
        raise DivergedError(f"layer {layer.name!r} has a scale that is not positive")
    # By name: a scale of the whole weight is chosen again with the others.
    kept = grid.scale_format
    if kept.name != given.scale_format.name or not torch.equal(kept.round(grid.scale), grid.scale):
        raise CellError(f"layer {layer.name!r} has scales that {given.scale_format.name} cannot hold")
