"""Weights in training: a float32 latent weight beside the one that the model computes with.

The model's own weight is filled once a step and is a leaf for autograd; its gradient is taken over to the latent
weight afterwards. So the model runs as it always does, without a graph through the quantizer or a hook in any layer.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qbench.errors import DivergedError
from qbench.methods.matrices import from_matrix, to_matrix
from qbench.methods.oscillation import Oscillation
from qbench.methods.problem import LayerSolution, TargetLayer
from qbench.methods.qat_options import QuantizationAwareTraining
from qbench.quant.block_grid import BlockGrid, dequantize, fake_quantize, quantize
from qbench.quant.fused import round_to_levels


class StepSize(Protocol):
    """A scale in training."""

    def step_sizes(self) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups."""

    def after_update(self) -> None:
        """Restore what must hold after each optimizer step."""


class LatentWeight:
    """The weight of a layer in full precision, as training sees it; the base of those that are quantized.

    Parameters
    ----------
    layer : TargetLayer
        The layer. Its weight of type float32 is trained where it is, another one through a float32 copy.

    Attributes
    ----------
    latent : nn.Parameter
        What the optimizer moves: float32, in the weight's own shape.
    """

    def __init__(self, layer: TargetLayer) -> None:
        self.layer = layer
        self._weight: nn.Parameter = layer.module.weight  # type: ignore[assignment]
        self._gathered: Tensor | None = None
        self.latent = self._first_latent()

    def _first_latent(self) -> nn.Parameter:
        return self._weight if self._weight.dtype == torch.float32 else self._copy()

    def _copy(self) -> nn.Parameter:
        weight = self.layer.weight.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return nn.Parameter(weight)

    def step_sizes(self) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups beside the latent weight."""
        return []

    @torch.no_grad()
    def write(self) -> None:
        """Give the model the weight that the latent one stands for."""
        if self.latent is not self._weight:
            self._weight.copy_(self.latent)

    @torch.no_grad()
    def gather_gradient(self) -> None:
        """Add the gradient of a part of a step's batch to those before it, in float32 whatever the weight's type is."""
        gradient = self._weight.grad
        if gradient is None or gradient.dtype == torch.float32:
            return  # autograd itself adds it up
        self._gathered = gradient.float() if self._gathered is None else self._gathered.add_(gradient)
        self._weight.grad = None

    def _take_over(self) -> Tensor | None:
        """Return the gradient of the model's weight in float32, and take it from the model."""
        gradient, self._weight.grad = self._weight.grad, None
        if self._gathered is not None:
            gradient, self._gathered = self._gathered, None
        return None if gradient is None else gradient.float()

    @torch.no_grad()
    def take_gradient(self) -> None:
        """Turn the gradient of the model's weight into gradients of what is trained."""
        if self.latent is self._weight:
            return
        gradient = self._take_over()
        if gradient is not None:
            self.latent.grad = gradient

    def after_update(self) -> None:
        """Restore what must hold after each optimizer step."""

    def state(self) -> dict[str, Tensor]:
        """Return what `restore` needs beside the values of the optimizer's parameters, by name."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on where an earlier process was after a step.

        Parameters
        ----------
        state : dict of str to Tensor
            What `state` returned there. The optimizer's parameters have their values of then already.
        """
        self.write()

    def deployed(self) -> Tensor:
        """Return what would be deployed now, of shape (rows, columns): here the latent weight itself. Changes nothing.

        Returns
        -------
        Tensor of shape (rows, columns)
            In float32, with memory of its own.
        """
        return to_matrix(self.layer.module, self.latent.detach()).clone()


