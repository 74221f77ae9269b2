"""Which bits and seeds a suite can ask for."""

from __future__ import annotations

from typing import Any

from qbench.suite.problems import shown

MIN_BITS, MAX_BITS = 1, 8
MAX_SEEDS = 1000


def seed_range(count: int) -> tuple[int, ...]:
    """Return the seeds ``0 .. count-1``.

    Raises
    ------
    ValueError
        The count is not a whole number from 1 to 1000.
    """
    if not _is_whole(count) or not 1 <= count <= MAX_SEEDS:
        allowed = f"a number of seeds from 1 to {MAX_SEEDS}, or a list of seeds"
        raise ValueError(f"given {shown(count)} (allowed: {allowed})")
    return tuple(range(count))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def parse_bits(value: Any) -> Any:
    """Return bits that a weight code can have, or raise `ValueError`."""
    if not _is_whole(value) or not MIN_BITS <= value <= MAX_BITS:
        raise ValueError(f"given {shown(value)} (allowed: a whole number from {MIN_BITS} to {MAX_BITS})")
    return value


def parse_seed(value: Any) -> Any:
    """Return a seed, or raise `ValueError`."""
    if not _is_whole(value) or value < 0:
        raise ValueError(f"given {shown(value)} (allowed: a whole number, 0 or more)")
    return value


def parse_seeds(value: Any) -> Any:
    """Return a list of seeds as it is, and the seeds that a number of them means."""
    return value if isinstance(value, list | tuple) else seed_range(value)
