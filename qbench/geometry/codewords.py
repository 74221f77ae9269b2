"""Every codeword around the weights of a very small model, with what a quadratic says of it and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from qbench.errors import CellError
from qbench.geometry.base import Probe

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.geometry.scene import Findings, Scene

MOST_WEIGHTS = 12


class Codewords(Probe):
    """All roundings up and down of at most 12 weights, the nearest first.

    Notes
    -----
    With ``e = q - w``, g and H the gradient and the Hessian of the evaluation loss at w: ``distance`` is the Euclidean
    ``|e|``, ``quadratic`` is ``e^T H e / 2``, ``with_gradient`` adds ``g . e``. ``code_i`` is 0 where weight i (in the
    order of the layers, row by row) goes to the level below and 1 where it goes to the level above. A weight beyond
    the last level has one level only, and its code is 0.
    """

    sources: ClassVar[tuple[str, ...]] = ("qbench.geometry.derivatives", "qbench.methods.soft_rounding")

    def measure(self, scene: Scene) -> Findings:
        """Enumerate.

        Raises
        ------
        CellError
            The layers have more weights than can be enumerated.
        """
        import torch

        from qbench.geometry.derivatives import Derivatives
        from qbench.geometry.scene import Findings

        if scene.size > MOST_WEIGHTS:
            raise CellError(
                f"codewords: given {scene.size} weights in the target layers (allowed: at most {MOST_WEIGHTS})"
            )
        weights = scene.vector(scene.full)
        below, rise = _neighbours(scene)
        with scene.at(scene.full):
            axes = torch.eye(scene.size).to(weights)
            gradient, columns = Derivatives(scene).gradient_and_hessian(list(axes))
        hessian = torch.stack(columns).double()
        codes = torch.cartesian_prod(*[torch.arange(2 if float(one) > 0 else 1) for one in rise])
        codes = codes.view(-1, scene.size).to(weights)
        errors = (below + codes * rise - weights).double()
        distance = errors.norm(dim=1)
        order = distance.argsort(stable=True)
        codes, errors, distance = codes[order], errors[order], distance[order]
        quadratic = 0.5 * (errors @ hessian * errors).sum(dim=1)
        losses = [scene.losses(scene.weights(below + code * rise)) for code in codes]
        traces = {f"code_{place}": column.tolist() for place, column in enumerate(codes.T)}
        traces |= {
            "distance": distance.tolist(),
            "quadratic": quadratic.tolist(),
            "with_gradient": (quadratic + errors @ gradient.double()).tolist(),
            "excess": [one.excess(scene.full_losses)[0] for one in losses],
            "loss": [one.mean for one in losses],
        }
        return Findings(traces=traces)


def _neighbours(scene: Scene) -> tuple[Tensor, Tensor]:
    """Return the level below each weight and what the one above lies above it, as vectors."""
    from qbench.methods.soft_rounding import Neighbours

    found = {layer.name: Neighbours.of(scene.full[layer.name], layer.grid) for layer in scene.problem.layers}
    below = {name: one.base for name, one in found.items()}
    return scene.vector(below), scene.vector({name: one.rise for name, one in found.items()})
