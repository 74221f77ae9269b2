"""Numbers in the sentences of verdicts: three digits."""

from __future__ import annotations

import math


def nats(value: float) -> str:
    """Return a loss, or a difference of losses, in nats: ``0.0284``, ``1.23``."""
    return short(value)


def times(value: float) -> str:
    """Return a ratio: ``2.7``, ``infinite``."""
    return "infinite" if math.isinf(value) else short(value)


def short(value: float) -> str:
    """Return about three digits."""
    return f"{value:.3g}"


def listed(values: dict[str, float]) -> str:
    """Return ``a 1.2, b 3``."""
    return ", ".join(f"{name} {short(value)}" for name, value in values.items())
