"""One line that says what a group of the leaderboard says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from qbench.report import numbers
from qbench.report.entries import Entry, find_rounding
from qbench.report.numbers import percent, share, signed


def summarise(
    title: str, bits: Sequence[int], rows: Mapping[str, Mapping[int, Entry]], full: Entry | None = None
) -> str:
    """Return, such as, ``llama-1m/mse: rtn inside down to 4 bits, failed at 2; at 2 bits best PTQ adaround +.55``.

    Of image classifiers the accuracies are told too. Only rows with all seeds count; "inside" and "failed" mean that
    all seeds agree.

    Parameters
    ----------
    title : str
        Model and quantizer.
    bits : sequence of int
        Falling.
    rows : mapping of str to mapping of int to Entry
        Method, then bits.
    full : Entry, optional
        Full precision.
    """
    rounding = find_rounding(rows)
    parts = [] if rounding is None else [f"{rounding} {_range(bits, rows[rounding])}"]
    lowest = next(
        (width for width in reversed(bits) if any(width in row and row[width].excess for row in rows.values())), None
    )
    if lowest is not None:
        entries = [row[lowest] for row in rows.values() if lowest in row]
        best = [
            f"best {kind} {text}"
            for kind, rivals in (
                ("PTQ", [entry for entry in entries if not entry.trained]),
                ("QAT", [entry for entry in entries if entry.is_qat]),
            )
            if (text := _best(rivals)) is not None
        ]
        parts.append(f"at {numbers.bits(lowest)} {', '.join(best)}")
    reference = "" if full is None or full.accuracy is None else f" (fp {percent(full.accuracy)} %)"
    return f"{title}{reference}: {'; '.join(parts) or 'nothing complete yet'}"


def _range(bits: Sequence[int], row: Mapping[int, Entry]) -> str:
    # What the suite skips (a grid that there is not, say) is not unknown: it is not asked for.
    bits = [width for width in bits if width not in row or set(row[width].statuses) != {"skipped"}]
    if not bits:
        return "skipped"
    inside = []
    for width in bits:
        if _agreed(row, width) != "inside":
            break
        inside.append(width)
    failed = [str(width) for width in bits if _agreed(row, width) == "failed"]
    unknown = [str(width) for width in bits if width not in row or row[width].regime is None]
    if len(unknown) == len(bits):
        return f"not known at {', '.join(unknown)}"
    between = [str(width) for width in bits if str(width) not in [*failed, *unknown]]
    parts = [f"inside down to {numbers.bits(inside[-1])}"] if inside else []
    parts += [f"not inside at {', '.join(between)}"] if between and not inside else []
    parts += [f"failed at {', '.join(failed)}"] if failed else []
    parts += [f"not known at {', '.join(unknown)}"] if unknown else []
    return ", ".join(parts)


def _agreed(row: Mapping[int, Entry], width: int) -> str | None:
    entry = row.get(width)
    return None if entry is None or entry.regime is None else entry.regime.agreed


def _best(entries: Iterable[Entry]) -> str | None:
    known = [(entry.excess.mean, entry.method, entry) for entry in entries if entry.excess is not None]
    if not known:
        return None
    excess, method, best = min(known, key=lambda item: item[:2])
    told = [] if best.accuracy is None else [f"{percent(best.accuracy)} %"]
    told += [] if best.recovered is None else [f"G {share(best.recovered.mean)}"]
    scores = f" ({', '.join(told)})" if told else ""
    flaw = " (a layer fell back)" if best.fallbacks else ""
    return f"{method} {signed(excess)}{scores}{flaw}"
