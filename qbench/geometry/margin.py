"""How much a model loses to errors as large as a grid's rounding errors, without rounding anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from qbench.geometry.base import Probe

if TYPE_CHECKING:
    from qbench.geometry.scene import Findings, Scene
    from qbench.geometry.stand_in import Move


class MovingProbe(Probe):
    """Base of the probes that move weights by random errors as large as their rounding errors.

    Attributes
    ----------
    budget : int
        Tokens or images that losses are taken on, in whole windows spread evenly over the evaluation split.
    draws : int
        Random errors of each kind.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.geometry.moved",
        "qbench.geometry.places",
        "qbench.geometry.sampled_loss",
        "qbench.geometry.second_order",
        "qbench.geometry.stand_in",
        "qbench.methods.block_calls",
        "qbench.methods.gptq_scales",
        "qbench.methods.gptq_solver",
        "qbench.methods.matrices",
        "qbench.methods.ordered_grid",
        "qbench.methods.sequential",
        "qbench.methods.stage",
    )

    streams: ClassVar[bool] = True

    budget: Annotated[int, Field(ge=1)] = 4096
    draws: Annotated[int, Field(ge=1, le=64)] = 2

    def moves(self, layers: tuple[str, ...]) -> Mapping[str, list[Move]]:
        """Return where the weights go, by what the losses there are called in the record."""
        raise NotImplementedError

    @property
    def calibration_tokens(self) -> int:
        """Tokens or images of the calibration split that are looked at."""
        return 0

    def measure(self, scene: Scene) -> Findings:
        """Move the weights and look; see `Probe.measure`."""
        from qbench.geometry.moved import measure_moves

        return measure_moves(self, scene)


class Margin(MovingProbe):
    """Excess loss of random errors that are as large as the rounding error, on a few tokens or images.

    Attributes
    ----------
    calibration : int
        Tokens or images of the calibration split from which the second moments of layers' inputs are taken, in whole
        windows.

    Notes
    -----
    ``matched`` stands for rounding to nearest: it shrinks each row as the rounding error does, and has every other sign
    drawn anew (see `qbench.geometry.stand_in`). ``second_order`` is the same error, handed on from column to column as
    GPTQ does (see `qbench.geometry.second_order`). No derivative is taken: there are forward passes only.
    """

    calibration: Annotated[int, Field(ge=1)] = 8192

    @property
    def calibration_tokens(self) -> int:
        """See `MovingProbe.calibration_tokens`."""
        return self.calibration

    def moves(self, layers: tuple[str, ...]) -> Mapping[str, list[Move]]:
        """Return where the weights go; see `MovingProbe.moves`."""
        from qbench.geometry.stand_in import Move

        return {
            "matched": [Move("matched", draw) for draw in range(self.draws)],
            "second_order": [Move("second_order", draw) for draw in range(self.draws)],
        }


class LayerMargins(MovingProbe):
    """Excess loss of random errors in one layer at a time, or one block and one kind of layer where there are many.

    Attributes
    ----------
    budget : int
        Tokens or images that losses are taken on, in whole windows spread evenly over the evaluation split.
    draws : int
        Random errors of each place.
    most : int
        Places that are measured at most. A model with more layers is measured block by block, and once more by kind
        of layer (all ``down_proj``, say).

    Notes
    -----
    Errors are the ``matched`` ones of `Margin`.
    """

    budget: Annotated[int, Field(ge=1)] = 1024
    draws: Annotated[int, Field(ge=1, le=64)] = 1
    most: Annotated[int, Field(ge=4)] = 40

    def moves(self, layers: tuple[str, ...]) -> Mapping[str, list[Move]]:
        """Return where the weights go; see `MovingProbe.moves`."""
        from qbench.geometry.places import places
        from qbench.geometry.stand_in import Move

        found = places(layers, self.most)
        return {name: [Move("matched", draw, own) for draw in range(self.draws)] for name, own in found.items()}
