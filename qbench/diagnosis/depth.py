"""How far out of the basin an excess loss is: one scale for language models and image classifiers."""

from __future__ import annotations

import math


def depth(excess: float, tolerance: float) -> float:
    """Return ``ln(1 + D / t)``.

    Parameters
    ----------
    excess : float
        D, nats a token (or an image).
    tolerance : float
        t, the excess that counts as nothing (see `qbench.claims.regimes.Basin`).

    Returns
    -------
    float
        In proportion to D below t, to its logarithm above; 0 where nothing is lost, ln 2 at the edge of the basin.
    """
    return math.log1p(max(excess, 0.0) / tolerance)


def excess_at(deep: float, tolerance: float) -> float:
    """Return the excess loss of a depth, nats; the inverse of `depth` above 0."""
    return tolerance * math.expm1(deep)


EDGE = math.log(2.0)
"""The depth at the edge of the basin, ``D = t``."""
