"""Where a row stands: inside the low-loss basin, outside it, or between.

The thresholds are those of the claims: ``tau = max(3 SE, 0.05)`` nats a token, SE over evaluation documents, paired
with full precision; ``tau_f = max(0.5, 0.1 (L_chance - L_fp))``.

The SE of a row grows with its excess loss, so a failure threshold in units of it would move away from the rows that
fail: ``tau_f`` takes ten times the floor of tau, a number that is fixed before anything is run.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from qbench.report.statistics import Excess

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
        Loss of the uniform guess, nats a token; without it ``tau_f = 0.5``.
    """
    tau = max(3 * (document_se or 0.0), _TAU_FLOOR)
    tau_f = max(10 * _TAU_FLOOR, 0.0 if chance_loss is None else 0.1 * (chance_loss - fp_loss))
    # A row so noisy that tau passes tau_f cannot be called failed within its own noise.
    return tau, max(tau, tau_f)


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
