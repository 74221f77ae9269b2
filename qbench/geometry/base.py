"""What every probe is: a measurement of the loss around a model's weights, kept in a record of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from qbench.spec import Spec

if TYPE_CHECKING:
    from qbench.geometry.scene import Findings, Scene


class Probe(Spec):
    """Base of the probes; a subclass adds its options as fields and writes `measure`.

    Attributes
    ----------
    points : tuple of str
        Methods whose deployed weights it reads, by name or by full label: cells of the same model, quantizer, bits and
        seed, which are run first. A name means every cell of that method.
    bn : str
        What batch norms are at each point that is measured. ``keep``: a point's own statistics, where its cell brings
        some, and otherwise those of the full-precision model; ``recalibrate``: estimated again on the calibration
        images, at every point alike, so that a loss is the weights' own.
    streams : bool
        Whether it can measure a model of which one block at a time is in memory; such a one is a
        `qbench.geometry.margin.MovingProbe`.
    """

    streams: ClassVar[bool] = False

    points: tuple[str, ...] = ()
    bn: Literal["keep", "recalibrate"] = "keep"

    def measure(self, scene: Scene) -> Findings:
        """Measure.

        Parameters
        ----------
        scene : Scene
            The full-precision model with the cell's grids, and the weights of the points.
        """
        raise NotImplementedError
