"""Axes that several figures share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from qbench.report.figures.figure import Axis

_TICKS, _FEW = 6, 3
_AROUND = 1.3  # how far an axis of a single bitwidth reaches
_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


def bits_axis(bits: Iterable[int]) -> Axis:
    """Return an axis of bits, falling to the right, with a tick at each; logarithmic, so that low bits have room."""
    widths = sorted(set(bits), reverse=True)
    axis = Axis("bits a weight", "log", ticks=tuple(map(float, widths)), falling=True)
    # Points that are moved aside a little must not span the whole axis.
    return axis if len(widths) != 1 else replace(axis, low=widths[0] / _AROUND, high=widths[0] * _AROUND)


def excess_axis() -> Axis:
    """Return a logarithmic axis of excess loss."""
    return Axis("excess loss D over fp (nats)", "log")


def round_numbers(low: float, high: float, constant: float) -> tuple[float, ...]:
    """Return ticks for a ``symlog`` axis: of either sign, none within `constant` but 0, some seven in sight.

    Parameters
    ----------
    low, high : float
        What the axis has to show.
    constant : float
        Where it turns.
    """
    largest = max(abs(low), abs(high), constant)
    for leading in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)):
        sizes = [
            one * 10.0**power
            for power in range(math.floor(math.log10(constant)) - 1, math.floor(math.log10(largest)) + 1)
            for one in leading
            if one * 10.0**power >= 0.4 * constant
        ]
        ticks = sorted(
            float(f"{tick:.6g}") for tick in (*(-size for size in sizes), 0.0, *sizes) if low <= tick <= high
        )
        if len(ticks) >= _TICKS:
            break
    return tuple(ticks) if len(ticks) > _FEW else _evenly(low, high)


def log_numbers(low: float, high: float) -> tuple[float, ...]:
    """Return ticks for a logarithmic axis, some six in sight; few where the axis is short."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    step = max(1, len(powers) // 8 + 1)
    found: list[float] = []
    for leading in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)):
        spaced = [power for power in powers if len(leading) > 1 or power % step == 0]
        found = [float(f"{one * 10.0**power:.6g}") for power in spaced for one in leading]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) >= _FEW:
            return tuple(found)
    return _evenly(low, high)


def _evenly(low: float, high: float) -> tuple[float, ...]:
    """Return round numbers at equal distances, for an axis too short for those of each decade."""
    if high <= low:
        return (low,)
    power = 10.0 ** math.floor(math.log10((high - low) / _FEW))
    step = next(size * power for size in (10.0, 5.0, 2.0, 1.0) if (high - low) / (size * power) >= _FEW)
    first = math.ceil(low / step)
    return tuple(float(f"{one * step:.6g}") for one in range(first, math.floor(high / step) + 1))


def change_axis(title: str, tau: float | None) -> Axis:
    """Return an axis for losses of either sign over several decades: linear up to about tau, .05 nats without one."""
    constant = tau or 0.05
    sizes = [size for size in _SIZES if size >= 0.4 * constant]
    return Axis(title, "symlog", constant=constant, ticks=(*(-size for size in reversed(sizes)), 0.0, *sizes))
