"""Where a point or a row stands: inside the low-loss basin, outside it, or between.

One spelling for leaderboard and claims, fixed before anything was run: ``tau = max(3 SE, tolerance)`` and
``tau_f = max(10 tolerance, 0.1 (L_chance - L_fp)) + 3 SE``. SE is the standard error of the excess loss over evaluation
documents, paired with full precision.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qbench.claims import thresholds
from qbench.claims.statistics import Excess

Regime = Literal["inside", "grey", "failed"]

_WORST_FIRST: tuple[Regime, ...] = ("failed", "grey", "inside")


@dataclass(frozen=True)
class Basin:
    """What counts as inside and as failed of one model.

    Attributes
    ----------
    tolerance : float
        The excess that counts as nothing, nats.
    headroom : float or None
        ``L_chance - L_fp``, nats; None where there is no chance loss.
    exact : bool
        Whether the loss has no sampling error, and the task states the tolerance itself.
    """

    tolerance: float
    headroom: float | None = None
    exact: bool = False

    @classmethod
    def of(cls, facts: Mapping[str, Any], fp_loss: float | None) -> Basin:
        """Return the basin of a model.

        Parameters
        ----------
        facts : mapping
            `Record.facts` of the model.
        fp_loss : float or None
            Mean loss of full precision over seeds, nats.
        """
        chance = facts.get("chance_loss")
        headroom = None if chance is None or fp_loss is None else float(chance) - fp_loss
        if "tolerance" in facts:
            return cls(float(facts["tolerance"]), headroom, exact=True)
        if "chance_accuracy" in facts and headroom is not None:
            return cls(thresholds.TOLERANCE_OF_IMAGES * headroom, headroom)
        return cls(thresholds.TOLERANCE, headroom)

    def tau(self, se: float) -> float:
        """Return the edge of the basin for an excess with this standard error, nats."""
        return self.tolerance if self.exact else max(thresholds.RESOLUTION_SE * se, self.tolerance)

    def tau_f(self, se: float) -> float:
        """Return the excess beyond which a point with this standard error has failed, nats."""
        if self.exact:
            return thresholds.EXACT_FAILURE * self.tolerance
        lost = max(thresholds.FAILURE * self.tolerance, thresholds.FAILURE_OF_CHANCE * (self.headroom or 0.0))
        return lost + thresholds.RESOLUTION_SE * se


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


def judge(excess: Excess, basin: Basin) -> RowRegime:
    """Return the regime of a row, given its excess loss.

    All its seeds are judged by the standard error over documents. Not over seeds: seeds that lie far apart would widen
    the basin they are judged by.
    """
    tau, tau_f = basin.tau(excess.document_se or 0.0), basin.tau_f(excess.document_se or 0.0)
    per_seed = tuple(regime(value, tau, tau_f) for value in excess.per_seed)
    return RowRegime(regime(excess.mean, tau, tau_f), per_seed, tau, tau_f)
