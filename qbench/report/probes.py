"""What became of the probes of a suite, which have no row in the leaderboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from qbench.store.record import Record
from qbench.suite.cell import Cell


def render_probes(records: Iterable[Record], cells: Sequence[Cell]) -> str:
    """Return how many probes there are by status, and why some are not ``ok``; nothing where a suite has none.

    Parameters
    ----------
    records : iterable of Record
        Of the suite's cells.
    cells : sequence of Cell
        All cells of the suite.
    """
    held = {record.label: record for record in records if record.is_probe}
    probes = [cell for cell in cells if cell.is_probe]
    if not probes:
        return ""
    counts, reasons = Counter[str](), Counter[str]()
    for cell in probes:
        record = held.get(cell.label())
        status = record.status if record is not None else "missing" if cell.skip is None else "skipped"
        counts[status] += 1
        if status != "ok":
            said = (record.reason if record is not None else cell.skip) or "it was not run"
            reasons[f"{cell.axes()['method']}: {status}: {said}"] += 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    lines = [f"probes: {len(probes)}: {told}"]
    lines += [f"  {reason}{f' ({count} of them)' if count > 1 else ''}" for reason, count in reasons.items()]
    return "\n".join(lines)
