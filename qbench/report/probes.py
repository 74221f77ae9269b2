"""What became of the probes of a suite, which have no row in the leaderboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from qbench.report.entries import Axes
from qbench.store.record import Record
from qbench.suite.cell import cell_label


def render_probes(records: Iterable[Record], expected: Sequence[Axes]) -> str:
    """Return how many probes there are by status, and why some are not ``ok``; nothing where a suite has none.

    Parameters
    ----------
    records : iterable of Record
        Of the suite's cells.
    expected : sequence of Axes
        Axes of all probes of the suite; a skipped one has its reason under ``skip``.
    """
    held = {record.label: record for record in records if record.is_probe}
    if not expected:
        return ""
    counts, reasons = Counter[str](), Counter[str]()
    for axes in expected:
        record, skip = held.get(cell_label(dict(axes))), axes.get("skip")
        status = record.status if record is not None else "missing" if skip is None else "skipped"
        counts[status] += 1
        if status != "ok":
            said = (record.reason if record is not None else skip) or "it was not run"
            reasons[f"{axes['method']}: {status}: {said}"] += 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    lines = [f"probes: {len(expected)}: {told}"]
    lines += [f"  {reason}{f' ({count} of them)' if count > 1 else ''}" for reason, count in reasons.items()]
    return "\n".join(lines)
