"""How far a model's weights can be moved, in directions as long as the rounding error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.geometry.base import Probe

if TYPE_CHECKING:
    from qbench.geometry.scene import Findings, Scene, Weights

_DRAWN = ("flipped", "permuted", "gaussian")


class Radius(Probe):
    """Excess loss along the rounding error and along random directions that are as long, layer by layer.

    Attributes
    ----------
    scales : tuple of float
        Where on each direction, in multiples of the rounding error. Rising.
    draws : int
        Random directions of each kind; their losses are averaged.

    Notes
    -----
    ``rtn`` is ``e = q(w) - w`` on the cell's grids. ``flipped`` has each entry's sign drawn anew, ``permuted`` has the
    entries of each layer in another order, ``gaussian`` is normal noise. All have the norm of e in each layer.
    """

    sources: ClassVar[tuple[str, ...]] = ("qbench.geometry.derivatives",)

    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=2)] = (
        0.25,
        0.4,
        0.63,
        1.0,
        1.6,
        2.5,
        4.0,
    )
    draws: Annotated[int, Field(ge=1)] = 2

    def measure(self, scene: Scene) -> Findings:
        """Walk; see `Probe.measure`."""
        from qbench.geometry.derivatives import norm
        from qbench.geometry.scene import Findings, Losses

        error = scene.rounding_error()
        traces: dict[str, list[float]] = {"scale": list(self.scales)}
        for kind in ("rtn", *_DRAWN):
            drawn = [_direction(scene, error, kind, draw) for draw in range(self.draws if kind in _DRAWN else 1)]
            traces[f"{kind}/excess"], traces[f"{kind}/se"] = [], []
            for scale in self.scales:
                losses = [scene.losses(scene.moved(direction, scale)) for direction in drawn]
                excess, se = Losses.average(losses).excess(scene.full_losses)
                traces[f"{kind}/excess"].append(excess)
                traces[f"{kind}/se"].append(se)
        return Findings({"distance": norm(scene.vector(error))}, traces)


def _direction(scene: Scene, error: Weights, kind: str, draw: int) -> Weights:
    """Return a direction with the norm that the error has in each layer."""
    import torch

    generator = scene.generator("radius", kind, draw)
    found = {}
    for name, one in error.items():
        if kind == "rtn":
            found[name] = one
        elif kind == "flipped":
            found[name] = one * (2.0 * torch.randint(2, one.shape, generator=generator) - 1).to(one)
        elif kind == "permuted":
            order = torch.randperm(one.numel(), generator=generator).to(one.device)
            found[name] = one.flatten()[order].view_as(one)
        else:
            noise = torch.randn(one.shape, generator=generator).to(one)
            found[name] = noise * (one.norm() / noise.norm())
    return found
