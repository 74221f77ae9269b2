"""Whether the gradient at rounded weights points back to the full-precision ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.geometry.base import Probe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qbench.geometry.scene import Findings, Scene


class Inward(Probe):
    """Cosines of descent directions, at the rounded and at the full-precision weights, with the way back.

    Attributes
    ----------
    flips : int
        Draws of the null: the way back with every sign drawn anew.
    samples : int or None
        Windows or images that gradients are taken over, spread over the evaluation split; None for all.

    Notes
    -----
    With q the nearest rounding on the cell's grids and ``e = w - q``: ``cosine/deployed`` is cos(-grad L(q), e),
    ``cosine/latent`` is cos(-grad L(w), e), 0 where a gradient is; ``norm_ratio`` is left out where grad L(w) is 0. The
    null has the mean 0 and the deviation ``|g * e| / (|g| |e|)``, entry by entry in the numerator: 1/sqrt(size) where
    the entries are alike, so in a large model a cosine can be small and far outside of it. ``projection`` is what a
    step of length 1 along e wins to first order, ``-grad L(q) . e / |e|``.
    """

    sources: ClassVar[tuple[str, ...]] = ("qbench.geometry.derivatives",)

    flips: Annotated[int, Field(ge=100)] = 200
    samples: Annotated[int, Field(ge=1)] | None = None

    def measure(self, scene: Scene) -> Findings:
        """Compare; see `Probe.measure`."""
        import torch

        from qbench.geometry.derivatives import cosine, dot, norm
        from qbench.geometry.scene import Findings

        back = -scene.vector(scene.rounding_error())
        deployed = -scene.vector(scene.gradient(scene.rounded(), self.samples))
        latent = -scene.vector(
            scene.remember(("gradient", self.samples), lambda: scene.gradient(scene.full, self.samples))
        )
        lengths = norm(deployed) * norm(back)
        null = _flipped_sums(deployed.double() * back, self.flips, scene.generator("inward"))
        null = null / lengths if lengths > 0 else null
        found, spread = cosine(deployed, back), float(null.std())
        metrics = {
            "cosine/deployed": found,
            "cosine/latent": cosine(latent, back),
            "null/mean": float(null.mean()),
            "null/sd": spread,
            "null/high": float(torch.quantile(null, 0.99)),
            "z": (found - float(null.mean())) / spread if spread > 0 else 0.0,
            "gradient_norm/deployed": norm(deployed),
            "gradient_norm/latent": norm(latent),
            "projection": dot(deployed, back) / norm(back),
        }
        if norm(latent) > 0:
            metrics["norm_ratio"] = norm(deployed) / norm(latent)
        return Findings(metrics)


def _flipped_sums(terms: Tensor, flips: int, generator: torch.Generator) -> Tensor:
    """Return the sum of the terms with their signs drawn at random, of shape (flips,), float64."""
    import torch

    total, found = terms.sum(), []
    for _ in range(flips):
        # Of the terms whose sign turns, twice the sum is taken away.
        turned = torch.randint(2, terms.shape, generator=generator, dtype=torch.bool).to(terms.device)
        found.append(total - 2 * (terms * turned).sum())
    return torch.stack(found).cpu()
