"""A number over seeds: its mean and a t interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Upper 2.5 % points of Student's t with 1, 2, .. degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_NORMAL = 1.959964


@dataclass(frozen=True)
class Spread:
    """A number over seeds.

    Attributes
    ----------
    mean : float
        Mean of the seeds that have it.
    low, high : float or None
        Ends of the 95 % t interval; None for one seed, and where a seed's number is infinite or NaN.
    per_seed : mapping of int to float
        The numbers.
    """

    mean: float
    low: float | None
    high: float | None
    per_seed: Mapping[int, float]


def spread(per_seed: Mapping[int, float]) -> Spread:
    """Return the mean over seeds with its 95 % interval ``mean +- t s / sqrt(n)``."""
    values = list(per_seed.values())
    if not all(map(math.isfinite, values)):
        return Spread(sum(values) / len(values), None, None, dict(per_seed))
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Spread(mean, None, None, dict(per_seed))
    half = student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Spread(mean, mean - half, mean + half, dict(per_seed))


def student(freedom: int) -> float:
    """Return the upper 2.5 % point of Student's t; above ten degrees of freedom by Fisher's expansion, to 1e-3."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = _NORMAL
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + math.fsum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))


def spreads(numbers: Mapping[int, Mapping[str, float]]) -> dict[str, Spread]:
    """Return the spread of every name, given the numbers of each seed."""
    names: Sequence[str] = list(dict.fromkeys(name for one in numbers.values() for name in one))
    return {name: spread({seed: one[name] for seed, one in sorted(numbers.items()) if name in one}) for name in names}
