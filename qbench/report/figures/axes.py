"""Axes that several figures share."""

from __future__ import annotations

from collections.abc import Iterable

from qbench.report.figures.figure import Axis

_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


def bits_axis(bits: Iterable[int]) -> Axis:
    """Return an axis of bits, falling to the right, with a tick at each."""
    widths = sorted(set(bits), reverse=True)
    return Axis("bits a weight", ticks=tuple(map(float, widths)), falling=True)


def excess_axis() -> Axis:
    """Return a logarithmic axis of excess loss."""
    return Axis("excess loss D over full precision (nats)", "log")


def change_axis(title: str, tau: float | None) -> Axis:
    """Return an axis for losses of either sign over several decades: linear up to about tau, .05 nats without one."""
    constant = tau or 0.05
    sizes = [size for size in _SIZES if size >= 0.4 * constant]
    return Axis(title, "symlog", constant=constant, ticks=(*(-size for size in reversed(sizes)), 0.0, *sizes))
