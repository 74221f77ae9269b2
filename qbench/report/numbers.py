"""Numbers as tables show them. Records keep every digit; rounding happens here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable

from qbench.claims.statistics import Interval

ABSENT = "-"


def compact(value: float | None) -> str:
    """Return about three digits, no leading zero.

    Examples
    --------
    >>> compact(0.0284), compact(1.234), compact(-12.34), compact(None)
    ('.028', '1.23', '-12.3', '-')
    """
    if value is None:
        return ABSENT
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    # The limits are where rounding would add a digit.
    digits = 3 if size < 0.9995 else 2 if size < 9.995 else 1 if size < 99.95 else 0
    text = f"{size:.{digits}f}"
    text = text[1:] if text.startswith("0.") else text
    return f"-{text}" if value < 0 and text.strip(".0") else text


def signed(value: float) -> str:
    """Return `compact` with a plus sign unless the number is negative."""
    text = compact(value)
    return text if text.startswith("-") else f"+{text}"


def loss(value: float | None) -> str:
    """Return a loss in nats with three decimals: ``2.902``."""
    return ABSENT if value is None else f"{value:.3f}"


def share(value: float) -> str:
    """Return a share of one with two decimals, no leading zero: ``.76``."""
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.995 else text


def percent(value: float | None) -> str:
    """Return a share of one in percent, with one decimal: ``98.4``."""
    return ABSENT if value is None else f"{100 * value:.1f}"


def points(value: float) -> str:
    """Return a difference of shares in percentage points: one decimal, no leading zero.

    Examples
    --------
    >>> points(-0.013), points(-0.009), points(0.0), points(-0.0001)
    ('-1.3', '-.9', '.0', '.0')
    """
    text = f"{100 * abs(value):.1f}"
    text = text.removeprefix("0") if text.startswith("0.") else text
    return f"-{text}" if value < 0 and text != ".0" else text


def signed_points(value: float) -> str:
    """Return `points` with a plus sign unless the number is negative."""
    text = points(value)
    return text if text.startswith("-") else f"+{text}"


def spread(interval: Interval | None, number: Callable[[float], str] = compact) -> str:
    """Return the ends of an interval: ``[.021,.035]``; empty where there is none."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"[{number(interval.low)},{number(interval.high)}]"


def with_ends(mean: str, interval: Interval, number: Callable[[float], str]) -> str:
    """Return a mean as it is spelled, with the ends of its interval where it has any: ``.76 [.71,.80]``."""
    ends = spread(interval, number)
    return f"{mean} {ends}" if ends else mean


def bits(width: int) -> str:
    """Return ``1 bit`` or ``N bits``."""
    return "1 bit" if width == 1 else f"{width} bits"


def seconds(value: float | None) -> str:
    """Return wall-clock seconds, two digits at least."""
    return ABSENT if value is None else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def mebibytes(value: int | None) -> str:
    """Return bytes as whole MiB; nothing measured is a dash."""
    return f"{value / 2**20:.0f}" if value else ABSENT