class QuantizedWeight(LatentWeight):
    """A latent weight whose nearest levels the model computes with.

    Parameters
    ----------
    layer : TargetLayer
        The layer and its first grid.
    options : QuantizationAwareTraining, optional
        What is done about oscillations: nothing when left out.
    """

    def __init__(self, layer: TargetLayer, options: QuantizationAwareTraining | None = None) -> None:
        super().__init__(layer)
        self._options = options
        self._oscillation: Oscillation | None = None
        # In the weight's own type, which holds it as well as float32 does.
        self._first = self.latent.detach().to(self._weight.dtype, copy=True)
        self._matrix = to_matrix(layer.module, self.latent.detach())
        self._target = to_matrix(layer.module, self._weight.detach())
        # A weight in another order of memory has no matrix that is a view of it.
        self._is_view = self._target.data_ptr() == self._weight.data_ptr()

    def _first_latent(self) -> nn.Parameter:
        return self._copy()

    def grid(self) -> BlockGrid:
        """Return the grid as it is now."""
        raise NotImplementedError

    def gradient_to_latent(self, gradient: Tensor) -> Tensor:
        """Turn the gradient of the quantized matrix into the latent one's, in place or not."""
        return gradient

    @torch.no_grad()
    def write(self) -> None:
        """Give the model the nearest levels; frozen weights are put back on theirs before."""
        if self._options is not None and self._options.oscillation != "none":
            self._follow_codes(self._options, self.grid())
        self.deploy()

    @torch.no_grad()
    def deploy(self) -> None:
        """Give the model what would be deployed now."""
        round_to_levels(self._matrix, self.grid(), self._target)
        self._hand_over()

    def _hand_over(self) -> None:
        """Give the model the matrix in `_target`."""
        if not self._is_view:
            self._weight.copy_(from_matrix(self.layer.module, self._target))

    def _follow_codes(self, options: QuantizationAwareTraining, grid: BlockGrid) -> None:
        codes = quantize(self._matrix, grid)
        if self._oscillation is None:
            self._oscillation = Oscillation(
                codes,
                options.oscillation_momentum,
                options.oscillation_threshold,
                freeze=options.oscillation == "freeze",
            )
            return
        codes = self._oscillation.observe(codes)
        if self._oscillation.freeze:
            held = torch.where(self._oscillation.frozen, dequantize(codes, grid), self._matrix)
            self._matrix.copy_(held)

    def frozen(self) -> Tensor | None:
        """Return which weights of the matrix are held at a code; None where none ever is."""
        return self._oscillation.frozen if self._oscillation is not None and self._oscillation.freeze else None

    @torch.no_grad()
    def take_gradient(self) -> None:
        """Turn the gradient at the quantized weight into gradients of what is trained; frozen weights get none."""
        given = self._take_over()
        if given is None:
            return
        gradient = to_matrix(self.layer.module, given)
        self.latent.grad = from_matrix(self.layer.module, self.gradient_to_latent(gradient))
        frozen = self.frozen()
        if frozen is not None:
            to_matrix(self.layer.module, self.latent.grad).masked_fill_(frozen, 0.0)

    def state(self) -> dict[str, Tensor]:
        """Return what has been followed of oscillations; see `LatentWeight.state`."""
        return {} if self._oscillation is None else self._oscillation.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on where an earlier process was after a step; see `LatentWeight.restore`."""
        if self._oscillation is not None:
            self._oscillation.restore(state)
        self.deploy()

    @torch.no_grad()
    def deployed(self) -> Tensor:
        """Return the nearest levels of the latent weight on its grid; see `LatentWeight.deployed`."""
        return fake_quantize(self._matrix, self.grid())

    def solution(self) -> LayerSolution:
        """Return the codes that the model computes with now.

        Raises
        ------
        DivergedError
            The latent weight holds NaN or infinity.
        """
        self.require_finite()
        changes, first = (part.float().abs().sum() for part in (self.latent.detach() - self._first, self._first))
        moved = self.layer.total(changes) / self.layer.total(first).clamp(min=1e-30)
        details = {"moved_l1": float(moved)} | (self._oscillation.details() if self._oscillation else {})
        grid = self.grid()
        return LayerSolution(quantize(self._matrix, grid), grid, details=details)

    def require_finite(self) -> None:
        """Raise DivergedError when the latent weight holds NaN or infinity."""
        if not torch.isfinite(self._matrix).all():
            raise DivergedError(f"the latent weight of layer {self.layer.name!r} became NaN or infinite")
