"""Student's t: how many standard deviations cover a given share, when the deviation itself was measured few times."""

from __future__ import annotations

import math
from functools import cache


def within(t: float, freedom: int) -> float:
    """Return the probability that ``|T| <= t``.

    For a whole number of degrees of freedom it is a finite sum (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4).

    Parameters
    ----------
    t : float
        Not negative.
    freedom : int
        Degrees of freedom, one at least.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    # 1 + 1/2 cos^2 + 1*3/(2*4) cos^4 + .. for an even number, cos + 2/3 cos^3 + 2*4/(3*5) cos^5 + .. for an odd one.
    term, terms = (cosine if odd else 1.0), []
    for power in range(2 + odd, freedom, 2):
        terms.append(term)
        term *= cosine * cosine * (power - 1) / power
    if freedom > 1:
        terms.append(term)
    total = sine * math.fsum(terms)
    return 2 / math.pi * (angle + total) if odd else total


@cache
def quantile(level: float, freedom: int) -> float:
    """Return the t that ``T`` stays below with the probability `level`.

    Parameters
    ----------
    level : float
        Above .5 and below 1.
    freedom : int
        Degrees of freedom, one at least.

    Raises
    ------
    ValueError
        There is no such quantile.
    """
    if not 0.5 < level < 1 or freedom < 1:
        raise ValueError(f"no quantile of level {level} with {freedom} degrees of freedom")
    share = 2 * level - 1
    low, high = 0.0, 1.0
    while within(high, freedom) < share:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if within(middle, freedom) < share else (low, middle)
    return high
