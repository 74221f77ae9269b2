"""What batch norm has to do with a loss: how much of it comes back when statistics alone are estimated again.

Statistics of the full-precision model do not fit the activations of a quantized one. A method that leaves the low-loss
basin may have lost no more than that, and what is left is what its weights have lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from qbench.claims.statistics import Interval, recovery
from qbench.errors import StoreError
from qbench.report import numbers
from qbench.report.entries import Entry, Places

_OPTION = re.compile(r"(?<=\[)bn=recalibrate,|,bn=recalibrate(?=[,\]])|\[bn=recalibrate\]")

Rows = Mapping[str, Mapping[int, Entry]]
"""Entries by method, then bits."""


@dataclass(frozen=True)
class Recalibration:
    """A method that leaves the basin, beside itself with batch norm estimated again.

    Attributes
    ----------
    method, recalibrated : str
        Labels of the two.
    bits : int
        Where the method is not inside the basin.
    share : Interval
        Share of the excess loss that estimating again does away with: ``(L - L_recalibrated) / (L - L_fp)``.
    """

    method: str
    recalibrated: str
    bits: int
    share: Interval


def without_recalibration(method: str) -> str | None:
    """Return a method's label without ``bn=recalibrate``; None where it has no such option.

    Examples
    --------
    >>> without_recalibration("rtn[bn=recalibrate]"), without_recalibration("gptq[bn=recalibrate,percdamp=0.1]")
    ('rtn', 'gptq[percdamp=0.1]')
    """
    plain = _OPTION.sub("", method, count=1)
    return None if plain == method else plain


def recalibrations(places: Mapping[tuple[str, int], Places], rows: Rows) -> tuple[Recalibration, ...]:
    """Return every row that is not inside the basin and stands beside its recalibration, both with all seeds.

    Parameters
    ----------
    places : mapping of (str, int) to Places
        By method and bits.
    rows : mapping
        The entries of the same places.
    """
    found = []
    for (method, bits), place in places.items():
        plain = without_recalibration(method)
        if plain is None or (plain, bits) not in places:
            continue
        regime, other = rows[plain][bits].regime, places[plain, bits]
        ours, theirs = place.pairs(), other.pairs()
        if regime is None or regime.mean == "inside" or ours is None or theirs is None or not _same_seeds(place, other):
            continue
        try:
            share = recovery(ours, theirs)
        except StoreError:  # a footnote of its row says so
            continue
        found.append(Recalibration(plain, method, bits, share))
    return tuple(found)


def _same_seeds(ours: Places, theirs: Places) -> bool:
    return [axes["seed"] for axes in ours.axes] == [axes["seed"] for axes in theirs.axes]


def explain(title: str, full: Entry | None, found: tuple[Recalibration, ...], rows: Rows) -> list[str]:
    """Return a line a method: what estimating again explains of its excess, what is left, and what QAT reaches.

    Parameters
    ----------
    title : str
        Model and quantizer.
    full : Entry or None
        Full precision.
    found : tuple of Recalibration
        See `recalibrations`.
    rows : mapping
        All entries of the group.
    """
    lines = []
    for method in dict.fromkeys(one.method for one in found):
        own = sorted((one for one in found if one.method == method), key=lambda one: -one.bits)
        parts = [f"{_share(one)} at {numbers.bits(one.bits)} ({'; '.join(_told(one, full, rows))})" for one in own]
        lines.append(f"{title}: of {method}'s excess batch-norm statistics explain {', '.join(parts)}")
    return lines


def _share(one: Recalibration) -> str:
    return numbers.with_ends(numbers.share(one.share.mean), one.share, numbers.share)


def _told(one: Recalibration, full: Entry | None, rows: Rows) -> list[str]:
    before, after = rows[one.method][one.bits], rows[one.recalibrated][one.bits]
    told = []
    if before.accuracy is not None and after.accuracy is not None:
        whole = f" of {numbers.percent(full.accuracy)} %" if full is not None and full.accuracy is not None else ""
        told.append(f"{numbers.percent(before.accuracy)} % -> {numbers.percent(after.accuracy)} %{whole}")
    if after.excess is not None:
        told.append(f"{numbers.signed(after.excess.mean)} left")
    trained = [
        (entry.excess.mean, method, entry)
        for method, row in rows.items()
        if method not in (one.method, one.recalibrated) and (entry := row.get(one.bits)) is not None
        if entry.is_qat and entry.excess is not None
    ]
    if trained:
        excess, method, best = min(trained, key=lambda item: item[:2])
        reached = numbers.signed(excess) if best.accuracy is None else f"{numbers.percent(best.accuracy)} %"
        told.append(f"{method} brings it to {reached}")
    return told
