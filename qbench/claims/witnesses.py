"""Codewords that QAT found on the frozen grid, as the probe `segments` saw them."""

from __future__ import annotations

from dataclasses import dataclass

from qbench.claims.failing import Site
from qbench.claims.ladders import metric
from qbench.claims.points import point_of, points_of
from qbench.claims.subject import LackingError
from qbench.store.record import Record


@dataclass(frozen=True)
class Witness:
    """A codeword.

    Attributes
    ----------
    label : str
        The method that found it.
    excess, tau : float
        D and the threshold of the basin, nats.
    ratio : float
        Its distance from w_fp in units of rounding's.
    """

    label: str
    excess: float
    tau: float
    ratio: float

    @property
    def inside(self) -> bool:
        """Whether D <= tau."""
        return self.excess <= self.tau


def first_point(probe: Record) -> str:
    """Return the label of the rounding that segments begin at."""
    return point_of(probe, "rtn")


def witnesses(site: Site, probe: Record) -> list[Witness]:
    """Return the codewords of the probe that are those of sound QAT cells.

    Raises
    ------
    LackingError
        There is none.
    """
    away = metric(probe, f"{first_point(probe)}/distance")
    found = [
        Witness(
            label,
            metric(probe, f"{label}/excess"),
            site.subject.tau(metric(probe, f"{label}/se")),
            metric(probe, f"{label}/distance") / away,
        )
        for label in points_of(probe)
        if site.subject.is_witness(site.seed, site.bits, label)
    ]
    if not found or not away:
        raise LackingError(f"a point of ste_qat on the frozen grid in {probe.label}")
    return found
