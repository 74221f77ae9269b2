"""River, valley and basin as one function of a weight vector, with its derivatives in closed form.

With an orthonormal basis ``[U_S | U_F | U_R]`` and ``z = U^T (w - w0)``::

    f(w) = lambda/2 |z_S|^2 + eps/2 |z_F|^2 / rho^2 + G (|z_F| - rho)_+ - tilt z_F1 - slope z_R1

S are directions whose curvature is visible, F is nearly flat and ends at a wall, and along R runs the river. A river
that bends has ``z_F1 - curve/2 z_R1^2`` in the place of ``z_F1``. In the basin f is a polynomial of second order, its
own Taylor expansion at any of its points: the wall is in no derivative there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qbench.geometry.landscape_cases import Setting

Metric = Literal["hessian", "normal"]


@dataclass(frozen=True)
class Parts:
    """What f is made of at a point.

    Attributes
    ----------
    visible_distance, normal_distance : float
        ``|z_S|``, and ``|z_F|`` from the river where it bends to.
    visible_loss, wall : float
        ``lambda/2 |z_S|^2`` and ``G (|z_F| - rho)_+``.
    loss : float
        f.
    """

    visible_distance: float
    normal_distance: float
    visible_loss: float
    wall: float
    loss: float


class Landscape:
    """A function of d weights, in float64.

    Parameters
    ----------
    setting : Setting
        Its numbers.
    device : str or torch.device
        Where it is computed.

    Attributes
    ----------
    visible, flat, river : Tensor of shape (d, s), (d, m), (d, r)
        The basis.
    centre, start : Tensor of shape (d,)
        w0, and the full-precision weights.
    """

    def __init__(self, setting: Setting, device: str | torch.device = "cpu") -> None:
        self.setting = setting
        self.visible, self.flat, self.river, self.centre, self.start = (
            torch.tensor(part, dtype=torch.float64, device=device)
            for part in (setting.visible, setting.flat, setting.river, setting.centre, setting.start)
        )

    def coordinates(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``z_S``, ``z_F`` from the river where it bends to, and ``z_R`` of weights of shape (d,)."""
        away = weights.double() - self.centre
        visible, flat, river = away @ self.visible, away @ self.flat, away @ self.river
        if self.setting.curve:
            bent = torch.zeros_like(flat)
            bent[0] = 1.0
            flat = flat - self.setting.curve / 2 * river[0].square() * bent
        return visible, flat, river

    def value(self, weights: Tensor) -> Tensor:
        """Return f as a scalar in float64, through which gradients of any order pass.

        Parameters
        ----------
        weights : Tensor of shape (d,)
            Of any floating-point type.
        """
        own = self.setting
        visible, flat, river = self.coordinates(weights)
        squared = flat.square().sum()
        # The root of what lies beyond alone: inside, no derivative of a norm is taken, which has none at 0.
        wall = own.wall * (squared.clamp(min=own.rho**2).sqrt() - own.rho)
        found = own.curvature / 2 * visible.square().sum() + own.flatness / 2 / own.rho**2 * squared + wall
        if own.tilt:
            found = found - own.tilt * flat[0]
        if own.slope:
            found = found - own.slope * river[0]
        return found

    def parts(self, weights: Tensor) -> Parts:
        """Return f and what it is made of at weights of shape (d,)."""
        own = self.setting
        visible, flat, _ = self.coordinates(weights.detach())
        across, away = float(visible.norm()), float(flat.norm())
        return Parts(
            visible_distance=across,
            normal_distance=away,
            visible_loss=own.curvature / 2 * across**2,
            wall=own.wall * max(away - own.rho, 0.0),
            loss=float(self.value(weights.detach())),
        )

    def normal_gradient(self, weights: Tensor) -> Tensor:
        """Return the derivative of f by ``z_F``, of shape (m,)."""
        own = self.setting
        _, flat, _ = self.coordinates(weights.detach())
        away = float(flat.norm())
        found = (own.flatness / own.rho**2 + (own.wall / away if away > own.rho else 0.0)) * flat
        found[0] -= own.tilt
        return found

    def gradient(self, weights: Tensor) -> Tensor:
        """Return the gradient of f in closed form, of shape (d,)."""
        own = self.setting
        visible, _, river = self.coordinates(weights.detach())
        normal = self.normal_gradient(weights)
        found = own.curvature * self.visible @ visible + self.flat @ normal
        if own.slope or own.curve:
            found = found - (own.slope + own.curve * river[0] * normal[0]) * self.river[:, 0]
        return found

    def hessian(self, weights: Tensor) -> Tensor:
        """Return the Hessian of f in closed form, of shape (d, d); on the wall itself there is none."""
        own = self.setting
        _, flat, river = self.coordinates(weights.detach())
        away = float(flat.norm())
        inner = own.flatness / own.rho**2 * torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
        if away > own.rho:
            along = flat / away
            inner = inner + own.wall / away * (
                torch.eye(len(flat), dtype=flat.dtype, device=flat.device) - torch.outer(along, along)
            )
        slopes = self.flat.clone()
        if own.curve:
            slopes[:, 0] -= own.curve * river[0] * self.river[:, 0]
        found = own.curvature * self.visible @ self.visible.T + slopes @ inner @ slopes.T
        if own.curve:
            bend = own.curve * self.normal_gradient(weights)[0]
            found = found - bend * torch.outer(self.river[:, 0], self.river[:, 0])
        return found

    def metric_factor(self, metric: Metric) -> Tensor:
        """Return vectors whose mean outer product is what a second-order method is to take for the Hessian.

        Parameters
        ----------
        metric : str
            ``hessian``: the Hessian in the basin where the river is straight, with `Setting.ridge` along it.
            ``normal``: what tells whether a step leaves the valley, lambda along visible directions and ``G / rho``
            along flat ones.

        Returns
        -------
        Tensor of shape (n, d)
            A row for each direction that counts.
        """
        own = self.setting
        along_flat = own.flatness / own.rho**2 if metric == "hessian" else own.wall / own.rho
        along_river = own.ridge if metric == "hessian" else 0.0
        pairs = ((self.visible, own.curvature), (self.flat, along_flat), (self.river, along_river))
        kept = [basis * weight**0.5 for basis, weight in pairs if weight > 0 and basis.shape[1]]
        rows: Tensor = torch.cat(kept, dim=1).T
        return rows * math.sqrt(len(rows))

    def metric(self, metric: Metric) -> Tensor:
        """Return the mean outer product of `metric_factor`, of shape (d, d)."""
        rows = self.metric_factor(metric)
        return rows.T @ rows / len(rows)

    def worst_error(self, step: float) -> float:
        """Return the longest ``|U_F^T (Q(w) - w)|`` on a lattice of a step, where there is one flat direction."""
        assert self.flat.shape[1] == 1
        return step / 2 * float(self.flat.abs().sum())
