"""Which table holds what: the rows and columns that all renderers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qbench.claims.thresholds import TOLERANCE, TOLERANCE_OF_IMAGES
from qbench.report import numbers
from qbench.report.entries import Entry
from qbench.report.leaderboard import Group, Leaderboard

_TITLES = (
    ("accuracy/top1", "acc %"),
    ("perplexity/", "ppl"),
    ("bits_per_byte/", "bits/byte"),
    ("word_perplexity/", "word ppl"),
    ("byte_perplexity/", "byte ppl"),
    ("next_sentence/acc", "acc"),
    ("next_sentence/acc_norm", "acc norm"),
    ("next_sentence/acc_mutual_info", "acc MI"),
    ("weight_sqnr_db", "SQNR dB"),
)

_BESIDE = (
    "quantizers side by side: {}, the best row first; eff.bits: what a weight takes, scales, zero points and "
    "codebooks included. A grid of more bits is no better grid."
)

_ACCURACY = (
    "accuracy: % of the evaluation images, mean over seeds, then the points above fp; of several seeds with a 95 % "
    "bootstrap interval over these, rough for a handful. A document is a group of ten images."
)

_BATCH_NORM = (
    "bn: what batch norm normalises by. keep: statistics of the full-precision model; recalibrate: estimated again on "
    "the calibration images, in the quantized model; fold: folded into the layers before these are quantized, so that "
    "the grids are of other weights; update: moved on while training."
)


@dataclass(frozen=True)
class Table:
    """Words in rows and columns.

    Attributes
    ----------
    headers : list of str
        One a column.
    rows : list of list of str
        As wide as `headers`.
    keys : int
        How many columns from the left name the row.
    """

    headers: list[str]
    rows: list[list[str]]
    keys: int


def split(table: Table, fits: Callable[[Table], bool]) -> list[Table]:
    """Return a table in as few parts as needed, the keys in each, with as many columns in each where these fit so.

    Parameters
    ----------
    table : Table
        What to split by columns.
    fits : callable
        Whether a table is narrow enough. A single column beside the keys is never split.
    """
    parts: list[Table] = []
    columns = list(range(table.keys, len(table.headers)))
    while columns:
        count = next((n for n in range(len(columns), 1, -1) if fits(_columns(table, columns[:n]))), 1)
        parts.append(_columns(table, columns[:count]))
        columns = columns[count:]
    even = list(_even(table, len(parts)))
    return even if parts and all(map(fits, even)) else parts or [table]


def identified(table: Table) -> Table:
    """Return a table with so many keys that no two rows have the same, where its columns allow that."""
    for keys in range(table.keys, len(table.headers) - 1):
        if len({tuple(row[:keys]) for row in table.rows}) == len(table.rows):
            return Table(table.headers, table.rows, keys)
    return table


def _even(table: Table, count: int) -> Iterator[Table]:
    """Yield `count` parts of columns as many in each as in the next, or one more."""
    columns = list(range(table.keys, len(table.headers)))
    for left in range(count, 0, -1):
        many = -(-len(columns) // left)
        yield _columns(table, columns[:many])
        columns = columns[many:]


def _columns(table: Table, columns: Sequence[int]) -> Table:
    kept = [*range(table.keys), *columns]
    return Table([table.headers[at] for at in kept], [[row[at] for at in kept] for row in table.rows], table.keys)


def tables(group: Group, *, levels: bool = True) -> list[Table]:
    """Return the tables of a group: accuracies of a classifier, losses, regimes, and everything else.

    Parameters
    ----------
    group : Group
        What to show.
    levels : bool
        Show losses beside what they are above full precision, and not that alone: where lines are short.
    """
    methods = list(group.rows.items())
    if not group.bits:
        return [_details(group)]
    widths = [numbers.bits(width) for width in group.bits]
    losses = ("loss", _loss) if levels else ("excess loss", _excess)
    grids = [("accuracy %", _accuracy), losses] if group.of_images else [losses]
    regimes = [[method, *(_regime(row.get(width)) for width in group.bits)] for method, row in methods]
    return [
        *(Table([title, *widths], _grid(group, number), keys=1) for title, number in grids),
        Table(["regime", *widths], regimes, keys=1),
        _details(group),
    ]


def _grid(group: Group, number: Callable[[Entry], str]) -> list[list[str]]:
    """Return a row for full precision, each control and each method, with a number or what stands in its place."""

    def cell(entry: Entry | None) -> str:
        if entry is None:
            return ""
        marks = "".join(f"({note})" for note in entry.notes)
        text = number(entry) if entry.complete else incomplete(entry)
        return f"{text} {marks}" if marks else text

    rows = [["fp", *[cell(group.full)] * len(group.bits)]] if group.full else []
    rows += [[method, *[cell(entry)] * len(group.bits)] for method, entry in group.controls.items()]
    return rows + [[method, *(cell(row.get(width)) for width in group.bits)] for method, row in group.rows.items()]


def chance(group: Group) -> str | None:
    """Return what a guess scores: ``10.0 %, loss 2.303``; None for models that classify no images."""
    if "chance_accuracy" not in group.facts:
        return None
    shares = [numbers.percent(float(share)) for share in group.facts["chance_accuracy"].split("; ")]
    return f"{'; '.join(shares)} %, loss {group.facts.get('chance_loss', numbers.ABSENT)}"


def counts(board: Leaderboard) -> str:
    """Return how many cells ended how: ``24 cells: 22 ok, 1 failed, 1 missing``."""
    counted = dict(board.counts)
    expected, fallback = counted.pop("expected", 0), counted.pop("fallback", 0)
    marks = {"ok": f" ({fallback} of them with a layer that fell back)" if fallback else ""}
    order = sorted(counted, key=lambda name: (name != "ok", name))
    text = ", ".join(f"{counted[name]} {name}{marks.get(name, '')}" for name in order)
    left = f"; {board.left_out} older or other records not shown" if board.left_out else ""
    return f"{expected} {'cell' if expected == 1 else 'cells'}: {text or 'none'}{left}"


def footnotes(board: Leaderboard) -> list[str]:
    """Return the numbered reasons."""
    return [
        f"({note.number}) {note.kind}, {len(note.cells)} {'cell' if len(note.cells) == 1 else 'cells'}: {note.reason}"
        for note in board.notes
    ]


def legend(board: Leaderboard, *, levels: bool = True) -> list[str]:
    """Return what the words in the tables mean; `levels` as in `tables`."""
    controls = dict.fromkeys(name for group in board.groups for name in group.controls)
    trained = [
        f"{', '.join(controls)}: the same layers trained in full precision, for as many steps and on the same batches "
        "as the rows that train; what that gains over fp is not quantization's doing."
    ]
    images = [group.of_images for group in board.groups]
    unit = "an image" if images and all(images) else "a token, or an image" if any(images) else "a token"
    normed = any(entry.batch_norm is not None for group in board.groups for entry in group.entries)
    return [
        *([_ACCURACY] if any(images) else []),
        f"loss: nats {unit}, mean over seeds, then the excess D over fp with its 95 % interval; no mean where a seed "
        "is missing."
        if levels
        else f"excess loss: D over the loss of fp, nats {unit}, mean over seeds, with its 95 % interval; no mean where "
        "a seed is missing.",
        f"regime: inside D <= tau = max(3 SE, t), SE over documents, t = {_tolerance(images)}; failed D > tau_f = "
        "max(10 t, .1 (chance - fp)) + 3 SE; grey between; k/n: seeds disagree.",
        *(trained if controls else []),
        *([_BATCH_NORM] if normed else []),
        *(
            [_BESIDE.format("of images accuracy, and D" if any(images) else "D alone")]
            if len({(group.model, bits) for group in board.groups for bits in group.bits})
            < sum(len(group.bits) for group in board.groups)
            else []
        ),
        "G: share of rtn's excess loss, on the same grid, that the method does away with; - where rtn lost nothing to "
        "speak of.",
    ]


def _tolerance(images: Sequence[bool]) -> str:
    share = f"{TOLERANCE_OF_IMAGES:.0%} of (chance - fp)".replace("%", " %")
    tokens = numbers.compact(TOLERANCE).rstrip("0")
    if not any(images):
        return tokens
    return share if all(images) else f"{tokens}, of images {share}"


def _loss(entry: Entry) -> str:
    if entry.excess is None:
        return numbers.loss(entry.loss)
    mean = f"{numbers.loss(entry.loss)} {numbers.signed(entry.excess.mean)}"
    return numbers.with_ends(mean, entry.excess, numbers.compact)


def _excess(entry: Entry) -> str:
    if entry.excess is None:
        return f"{numbers.loss(entry.loss)} (loss)"
    return numbers.with_ends(numbers.signed(entry.excess.mean), entry.excess, numbers.compact)


def _accuracy(entry: Entry) -> str:
    change = entry.accuracy_change
    if change is None:
        return numbers.percent(entry.accuracy)
    mean = f"{numbers.percent(entry.accuracy)} {numbers.signed_points(change.mean)}"
    return numbers.with_ends(mean, change, numbers.points)


def incomplete(entry: Entry) -> str:
    """Return what stands in place of a number where a seed is missing: ``1/3 seeds, 2 failed``."""
    if entry.complete:
        return numbers.ABSENT
    done = entry.statuses.get("ok", 0)
    others = [(status, count) for status, count in entry.statuses.items() if status != "ok"]
    if not done and len(others) == 1:
        return others[0][0]
    return f"{done}/{entry.seeds} seeds, " + ", ".join(f"{count} {status}" for status, count in others)


def _regime(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if entry.regime is not None:
        return entry.regime.text
    return numbers.ABSENT


def _details(group: Group) -> Table:
    entries = group.entries
    names = {name for entry in entries for name in entry.metrics if not name.startswith("loss/")}
    known = [name for prefix, _ in _TITLES for name in sorted(names) if _title(name)[0] == prefix]
    normed = any(entry.batch_norm is not None for entry in entries)
    columns: list[tuple[str, Callable[[Entry], str]]] = [
        ("bits", lambda entry: "" if entry.bits is None else str(entry.bits)),
        ("method", lambda entry: entry.method),
        *([("bn", lambda entry: entry.batch_norm or "")] if normed else []),
        ("G vs rtn", _recovered),
        *(_metric_column(name, known) for name in [*known, *sorted(names - set(known))]),
        ("eff.bits", lambda entry: numbers.ABSENT if entry.effective_bits is None else f"{entry.effective_bits:.2f}"),
        ("seconds", lambda entry: numbers.seconds(entry.method_seconds)),
        ("MiB", lambda entry: numbers.mebibytes(entry.peak_memory_bytes)),
    ]
    if any(entry.fallbacks for entry in entries):
        columns.append(("fallbacks", lambda entry: str(entry.fallbacks) if entry.fallbacks else ""))
    shown = [entry for entry in entries if entry.complete]
    rows = [[cell(entry) for _, cell in columns] for entry in shown]
    return Table([title for title, _ in columns], rows, keys=3 if normed else 2)


def _recovered(entry: Entry) -> str:
    if entry.recovered is None:
        return numbers.ABSENT
    return numbers.with_ends(numbers.share(entry.recovered.mean), entry.recovered, numbers.share)


def _metric_column(name: str, known: list[str]) -> tuple[str, Callable[[Entry], str]]:
    title = _title(name)[1]
    alone = sum(_title(other)[1] == title for other in known) <= 1
    number = numbers.percent if title.endswith("%") else numbers.compact
    return (title if alone else name), lambda entry: number(entry.metrics.get(name))


def _title(name: str) -> tuple[str, str]:
    fitting = [item for item in _TITLES if name.startswith(item[0])]
    return max(fitting, key=lambda item: len(item[0]), default=(name, name))
