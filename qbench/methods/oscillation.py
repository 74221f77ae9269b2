"""Oscillating weights: codes that keep jumping back and forth (Nagel et al., 2022, arXiv:2203.11086)."""

from __future__ import annotations

import torch
from torch import Tensor


class Oscillation:
    """Follows the codes of a layer through training.

    A code oscillates at a step when it changes in the direction opposite to its previous change (section 2.3). The
    frequency of that is a running mean ``f_t = m o_t + (1 - m) f_(t-1)``, and so is the code that a weight is frozen
    to (algorithm 1).

    Parameters
    ----------
    codes : Tensor of shape (rows, columns)
        The codes before training.
    momentum : float
        m, the weight of the newest step.
    threshold : float
        Frequency above which a weight counts as oscillating.
    freeze : bool
        Whether such a weight's code is held from then on.
    """

    def __init__(self, codes: Tensor, momentum: float, threshold: float, *, freeze: bool) -> None:
        self.momentum, self.threshold, self.freeze = momentum, threshold, freeze
        self.frequency = torch.zeros_like(codes)
        self.frozen = torch.zeros_like(codes, dtype=torch.bool)
        self._frozen_codes = torch.zeros_like(codes)
        self._previous, self._average = codes.clone(), codes.clone()
        self._direction = torch.zeros_like(codes)

    def observe(self, codes: Tensor) -> Tensor:
        """Take in the codes after an update, and return them with frozen ones put back."""
        codes = torch.where(self.frozen, self._frozen_codes, codes)
        change = (codes - self._previous).sign_()
        turned = change * self._direction < 0
        self.frequency.lerp_(turned.to(codes.dtype), self.momentum)
        self._average.lerp_(codes, self.momentum)
        self._direction = torch.where(change == 0, self._direction, change)
        self._previous = codes
        if not self.freeze:
            return codes
        new = self.frequency.gt(self.threshold).logical_and_(~self.frozen)
        self._frozen_codes = torch.where(new, self._average.round(), self._frozen_codes)
        self.frozen |= new
        self._previous = torch.where(new, self._frozen_codes, codes)
        return self._previous

    def state(self) -> dict[str, Tensor]:
        """Return all that it has followed so far, by name."""
        return {
            "frequency": self.frequency,
            "frozen": self.frozen,
            "frozen_codes": self._frozen_codes,
            "previous": self._previous,
            "average": self._average,
            "direction": self._direction,
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` returned in an earlier process."""
        device = self.frequency.device
        self.frequency, self.frozen = state["frequency"].to(device), state["frozen"].to(device)
        self._frozen_codes, self._direction = state["frozen_codes"].to(device), state["direction"].to(device)
        self._previous, self._average = state["previous"].to(device), state["average"].to(device)

    def details(self) -> dict[str, float]:
        """Return the shares of weights that oscillate at the end, and that are frozen."""
        shares = {"oscillating": float((self.frequency > self.threshold).float().mean())}
        return shares | ({"frozen": float(self.frozen.float().mean())} if self.freeze else {})
