"""Bits against loss: what each method loses as bits fall."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qbench.claims.statistics import Interval
from qbench.report import numbers
from qbench.report.entries import Entry
from qbench.report.figures.axes import bits_axis, change_axis
from qbench.report.figures.board_parts import (
    Shelf,
    intervals,
    rounding_of,
    same_ends,
    spread_pages,
    told_of,
    unfinished,
)
from qbench.report.figures.estimates import Estimate, Trend
from qbench.report.figures.figure import Axis, Figure, Guide, Level, Panel
from qbench.report.leaderboard import Group


def ladders(shelf: Shelf) -> list[Figure]:
    """Return the excess of each method by bits, a frame a quantizer; of images the accuracy beside it."""
    panels = []
    drawn: list[Entry] = []
    for group in shelf.groups:
        if len(group.bits) < 2:
            continue
        rows = {label: group.rows[label] for label in shelf.methods if label in group.rows}
        drawn += [entry for row in rows.values() for entry in row.values()]
        panels.append(_loss(shelf, group, rows))
        if group.of_images:
            panels.append(_accuracy(shelf, group, rows))
    covers = [entry.excess.covers for entry in drawn if entry.excess is not None]
    estimates = [one for panel in panels for trend in panel.trends for one in trend.estimates]
    notes = [
        "Inside the basin below τ, failed above τ_f (those of rounding at these bits). Filled: PTQ; hollow: QAT."
        + intervals(estimates, covers),
        " ".join(part for part in (unfinished(drawn), shelf.undrawn) if part),
    ]
    title = f"{shelf.name}: what is lost as bits fall"
    of = f"{shelf.seeds} The grids on which least is lost come first."
    return spread_pages(f"ladder_{shelf.file}", title, of, notes, same_ends(panels), shelf.looks)


def _loss(shelf: Shelf, group: Group, rows: dict[str, dict[int, Entry]]) -> Panel:
    guides = _thresholds(group)
    unit = "nats an image" if group.of_images else "nats a token"
    return Panel(
        shelf.quantizers[str(group.quantizer)],
        bits_axis(_drawn(rows)),
        change_axis(f"excess loss D over fp ({unit})", min(guides[0].y) if guides else None),
        (),
        guides=guides,
        trends=_trends(rows, group.bits, lambda entry: entry.excess),
    )


def _accuracy(shelf: Shelf, group: Group, rows: dict[str, dict[int, Entry]]) -> Panel:
    full = None if group.full is None else group.full.accuracy
    return Panel(
        f"{shelf.quantizers[str(group.quantizer)]}, accuracy",
        bits_axis(_drawn(rows)),
        Axis("accuracy above fp (points)", "symlog", constant=1.0),
        (),
        levels=(Level("y", 0.0, f"fp {numbers.percent(full)} %"),),
        trends=_trends(rows, group.bits, lambda entry: entry.accuracy_change, 100.0),
    )


def _drawn(rows: dict[str, dict[int, Entry]]) -> set[int]:
    """Return the bitwidths of which anything is drawn: a suite may skip some on a grid."""
    return {width for row in rows.values() for width, entry in row.items() if entry.excess is not None}


def _trends(
    rows: dict[str, dict[int, Entry]],
    bits: Sequence[int],
    value: Callable[[Entry], Interval | None],
    unit: float = 1.0,
) -> tuple[Trend, ...]:
    found = []
    for label, row in rows.items():
        estimates = [
            Estimate(
                float(width),
                unit * number.mean,
                None if number.low is None else unit * number.low,
                None if number.high is None else unit * number.high,
                row[width].seeds,
                told_of(row[width]),
            )
            for width in bits
            if width in row and (number := value(row[width])) is not None
        ]
        if estimates:
            found.append(Trend(label, tuple(estimates)))
    return tuple(found)


def _thresholds(group: Group) -> tuple[Guide, ...]:
    """Return tau and tau_f of rounding by bits; nothing where there is no rounding."""
    rounded = rounding_of(group)
    held = [
        (float(width), regime.tau, regime.tau_f)
        for width in group.bits
        if width in rounded and (regime := rounded[width].regime) is not None
    ]
    if not held:
        return ()
    x, tau, tau_f = zip(*held, strict=True)
    return Guide("τ", x, tau), Guide("τ_f", x, tau_f)
