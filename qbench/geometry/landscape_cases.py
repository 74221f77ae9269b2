"""The landscapes that are measured: their numbers, before any tensor.

Three cases in two dimensions, in which every corner of the lattice around the weights can be listed, and one of many
dimensions, drawn at random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """The numbers of a landscape; see `qbench.geometry.landscape.Landscape`.

    Attributes
    ----------
    visible, flat, river : ndarray of shape (d, s), (d, m), (d, r)
        Orthonormal columns, together all d directions.
    centre, start : ndarray of shape (d,)
        A point of the river, and the full-precision weights.
    curvature : float
        Of the visible directions, lambda.
    flatness : float
        Of the flat directions inside the basin: eps, of which ``eps / rho^2`` is the curvature.
    rho, wall : float
        Where the basin ends, and the slope G beyond.
    tilt : float
        Fall along the first flat direction.
    slope : float
        Fall along the first river direction.
    curve : float
        How the river bends into the first flat direction along the first river direction: ``curve / 2 * z_R^2``.
    ridge : float
        Curvature of the river directions that second-order methods see, and that is not there.
    """

    visible: Array
    flat: Array
    river: Array
    centre: Array
    start: Array
    curvature: float
    flatness: float
    rho: float
    wall: float = 1.0
    tilt: float = 0.0
    slope: float = 0.0
    curve: float = 0.0
    ridge: float = 0.0

    def sha256(self) -> str:
        """Return a hash of the numbers, as far as they are the same on every machine."""
        found = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                # Bases come from a factorization whose last digits are the library's; adding 0 makes 0 of -0.
                value = (np.round(value, 6) + 0.0).tobytes().hex()
            found.update(f"{field.name}:{value}\n".encode())
        return found.hexdigest()

    def reversed(self) -> Setting:
        """Return the same landscape with its weights in reverse order."""
        names = ("visible", "flat", "river", "centre", "start")
        return replace(self, **{name: getattr(self, name)[::-1].copy() for name in names})


_DIAGONAL = np.array([[1.0], [1.0]]) / np.sqrt(2)
_ACROSS = np.array([[1.0], [-1.0]]) / np.sqrt(2)
_NONE = np.zeros((2, 0))


def off_centre() -> Setting:
    """Return case A: one normal, weights near the wall, and rounding to nearest steps over it.

    The Hessian says the same as rounding to nearest; three of the four corners lie in the basin.
    """
    start = np.array([10.85, -6.15])
    return Setting(
        visible=_NONE,
        flat=_DIAGONAL,
        river=-_ACROSS,
        centre=start - 0.65 * _DIAGONAL[:, 0],
        start=start,
        curvature=0.0,
        flatness=1e-3,
        rho=0.8,
        ridge=1e-6,
    )


def incompatible() -> Setting:
    """Return case B: the lattice is coarser than the basin is wide, and training jumps over it for ever."""
    centre = np.array([0.5, 0.5])
    return Setting(
        visible=_DIAGONAL,
        flat=_ACROSS,
        river=_NONE,
        centre=centre,
        start=np.array([0.53, 0.47]),
        curvature=1e-2,
        flatness=1e-4 * 0.6**2,
        rho=0.6,
    )


def beyond_taylor() -> Setting:
    """Return case C: two normals, and every local polynomial at the weights leads over the wall."""
    start = np.array([4.55, 2.45])
    return Setting(
        visible=_DIAGONAL,
        flat=_ACROSS,
        river=_NONE,
        centre=start - 0.45 * _ACROSS[:, 0],
        start=start,
        curvature=1e-2,
        flatness=1e-5 * 0.9**2,
        rho=0.9,
        tilt=1e-4,
    )


CASES: dict[str, tuple[Callable[[], Setting], float]] = {
    "valley_a": (off_centre, 0.01),
    "valley_b": (incompatible, 0.01),
    "valley_c": (beyond_taylor, 0.02),
}
"""By the model's name: the landscape, and the loss up to which a point counts as inside the basin."""


def random_valley(
    dimension: int,
    visible: int,
    flat: int,
    seed: int,
    *,
    offset: float,
    curvature: float,
    flatness: float,
    rho: float,
    wall: float,
    slope: float = 0.0,
    curve: float = 0.0,
) -> Setting:
    """Draw a landscape whose directions lie at random to those of the weights.

    Parameters
    ----------
    dimension, visible, flat : int
        All directions, and how many of them are visible and flat; the others are the river's.
    seed : int
        Of numpy's default generator.
    offset : float
        Distance of the weights from the river, along a random flat direction.
    curvature, flatness, rho, wall, slope, curve : float
        See `Setting`.
    """
    chance = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(chance.standard_normal((dimension, dimension)))
    centre = 3 * chance.standard_normal(dimension)
    direction = chance.standard_normal(flat)
    walled = basis[:, visible : visible + flat]
    return Setting(
        visible=basis[:, :visible],
        flat=walled,
        river=basis[:, visible + flat :],
        centre=centre,
        start=centre + offset * walled @ (direction / np.linalg.norm(direction)),
        curvature=curvature,
        flatness=flatness,
        rho=rho,
        wall=wall,
        slope=slope,
        curve=curve,
    )
