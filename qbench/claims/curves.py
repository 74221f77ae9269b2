"""Where a curve crosses a level, how steep it is, and how two orders agree."""

from __future__ import annotations

import math
from collections.abc import Sequence


def crossing(at: Sequence[float], values: Sequence[float], level: float) -> float | None:
    """Return where a curve first rises above a level, by a straight line in log-log.

    Parameters
    ----------
    at : sequence of float
        Positions, positive and rising.
    values : sequence of float
        The curve. Where the last value below the level is not positive, the line is straight in the value itself.
    level : float
        Positive.

    Returns
    -------
    float or None
        None where the curve never rises above the level, or is above it from the start.
    """
    first = next((index for index, value in enumerate(values) if value > level or math.isnan(value)), None)
    if first is None or first == 0:
        return None
    below, above = values[first - 1], values[first]
    if not math.isfinite(above):
        return at[first]
    if below > 0:
        share = math.log(level / below) / math.log(above / below)
    else:
        share = (level - below) / (above - below)
    return float(at[first - 1] * (at[first] / at[first - 1]) ** share)


def slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return the least-squares slope of y on x, and the root mean square of what is left."""
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    spread = math.fsum((a - mean_x) ** 2 for a in x)
    found = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    rest = [b - mean_y - found * (a - mean_x) for a, b in zip(x, y, strict=True)]
    return found, math.sqrt(math.fsum(one * one for one in rest) / len(rest))


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Pearson's correlation; 0 where one of the two does not vary."""
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    both = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    size = math.sqrt(math.fsum((a - mean_x) ** 2 for a in x) * math.fsum((b - mean_y) ** 2 for b in y))
    return both / size if size else 0.0


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's correlation; equal values share their mean rank."""
    return correlation(_ranks(x), _ranks(y))


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    places: dict[float, list[int]] = {}
    for place, value in enumerate(ordered):
        places.setdefault(value, []).append(place)
    return [math.fsum(places[value]) / len(places[value]) for value in values]
