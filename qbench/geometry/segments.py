"""The loss on straight lines between the full-precision weights and the weights that methods deploy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.geometry.base import Probe

if TYPE_CHECKING:
    from qbench.geometry.scene import Findings, Point, Scene


class Segments(Probe):
    """Excess loss on the segments from full precision to each point, and from the first point to the others.

    Attributes
    ----------
    points : tuple of str
        The first is the one that post-training quantization gives; the others are witnesses that quantized weights with
        a low loss exist.
    samples : int
        Places on a segment, both ends among them.

    Notes
    -----
    Between two points weights are ``(1 - t) a + t b``, and so are batch norms' running statistics where ``bn`` is
    ``keep``; a point without any of its own has those of full precision.
    """

    sources: ClassVar[tuple[str, ...]] = ("qbench.geometry.derivatives",)

    points: Annotated[tuple[str, ...], Field(min_length=1)] = ("rtn", "ste_qat")
    samples: Annotated[int, Field(ge=2)] = 17

    def measure(self, scene: Scene) -> Findings:
        """Walk the segments; see `Probe.measure`."""
        from qbench.geometry.derivatives import cosine, norm
        from qbench.geometry.scene import Findings, Point

        places = [place / (self.samples - 1) for place in range(self.samples)]
        full = Point(scene.full)
        ends = {label: scene.excess_of(label) for label in scene.points}
        errors = {
            label: scene.vector(point.weights) - scene.vector(full.weights) for label, point in scene.points.items()
        }
        first = next(iter(scene.points))
        metrics: dict[str, float] = {}
        traces = {"t": places}

        def walk(one: Point, other: Point, start: float, end: float) -> list[float]:
            inner = [scene.excess_at(scene.between(one, other, t))[0] for t in places[1:-1]]
            return [start, *inner, end]

        for label, point in scene.points.items():
            excess, se = ends[label]
            metrics |= {
                f"{label}/distance": norm(errors[label]),
                f"{label}/excess": excess,
                f"{label}/se": se,
                f"{label}/cosine_to_first": cosine(errors[label], errors[first]),
            }
            traces[f"fp->{label}"] = walk(full, point, 0.0, excess)
            if label != first:
                traces[f"{first}->{label}"] = walk(scene.points[first], point, ends[first][0], excess)
        return Findings(metrics, traces)
