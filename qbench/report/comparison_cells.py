"""What a comparison says, in cells of a table and in single lines: the same words for a terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from qbench.report import numbers
from qbench.store.comparison import Comparison
from qbench.store.paired import Interval
from qbench.store.tolerance import WIDE
from qbench.store.verdict import ComparisonRow

HEADERS = ["verdict", "cell", "baseline", "now", "change", "99 % interval", "tolerance", "recovery", "note"]
ALIGN = ("left", "left", *("right",) * 6, "left")


def headline(comparison: Comparison) -> str:
    """Return what came out, in one line."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in comparison.counts.items()) or "no cells"
    parts = [counts]
    if comparison.seed_means:
        parts.append(f"{len(comparison.seed_means)} changed on the mean of seeds")
    if identical := sum(row.identical for row in comparison.rows):
        parts.append(f"{identical} with the same weights")
    if comparison.left_out:
        parts.append(f"{comparison.left_out} cells of the baseline were not asked for")
    return f"{against(comparison)}: {outcome(comparison)} ({'; '.join(parts)})"


def against(comparison: Comparison) -> str:
    """Return what is compared with what."""
    return f"{comparison.suite} against its baseline" + (f" of {comparison.device}" if comparison.device else "")


def outcome(comparison: Comparison) -> str:
    """Return the outcome in a few words."""
    if comparison.nothing:
        return "nothing was compared"
    if comparison.regressed:
        return "regressed"
    if any(row.verdict in ("moved", "better", "fixed") for row in (*comparison.rows, *comparison.seed_means)):
        return "changed, and not blessed"
    return "no regression" if comparison.passed else "other weights on equal ground"


def advice(comparison: Comparison) -> list[str]:
    """Return what is to be known of changes that are not for the worse, a line each."""
    verdicts = {row.verdict for row in (*comparison.rows, *comparison.seed_means)}
    found = (
        []
        if comparison.blessed is None
        else [f"the baseline was blessed on {comparison.blessed.date}: {comparison.blessed.reason}"]
    )
    if wide := comparison.wide:
        found.append(
            f"{len(wide)} tolerances are above {fine(WIDE)} nats and pass nearly everything, the widest "
            f"{fine(wide[0].tolerance)} ({wide[0].label}): `qbench repeat` more often"
        )
    if "moved" in verdicts:
        found.append("what moved beyond the noise is red, whichever way: bless it with a reason, or find out")
    if verdicts & {"better", "fixed"}:
        found.append("an improvement that nobody explained is red: bless it with a reason, or find out")
    if "new" in verdicts:
        found.append("what is new is not gated before it is blessed")
    return found


def blessable(comparison: Comparison) -> bool:
    """Return whether blessing would turn a comparison green: `qbench bless` refuses what failed or is missing."""
    return not comparison.passed and not {"failed", "missing"} & set(comparison.counts)


def cells_of(row: ComparisonRow) -> list[str]:
    """Return one row of a table, under `HEADERS`."""
    notes = [row.note] if row.note else []
    notes += ["same weights"] if row.identical else []
    if row.old_accuracy_recovery is not None and row.new_accuracy_recovery is not None and row.verdict != "same":
        notes.append(f"recovery of accuracy {_then_now(row.old_accuracy_recovery, row.new_accuracy_recovery)}")
    return [
        row.verdict,
        row.label,
        numbers.loss(row.old),
        numbers.loss(row.new),
        numbers.ABSENT if row.delta is None else fine(row.delta, signed=True),
        _ends(row.interval),
        numbers.ABSENT if row.delta is None else fine(row.tolerance),
        _then_now(row.old_recovery, row.new_recovery),
        "; ".join(notes),
    ]


def kinds(comparison: Comparison, rows: Sequence[ComparisonRow]) -> str:
    """Return how many rows of each verdict there are, worst first, such as ``2 worse, 1 new``."""
    verdicts = [row.verdict for row in rows]
    return ", ".join(
        f"{count} {verdict}" for verdict in comparison.counts if (count := sum(one == verdict for one in verdicts))
    )


def blocked(rows: Iterable[ComparisonRow]) -> list[str]:
    """Return one line for each model and seed whose cells could not be judged."""
    groups: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.verdict == "blocked":
            groups[row.group, row.note] = groups.get((row.group, row.note), 0) + 1
    return [f"not judged: {count} cells of {group}, since {reason}" for (group, reason), count in groups.items()]


def grounds(comparison: Comparison) -> list[str]:
    """Return what the two grounds do not share, a line each."""
    return [f"{name}: baseline {then}, now {now}" for name, (then, now) in comparison.environment.items()]


def fine(value: float, *, signed: bool = False) -> str:
    """Return four decimals, no leading zero: tolerances are a few thousandths.

    Examples
    --------
    >>> fine(0.00234), fine(-0.1, signed=True), fine(1.5, signed=True), fine(-0.00001, signed=True)
    ('.0023', '-.1000', '+1.5000', '+.0000')
    """
    if not math.isfinite(value):
        return str(value)
    digits = f"{abs(value):.4f}"
    sign = "-" if value < 0 and digits.strip("0.") else "+" if signed else ""
    return sign + (digits[1:] if digits.startswith("0.") else digits)


def _ends(interval: Interval | None) -> str:
    if interval is None:
        return numbers.ABSENT
    return f"[{fine(interval.low, signed=True)},{fine(interval.high, signed=True)}]"


def _then_now(then: float | None, now: float | None) -> str:
    words = [numbers.ABSENT if value is None else f"{100 * value:.1f} %" for value in (then, now)]
    return numbers.ABSENT if then is None and now is None else " -> ".join(words)
