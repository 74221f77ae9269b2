"""What is drawn with its interval: points of trends, the front of the best of them, and bars."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, at a place.

    Attributes
    ----------
    x, y : float
        Where.
    low, high : float or None
        Ends of the interval of `y`; None where there is none.
    seeds : int
        How many it is a mean over.
    told : tuple of (str, str)
        What else a reader may want to know of it: a name and a text each.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1
    told: tuple[tuple[str, str], ...] = ()

    @property
    def bounded(self) -> bool:
        """Whether it has an interval."""
        return self.low is not None and self.high is not None


@dataclass(frozen=True)
class Trend:
    """Estimates of one series; where a panel joins, with a line through them.

    Attributes
    ----------
    series : str
        Its name in the looks of the figure, or in `qbench.report.figures.theme`.
    estimates : tuple of Estimate
        In the order of the line.
    label : str
        Words beside the last of them; empty for none.
    faint : bool
        Whether others matter more: those that something else is better than in everything.
    """

    series: str
    estimates: tuple[Estimate, ...]
    label: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Front:
    """Steps through points that no other is better than in both axes, rising in `x` and falling in `y`."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Bar:
    """A bar from zero.

    Attributes
    ----------
    name : str
        What stands to the left of it.
    series : str
        See `Trend`.
    value : float
        Its end.
    low, high : float or None
        See `Estimate`.
    text : str
        What stands to the right of it.
    told : tuple of (str, str)
        See `Estimate`.
    """

    name: str
    series: str
    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    told: tuple[tuple[str, str], ...] = ()
