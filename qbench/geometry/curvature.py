"""What the derivatives at the full-precision weights foretell of quantized ones, and what these really cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.geometry.base import Probe

if TYPE_CHECKING:
    from torch import Tensor

    from qbench.geometry.lanczos import Spectrum
    from qbench.geometry.scene import Findings, Scene


class Curvature(Probe):
    """The second-order expansion of the evaluation loss at full precision, at the weights of each point.

    Attributes
    ----------
    points : tuple of str
        What is expanded; see `Probe`.
    samples : int
        Windows or images that derivatives are taken over, spread over the evaluation split.
    top : int
        Eigenvectors of the Gauss-Newton matrix that make the top space.
    iterations : int
        Of Lanczos; at least `top`.

    Notes
    -----
    With ``e = q - w``: ``linear`` is ``g . e``, ``hessian`` is ``e^T H e / 2``, ``gauss_newton`` is ``e^T G e / 2``,
    over the target layers' weights, in nats; see `qbench.geometry.derivatives`, which also says what G is where
    there are no logits: H. ``subset_excess`` is what they foretell, on the same samples. ``top_share`` is
    ``|P e|^2 / |e|^2``, P the projection on the top space, and ``null/top_share`` what a random e has, k / size.
    ``step_rms`` is the root mean square of ``e / s``, s the scale of the cell's grid; it is left out where levels are a
    codebook. The trace ``residuals`` says how well each of the `eigenvalues` has converged.
    """

    sources: ClassVar[tuple[str, ...]] = ("qbench.geometry.derivatives", "qbench.geometry.lanczos")

    points: tuple[str, ...] = ("rtn", "gptq", "adaround")
    samples: Annotated[int, Field(ge=1)] = 64
    top: Annotated[int, Field(ge=1)] = 16
    iterations: Annotated[int, Field(ge=1)] = 40

    def measure(self, scene: Scene) -> Findings:
        """Expand; see `Probe.measure`."""
        from qbench.geometry.derivatives import Derivatives, dot, norm
        from qbench.geometry.scene import Findings

        spectrum = scene.remember(("spectrum", self.samples, self.top, self.iterations), lambda: self._spectrum(scene))
        full = scene.remember(("loss", self.samples), lambda: scene.mean_loss(scene.full, None, self.samples))
        labels = list(scene.points)
        errors = [scene.vector(scene.points[label].weights) - scene.vector(scene.full) for label in labels]
        with scene.at(scene.full):
            there = Derivatives(scene, self.samples)
            gradient, products = there.gradient_and_hessian(errors)
            with there.gauss_newton() as matrix:
                forms = [matrix.form(error) for error in errors]
        metrics = {"gradient_norm": norm(gradient), "null/top_share": len(spectrum.values) / scene.size}
        for label, error, product, form in zip(labels, errors, products, forms, strict=True):
            point = scene.points[label]
            excess, se = scene.excess_of(label)
            metrics |= {
                f"{label}/excess": excess,
                f"{label}/se": se,
                f"{label}/subset_excess": scene.mean_loss(point.weights, point.statistics, self.samples) - full,
                f"{label}/linear": dot(gradient, error),
                f"{label}/hessian": 0.5 * dot(error, product),
                f"{label}/gauss_newton": 0.5 * form,
                f"{label}/distance": norm(error),
                f"{label}/top_share": spectrum.share(error),
            }
            in_steps = _in_steps(scene, error)
            if in_steps is not None:
                metrics[f"{label}/step_rms"] = norm(in_steps) / math.sqrt(scene.size)
        return Findings(metrics, {"eigenvalues": spectrum.values.tolist(), "residuals": spectrum.residuals.tolist()})

    def _spectrum(self, scene: Scene) -> Spectrum:
        from qbench.geometry.derivatives import Derivatives
        from qbench.geometry.lanczos import largest

        with scene.at(scene.full), Derivatives(scene, self.samples).gauss_newton() as matrix:
            start = scene.vector(scene.full)
            return largest(matrix.product, start, self.top, self.iterations, scene.generator("lanczos"))


def _in_steps(scene: Scene, error: Tensor) -> Tensor | None:
    """Return an error in units of each weight's step; None where a grid has codebooks instead of steps."""
    if any(layer.grid.table is not None for layer in scene.problem.layers):
        return None
    steps = scene.steps()
    return scene.vector({name: part / steps[name] for name, part in scene.weights(error).items()})
