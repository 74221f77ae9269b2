"""Where a row stands: inside the low-loss basin, outside it, or between.

The thresholds were fixed before anything was run: ``tau = max(3 SE, 0.05)`` nats a token, and
``tau_f = max(10 tau, 0.1 (L_chance - L_fp))``. SE is the standard error of the row's own excess loss over evaluation
documents, paired with full precision; it grows with the excess, so that a row is only called failed where its excess
is some thirty times what the evaluation set cannot resolve.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from qbench.claims.statistics import Excess

Regime = Literal["inside", "grey", "failed"]

_TAU_FLOOR = 0.05  # nats a token

_WORST_FIRST: tuple[Regime, ...] = ("failed", "grey", "inside")


def thresholds(document_se: float | None, fp_loss: float, chance_loss: float | None) -> tuple[float, float]:
    """Return ``(tau, tau_f)`` in nats a token.

    Parameters
    ----------
    document_se : float or None
        Standard error of the excess loss over evaluation documents. Not over seeds: seeds that lie far apart would
        widen the basin they are judged by.
    fp_loss : float
        Full-precision loss, nats a token.
    chance_loss : float or None
        Loss of the uniform guess, nats a token; without it ``tau_f = 10 tau``.
    """
    tau = max(3 * (document_se or 0.0), _TAU_FLOOR)
    return tau, max(10 * tau, 0.0 if chance_loss is None else 0.1 * (chance_loss - fp_loss))


def regime(excess: float, tau: float, tau_f: float) -> Regime:
    """Return ``inside`` when ``D <= tau``, ``failed`` when ``D > tau_f`` or D is NaN, else ``grey``."""
    if math.isnan(excess) or excess > tau_f:
        return "failed"
    return "inside" if excess <= tau else "grey"


@dataclass(frozen=True)
class RowRegime:
    """The regime of a row and of each of its seeds.

    Attributes
    ----------
    mean : str
        Regime of the mean excess over seeds.
    per_seed : tuple of str
        Regime of each seed, by the same thresholds.
    tau, tau_f : float
        The thresholds, nats a token.
    """

    mean: Regime
    per_seed: tuple[Regime, ...]
    tau: float
    tau_f: float

    @property
    def agreed(self) -> Regime | None:
        """Return the regime all seeds are in, or None."""
        return self.per_seed[0] if len(set(self.per_seed)) == 1 else None

    @property
    def text(self) -> str:
        """Return the regime most seeds are in (of equals the worse), and how many when not all: ``failed 2/3``."""
        if self.agreed is not None:
            return self.agreed
        seeds = Counter(self.per_seed)
        most = max(_WORST_FIRST, key=lambda name: seeds[name])
        return f"{most} {seeds[most]}/{len(self.per_seed)}"


def judge(excess: Excess, fp_loss: float, chance_loss: float | None) -> RowRegime:
    """Return the regime of a row, given its excess loss; see `thresholds`."""
    tau, tau_f = thresholds(excess.document_se, fp_loss, chance_loss)
    per_seed = tuple(regime(value, tau, tau_f) for value in excess.per_seed)
    return RowRegime(regime(excess.mean, tau, tau_f), per_seed, tau, tau_f)
