"""Rounding and noise on ever larger steps, without clipping: how wide the basin is, and how sharply it ends."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from qbench.errors import DivergedError
from qbench.geometry.base import Probe
from qbench.quant.grid import IntegerGrid
from qbench.quantizers.base import Quantizer
from qbench.spec import Spec

if TYPE_CHECKING:
    from qbench.geometry.scene import Findings, Scene, Weights


class Ladder(Probe):
    """Excess loss of nearest rounding, and of uniform noise in its place, on the cell's steps times rising factors.

    Attributes
    ----------
    factors : int
        Rungs; the first is the cell's own grid.
    ratio : float
        From one rung to the next.
    draws : int
        Of the noise. A draw is the same one on all rungs, and grows with the step.

    Notes
    -----
    On rung k each weight's step is ``s_k = s ratio^k``, s the scale of its block. ``rtn`` is
    ``s_k (round(w / s_k + z) - z)`` with all integers for levels, z the real zero point where the grid has such, else
    0: nothing is clipped, so that steps alone tell the rungs apart. ``noise`` is ``w + s_k u``, u uniform on
    [-1/2, 1/2): an error of the same size that knows nothing of the lattice. The trace ``step`` is the root mean square
    over layers of a layer's root mean square step, in units of the weights.
    """

    factors: Annotated[int, Field(ge=2)] = 20
    ratio: Annotated[float, Field(gt=1)] = 1.25
    draws: Annotated[int, Field(ge=2)] = 4

    def refuses_grid(self, quantizer: Spec) -> str | None:
        """Return why there is no ladder from a quantizer's grids; see `Spec.refuses_grid`."""
        if isinstance(quantizer, Quantizer) and isinstance(quantizer.levels(quantizer.allowed_bits[-1]), IntegerGrid):
            return None
        return f"{self.name} rounds to all integers, and {quantizer.name} has other levels"

    def measure(self, scene: Scene) -> Findings:
        """Climb, up to the last rung below one whose loss is not finite; see `Probe.measure`.

        Raises
        ------
        DivergedError
            That is the first.
        """
        import torch

        from qbench.geometry.scene import Findings, Losses

        steps = scene.steps()
        names = ("factor", "step", "rtn/excess", "rtn/se", "noise/excess", "noise/se", "noise/spread")
        traces: dict[str, list[float]] = {name: [] for name in names}
        squares = torch.stack([steps[name].double().square().mean() for name in scene.full])
        for factor in (self.ratio**rung for rung in range(self.factors)):
            rounded = scene.excess(_rounded(scene, factor))
            drawn = [scene.losses(_noisy(scene, steps, factor, draw)) for draw in range(self.draws)]
            noise = Losses.average(drawn).excess(scene.full_losses)
            spread = torch.tensor([one.mean for one in drawn], dtype=torch.float64).std()
            row = (factor, factor * float(squares.mean().sqrt()), *rounded, *noise, float(spread))
            if not all(map(math.isfinite, row)):
                break
            for name, value in zip(names, row, strict=True):
                traces[name].append(value)
        if not traces["factor"]:
            raise DivergedError(f"{self.name}: the loss is not finite on the first rung")
        return Findings(traces=traces)


def _rounded(scene: Scene, factor: float) -> Weights:
    found = {}
    for layer in scene.problem.layers:
        weight = scene.full[layer.name]
        scale, shift = layer.grid.by_column(weight.shape[1], len(weight))
        step = factor * scale
        position = weight / step
        # A whole zero point moves the codes and not the levels.
        whole = (position + shift).round() - shift if layer.grid.levels.real_zero_point else position.round()
        found[layer.name] = whole * step
    return found


def _noisy(scene: Scene, steps: Weights, factor: float, draw: int) -> Weights:
    import torch

    generator = scene.generator("ladder", draw)
    return {
        name: weight + factor * steps[name] * (torch.rand(weight.shape, generator=generator).to(weight) - 0.5)
        for name, weight in scene.full.items()
    }
