"""AdaRound's relaxation (Nagel et al., 2020, arXiv:2004.10568): soft rounding, its annealed regularizer, hardening.

Between the two neighbours of a weight on its grid lies ``base + rise * h(V)``, with h in [0, 1] the stretched sigmoid
of equation 23. The regularizer of equation 24, ``sum(1 - |2h - 1|^beta)``, drives h to its ends as beta falls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from qbench.quant.block_grid import BlockGrid

# h(V) = clip(sigmoid(V) * (ZETA - GAMMA) + GAMMA, 0, 1)
ZETA, GAMMA = 1.1, -0.1
# A rounding counts as settled when h is this close to 0 or 1.
SETTLED = 0.05


class Annealing(Protocol):
    """The options that say how the regularizer comes in."""

    @property
    def iterations(self) -> int:
        """Steps in all."""

    @property
    def warm_start(self) -> float:
        """Share of the steps without regularization."""

    @property
    def beta_start(self) -> float:
        """First exponent."""

    @property
    def beta_end(self) -> float:
        """Last exponent."""

    @property
    def schedule(self) -> str:
        """How the exponent falls: ``cosine`` or ``linear``."""


def beta_at(iteration: int, options: Annealing) -> float | None:
    """Return the exponent of the regularizer at a zero-based iteration; None during the warm start."""
    start = options.warm_start * options.iterations
    if iteration < start:
        return None
    done = (iteration - start) / (options.iterations - start)
    fall = 0.5 * (1 + math.cos(math.pi * done)) if options.schedule == "cosine" else 1 - done
    return options.beta_end + (options.beta_start - options.beta_end) * fall


@dataclass(frozen=True)
class Neighbours:
    """The two levels of the grid that each weight lies between.

    Attributes
    ----------
    down, up : Tensor of shape (..., rows, n)
        Their codes; the same one for a weight beyond the last level.
    base, rise : Tensor of shape (..., rows, n)
        The lower level's value, and what the upper one is above it: a step, or 0.
    fraction : Tensor of shape (..., rows, n)
        Where the weight lies between the two, from 0 to 1.
    """

    down: Tensor
    up: Tensor
    base: Tensor
    rise: Tensor
    fraction: Tensor

    @classmethod
    def of(cls, weight: Tensor, grid: BlockGrid) -> Neighbours:
        """Return the neighbours of weights of shape (..., rows, n)."""
        levels, weight = grid.levels, weight.contiguous()
        scale, snapping = grid.on_matrix(weight)
        position = weight / scale
        nearest = snapping.snap(position, out=torch.empty_like(position))
        below = nearest <= position
        code = snapping.codes(nearest)
        down = torch.where(below, code, code - 1).clamp_(min=levels.quant_min)
        up = torch.where(below, code + 1, code).clamp_(max=levels.quant_max)
        lower, upper = snapping.values(down), snapping.values(up)
        gap = upper - lower
        # Beyond the last level there is no gap: any fraction does.
        fraction = torch.where(gap > 0, (position - lower) / gap, 0.0)
        return cls(down, up, lower * scale, gap * scale, fraction)

    def start(self) -> Tensor:
        """Return the V at which the soft weight is the weight itself."""
        return torch.logit((self.fraction.clamp(1e-4, 1 - 1e-4) - GAMMA) / (ZETA - GAMMA))

    def start_at(self, codes: Tensor) -> Tensor:
        """Return the V at which every h is a quarter off the middle, on the side of given codes.

        Parameters
        ----------
        codes : Tensor of shape (..., rows, n)
            Each at one of its two neighbours.
        """
        side = torch.where(codes == self.up, 0.75, 0.25)
        return torch.logit((side - GAMMA) / (ZETA - GAMMA))

    def soft(self, h: Tensor) -> Tensor:
        """Return the soft weight."""
        return torch.addcmul(self.base, self.rise, h)

    def harden(self, h: Tensor) -> Tensor:
        """Return the codes: h of a half and above rounds up."""
        return torch.where(h >= 0.5, self.up, self.down)

    def unsettled(self, h: Tensor) -> Tensor:
        """Return the share of each matrix's h that are further than 0.05 from 0 and 1, of shape (...)."""
        between = (h > SETTLED) & (h < 1 - SETTLED) & (self.up > self.down)
        return between.float().mean(dim=(-2, -1))


def rectified(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return h(V), and the slope dh/dV, which is 0 where h is clipped."""
    sigmoid = torch.sigmoid(v)
    stretched = sigmoid * (ZETA - GAMMA) + GAMMA
    h = stretched.clamp(0, 1)
    slope = sigmoid.mul_(1 - sigmoid).mul_(ZETA - GAMMA)
    return h, torch.where(h == stretched, slope, 0.0)


def regularizer_gradient(h: Tensor, beta: float) -> Tensor:
    """Return the gradient of ``sum(1 - |2h - 1|^beta)`` with respect to h."""
    centred = 2 * h - 1
    return centred.abs().pow_(beta - 1).copysign_(centred).mul_(-2 * beta)


class _SoftRounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, between: Neighbours) -> Tensor:
        h, slope = rectified(v)
        ctx.save_for_backward(slope, between.rise)
        return between.soft(h)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope, rise = ctx.saved_tensors
        # Laid out in memory as V is, whatever the gradient's order: fused Adam goes through both side by side.
        return (rise * slope).mul_(grad), None


def soft_weight(v: Tensor, between: Neighbours) -> Tensor:
    """Return ``base + rise * h(V)``, with its gradient for V."""
    result: Tensor = _SoftRounding.apply(v, between)  # type: ignore[no-untyped-call]
    return result
