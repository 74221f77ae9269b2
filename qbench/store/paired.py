"""Where a mean difference lies when other documents had been drawn: a percentile bootstrap over whole documents.

What is drawn again are documents, not tokens (Efron & Tibshirani 1993, chapters 8 and 13): the tokens of one document
are not independent. Both runs saw the same documents, so that only the differences are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from qbench.seeds import derive_seed

RESAMPLES = 2000
COVERAGE = 0.99


class Interval(NamedTuple):
    """The ends of an interval of a mean difference, nats a token (or an image)."""

    low: float
    high: float


@dataclass(frozen=True)
class Stratum:
    """The documents of one model and seed.

    Attributes
    ----------
    differences : tuple of float
        Now less then, summed over the tokens of each document; nats.
    tokens : tuple of int
        Tokens (or images) of each document.
    """

    differences: tuple[float, ...]
    tokens: tuple[int, ...]


def paired_interval(strata: Sequence[Stratum], stream: str) -> Interval | None:
    """Return the 99 % interval of the mean over strata of each one's difference a token.

    Parameters
    ----------
    strata : sequence of Stratum
        One for a cell, one a seed for a row. Documents are drawn within each.
    stream : str
        What the draws are named by: the same name gives the same draws.

    Returns
    -------
    Interval or None
        None where there are fewer than two documents to draw from, or a difference is not finite.
    """
    if not strata or any(len(one.tokens) < 2 for one in strata):
        return None
    if not all(math.isfinite(value) for one in strata for value in one.differences):
        return None
    if not any(value for one in strata for value in one.differences):
        return Interval(0.0, 0.0)  # nothing to draw: this is most cells of most runs
    import numpy as np

    generator = np.random.default_rng(derive_seed("compare", "bootstrap", stream))
    means = np.zeros(RESAMPLES)
    for one in strata:
        count = len(one.tokens)
        drawn = generator.integers(0, count, size=(RESAMPLES, count))
        differences, tokens = np.array(one.differences), np.array(one.tokens, dtype=np.float64)
        means += differences[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    low, high = np.quantile(means / len(strata), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(low), float(high))
