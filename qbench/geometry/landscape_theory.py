"""What can be said of a landscape on paper: how coarse a lattice may be, and when training must be back in the basin.

The formulas hold for the form of `qbench.geometry.landscape`, with nearest rounding on a lattice of step ``delta`` and
no clipping. Those of steps are for many flat directions, in which ``|z_F|^2`` hardly varies.
"""

from __future__ import annotations

import math


def exit_step(rho: float, offset: float, flat: int) -> float:
    """Return the step from which rounding to nearest leaves the basin, ``sqrt(12 (rho^2 - r0^2) / m)``.

    Errors of rounding are uniform, so ``|z_F(q)|^2`` is about ``r0^2 + m delta^2 / 12``.

    Parameters
    ----------
    rho : float
        Distance of the wall from the river.
    offset : float
        Distance r0 of the full-precision weights from it, below `rho`.
    flat : int
        Flat directions m.
    """
    return math.sqrt(12 * (rho**2 - offset**2) / flat)


def compatible_step(rho: float, flat: int) -> float:
    """Return the step from which rounding errors are as long as the basin is wide: `exit_step` on the river."""
    return exit_step(rho, 0.0, flat)


def hessian_exit_step(rho: float, offset: float, flat: int, visible: int, dimension: int) -> float:
    """Return the step from which second-order rounding leaves the basin.

    Where it makes no error in the visible directions, it has twice the squared error of rounding to nearest, 1/6 of a
    step's square for each weight, spread over all other directions: ``sqrt(6 (rho^2 - r0^2) (d - s) / (m d))``.

    Parameters
    ----------
    rho, offset, flat
        See `exit_step`.
    visible : int
        Directions s whose curvature the Hessian sees.
    dimension : int
        All of them, d.
    """
    return math.sqrt(6 * (rho**2 - offset**2) * (dimension - visible) / (flat * dimension))


def first_entry_bound(offset: float, rate: float, rho: float, wall: float, error: float, gradient: float) -> float:
    """Return the number of updates within which the deployed weights are in the basin, in training without noise.

    While ``|z_F(q_k)| > rho``, the gradient at q_k has at least ``wall * (rho - error)`` along ``z_F(w_k)``, so that
    ``|z_F(w_k)|^2`` falls by ``rate (2 wall (rho - error) - rate gradient^2)`` in each update.

    Parameters
    ----------
    offset : float
        ``|z_F|`` of the latent weights at the start.
    rate : float
        Learning rate of plain gradient descent, straight through the quantizer.
    rho, wall : float
        Place and slope of the wall.
    error : float
        The largest ``|U_F^T (q_k - w_k)|`` on the way, or a bound on it.
    gradient : float
        The largest ``|U_F^T grad f(q_k)|`` on the way, or a bound on it.

    Returns
    -------
    float
        Infinite where the errors are as long as the basin is wide, or the steps too long: then nothing is promised.
    """
    fall = rate * (2 * wall * (rho - error) - rate * gradient**2)
    return offset**2 / fall if fall > 0 else math.inf
