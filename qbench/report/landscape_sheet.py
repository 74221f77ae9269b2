"""A table about landscapes: values that are kept whole, and how they are spelled with three digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qbench.report.numbers import ABSENT

OUTSIDE = "!"
"""Marks a point that lies outside the basin."""


@dataclass(frozen=True)
class Point:
    """Where deployed weights are, as the mean over seeds.

    Attributes
    ----------
    distance : float or None
        ``|z_F|``, units of the weights; None where a table shows the loss alone.
    loss : float
        f.
    outside : bool
        Whether `distance`, or what stands for it, is longer than rho.
    """

    distance: float | None
    loss: float
    outside: bool

    def __str__(self) -> str:
        """Return ``1.14! .157``, or ``.157!`` where there is no distance."""
        mark = OUTSIDE if self.outside else ""
        if self.distance is None:
            return f"{digits(self.loss)}{mark}"
        return f"{digits(self.distance)}{mark} {digits(self.loss)}"


@dataclass(frozen=True)
class Span:
    """The least and the greatest of some numbers; infinite where training never got there."""

    low: float
    high: float

    def __str__(self) -> str:
        """Return ``10-53``, ``48-never``, or one word where the ends are the same."""
        low, high = (digits(end) if math.isfinite(end) else "never" for end in (self.low, self.high))
        return low if low == high else f"{low}-{high}"


Value = Point | Span | str | int | float | None
"""What a table holds; None where there is nothing."""

Place = tuple[str, str]
"""Labels of a model and a quantizer."""


@dataclass(frozen=True)
class Sheet:
    """One table about landscapes, with what it means.

    Attributes
    ----------
    title : str
        What it shows.
    places : tuple of (str, str)
        Labels of models and quantizers whose tables it stands for.
    says : str
        The numbers of the landscape, in one line.
    means : tuple of str
        Lines that say what the columns are; told once for all sheets.
    columns : tuple of str
        Headers.
    rows : tuple of tuple of Value
        As wide as `columns`, every digit kept.
    """

    title: str
    places: tuple[Place, ...]
    says: str
    means: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    def words(self) -> list[list[str]]:
        """Return the rows as they are shown."""
        return [[word(value) for value in row] for row in self.rows]


def sheet(
    title: str,
    places: Sequence[Place],
    says: str,
    means: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[Sequence[Value]],
) -> list[Sheet]:
    """Return a sheet without its empty columns; none where there are no rows.

    Parameters
    ----------
    title, places, says, means, columns, rows
        See `Sheet`.
    """
    if not rows:
        return []
    kept = [at for at in range(len(columns)) if any(row[at] is not None for row in rows)]
    body = tuple(tuple(row[at] for at in kept) for row in rows)
    return [Sheet(title, tuple(places), says, tuple(means), tuple(columns[at] for at in kept), body)]


def meanings(sheets: Sequence[Sheet]) -> list[str]:
    """Return what the columns of all sheets mean, each line once."""
    return list(dict.fromkeys(line for one in sheets for line in one.means))


def word(value: Value) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return ""
    return digits(value) if isinstance(value, float) else str(value)


def digits(value: float) -> str:
    """Return three significant digits, fewer where they are all there is, without a leading zero.

    Examples
    --------
    >>> digits(0.06271), digits(1.9004e-5), digits(-0.5519), digits(0.005), digits(20.0), digits(0.9996)
    ('.0627', '1.90e-5', '-.552', '.005', '20', '1.00')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else ABSENT if math.isnan(value) else str(value)
    if value == round(value) and abs(value) < 1e5:
        return str(round(value))
    rounded = float(f"{value:.2e}")
    whole = rounded == value
    power = math.floor(math.log10(abs(rounded)))
    if not -3 <= power <= 4:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.') if whole else mantissa}e{int(exponent)}"
    text = f"{abs(rounded):.{max(2 - power, 0)}f}"
    text = text.rstrip("0") if whole and "." in text else text
    return ("-" if value < 0 else "") + (text[1:] if text.startswith("0.") else text)
