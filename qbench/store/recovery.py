"""How much of what full precision knows a cell has kept: 1 as good as full precision, 0 as good as a guess."""

from __future__ import annotations

import math


def recovery(value: float | None, full: float | None, chance: float | None) -> float | None:
    """Return ``(value - chance) / (full - chance)``, a share; below 0 is worse than a guess.

    The same for losses, ``(L_chance - L) / (L_chance - L_fp)``, and for accuracies.

    Parameters
    ----------
    value, full, chance : float or None
        Of the cell, of the full-precision cell of the same run, and of a guess; all losses or all accuracies.

    Returns
    -------
    float or None
        None where one of them is not known or not finite, or where full precision is as good as a guess.
    """
    if value is None or full is None or chance is None:
        return None
    if not all(map(math.isfinite, (value, full, chance))) or full == chance:
        return None
    return (value - chance) / (full - chance)
