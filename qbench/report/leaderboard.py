"""The leaderboard of a suite: a pure function of its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qbench.claims.statistics import COVERAGE, RESAMPLES
from qbench.report import numbers
from qbench.report.batch_norm import Recalibration, explain, recalibrations
from qbench.report.entries import Axes, Entry, Places, find_rounding, is_rounding, make_entry
from qbench.report.landscape_sheet import Sheet
from qbench.report.landscapes import landscape_sheets
from qbench.report.notes import Note, NoteBook
from qbench.report.published import Published, beside_published
from qbench.report.summary import summarise
from qbench.store.environment import shared_environment
from qbench.store.floats import spell
from qbench.store.newest import newest
from qbench.store.record import Record
from qbench.suite.cell import FP, cell_label

if TYPE_CHECKING:
    from qbench.suite.xref import Xref

_LOSSLESS_DB = 120.0  # of weights in float32 that are levels but for their last digits; 8 bits leave about 45


@dataclass(frozen=True)
class Group:
    """One model and one quantizer.

    Attributes
    ----------
    model : str
        Label of the model.
    quantizer : str or None
        Label of the quantizer; None where a model has no quantized cell.
    bits : tuple of int
        Falling.
    full : Entry or None
        Full precision; None where no such cell was expected.
    controls : dict of str to Entry
        Full-precision training as long as that of methods that train, by its label; see `Cell.is_control`.
    rows : dict of str to dict of int to Entry
        Method, then bits; methods in the order of the suite.
    facts : dict of str to str
        What a table must say of the model; values that differ between records stand side by side.
    recalibrations : tuple of Recalibration
        What batch norm has to do with the excess of methods that leave the basin.
    """

    model: str
    quantizer: str | None
    bits: tuple[int, ...]
    full: Entry | None
    controls: dict[str, Entry]
    rows: dict[str, dict[int, Entry]]
    facts: dict[str, str] = field(default_factory=dict)
    recalibrations: tuple[Recalibration, ...] = ()

    @property
    def of_images(self) -> bool:
        """Whether the model classifies images."""
        return "chance_accuracy" in self.facts or any(entry.accuracy is not None for entry in self.entries)

    @property
    def entries(self) -> list[Entry]:
        """Return full precision, the controls, and all rows, bitwidth by bitwidth."""
        found = [*([self.full] if self.full else []), *self.controls.values()]
        return found + [row[width] for width in self.bits for row in self.rows.values() if width in row]

    @property
    def title(self) -> str:
        """Return ``model/quantizer``."""
        return self.model if self.quantizer is None else f"{self.model}/{self.quantizer}"


@dataclass(frozen=True)
class Leaderboard:
    """Everything the tables of a suite say.

    Attributes
    ----------
    suite : str
        Its name, as the records give it.
    groups : tuple of Group
        In the order of the suite.
    counts : dict of str to int
        Expected cells by status; ``missing`` where there is no record, and ``fallback``: cells that are ``ok`` and in
        which a layer fell back.
    notes : tuple of Note
        Why cells are not clean.
    summary : tuple of str
        One line a group, and one a method whose excess batch norm has to do with.
    environment : dict of str to str
        See `shared_environment`.
    started, ended : str
        First start and last end of the records, UTC.
    interval : str
        How the intervals were made.
    left_out : int
        Records that are older than another of the same cell, or of no expected cell.
    landscapes : tuple of Sheet
        Tables about models whose loss is a landscape, which are shown in place of their groups.
    published : tuple of Published
        What others have published of its cells.
    """

    suite: str
    groups: tuple[Group, ...]
    counts: dict[str, int]
    notes: tuple[Note, ...]
    summary: tuple[str, ...]
    environment: dict[str, str]
    started: str
    ended: str
    interval: str
    left_out: int
    landscapes: tuple[Sheet, ...] = ()
    published: tuple[Published, ...] = ()

    @property
    def of_networks(self) -> Leaderboard:
        """Return the same without the groups that the tables about landscapes stand for."""
        told = {place for one in self.landscapes for place in one.places}
        kept = tuple(group for group in self.groups if (group.model, group.quantizer) not in told)
        return replace(self, groups=kept)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for ``--json``: strict JSON, NaN and infinities spelled."""
        data: dict[str, Any] = spell(asdict(self))
        return data


def leaderboard(
    records: Iterable[Record], expected: Sequence[Axes] | None = None, xref: Sequence[Xref] = ()
) -> Leaderboard:
    """Return the leaderboard of records.

    Parameters
    ----------
    records : iterable of Record
        Of several of one label the newest counts. Those of probes have no row, but for corners of landscapes.
    expected : sequence of mapping, optional
        `Cell.axes` of every cell the suite names, in its order; a skipped cell has its reason under ``skip``. By
        default the cells that have records, round-to-nearest first and QAT last: then none can be missing.
    xref : sequence of Xref
        What others have published of the cells.
    """
    given = list(records)
    everything = [record for record in given if not record.is_probe]
    chosen = newest(everything)
    places = [record.axes for record in sorted(chosen.values(), key=_rank)] if expected is None else list(expected)
    known = {label: chosen[label] for label in map(_label, places) if label in chosen}
    book = NoteBook()
    titles = dict.fromkeys((str(axes["model"]), axes["quantizer"]) for axes in places)
    quantized = {model for model, quantizer in titles if quantizer is not None}
    groups = tuple(
        _group(model, None if quantizer is None else str(quantizer), places, chosen, book)
        for model, quantizer in titles
        if quantizer is not None or model not in quantized
    )
    probes = newest(record for record in given if record.is_probe)
    landscapes = landscape_sheets([*known.values(), *probes.values()], places)
    told = {place for one in landscapes for place in one.places}
    return Leaderboard(
        suite=", ".join(sorted({record.suite for record in known.values()})) or "no records",
        groups=groups,
        counts=_count(places, known),
        notes=book.notes(),
        summary=(
            *(line for group in groups if (group.model, group.quantizer) not in told for line in _summary(group)),
            *_cautions(known.values()),
        ),
        environment=shared_environment(known.values()),
        started=min((record.started for record in known.values()), default=""),
        ended=max((record.ended for record in known.values()), default=""),
        interval=_interval_method(groups),
        left_out=len(everything) - len(known),
        landscapes=landscapes,
        published=beside_published(known.values(), xref),
    )


def _cautions(records: Iterable[Record]) -> list[str]:
    """Return why rows tell nothing: full precision that knows nothing, or weights that lay on the grid already."""
    found: dict[str, None] = {}
    for record in records:
        if record.metrics.get("weight_sqnr_db", 0.0) > _LOSSLESS_DB:
            place = (
                f"{record.axes['model']}/{record.axes['quantizer']} at {numbers.bits(int(record.axes['bits'] or 0))}"
            )
            found[f"{place}: lossless, the weights lay on this grid already: its rows say nothing of a method"] = None
        model, chance = str(record.axes["model"]), record.facts.get("chance_loss")
        if record.axes["method"] != FP or record.loss is None:
            continue
        if chance is not None and record.loss >= float(chance):
            found[f"{model}: full precision is no better than chance: no row has a regime, and G says nothing"] = None
    return list(found)


def _summary(group: Group) -> list[str]:
    first = summarise(group.title, group.bits, group.rows, group.full)
    return [first, *explain(group.title, group.full, group.recalibrations, group.rows)]


def _rank(record: Record) -> tuple[str, str, bool, bool, str, int, int]:
    axes = record.axes
    method = str(axes["method"])
    place = (not is_rounding(method), record.cost.train_tokens > 0, method)
    return (str(axes["model"]), str(axes["quantizer"] or ""), *place, int(axes["bits"] or 0), int(axes["seed"] or 0))


def _label(axes: Axes) -> str:
    return cell_label(dict(axes))


def _group(
    model: str, quantizer: str | None, places: Sequence[Axes], records: dict[str, Record], book: NoteBook
) -> Group:
    unquantized = [axes for axes in places if axes["model"] == model and axes["quantizer"] is None]
    full = [axes for axes in unquantized if axes["method"] == FP]
    trained: dict[str, list[Axes]] = {}
    for axes in unquantized:
        if axes["method"] != FP:
            trained.setdefault(str(axes["method"]), []).append(axes)
    ours = [
        axes
        for axes in places
        if axes["model"] == model and axes["quantizer"] == quantizer and axes["bits"] is not None
    ]
    seeds: dict[tuple[str, int], list[Axes]] = {}
    for axes in ours:
        seeds.setdefault((str(axes["method"]), int(axes["bits"] or 0)), []).append(axes)
    places_of = {place: Places(axes_of_seeds, records) for place, axes_of_seeds in seeds.items()}
    bits = tuple(sorted({width for _, width in seeds}, reverse=True))
    rounding = find_rounding(method for method, _ in seeds)
    rows: dict[str, dict[int, Entry]] = {}
    for (method, width), place in places_of.items():
        rounded = None if rounding in (None, method) else places_of.get((str(rounding), width))
        rows.setdefault(method, {})[width] = make_entry(place, rounded, book)
    return Group(
        model=model,
        quantizer=quantizer,
        bits=bits,
        full=make_entry(Places(full, records), None, book) if full else None,
        controls={method: make_entry(Places(axes, records), None, book) for method, axes in trained.items()},
        rows=rows,
        facts=_facts(records[_label(axes)] for axes in [*full, *ours] if _label(axes) in records),
        recalibrations=recalibrations(places_of, rows),
    )


def _facts(records: Iterable[Record]) -> dict[str, str]:
    seen: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.facts.items():
            seen.setdefault(name, {})[f"{value:.4g}" if isinstance(value, float) else str(value)] = None
    return {name: "; ".join(values) for name, values in seen.items()}


def _count(places: Sequence[Axes], records: dict[str, Record]) -> dict[str, int]:
    counts: Counter[str] = Counter(expected=len(places))
    for axes in places:
        record = records.get(_label(axes))
        counts[record.status if record else "missing" if axes.get("skip") is None else "skipped"] += 1
        counts["fallback"] += bool(record and record.status == "ok" and record.fallbacks)
    return {name: count for name, count in counts.items() if count}


def _interval_method(groups: Sequence[Group]) -> str:
    covers = {e.excess.covers for group in groups for row in group.rows.values() for e in row.values() if e.excess}
    drawn = {
        "documents": "documents only, for rows of one seed: what another seed would change is not in them",
        "documents and seeds": "documents, the same in all seeds, and seeds, of which a handful gives a rough estimate",
        "nothing": "nothing, for rows without losses of single documents: they have no interval",
    }
    what = "; ".join(drawn[name] for name in sorted(covers)) or "nothing yet"
    return (
        f"{COVERAGE:.0%} percentile bootstrap of the excess loss over full precision, paired by seed and document, "
        f"{RESAMPLES} resamples; drawn again: {what}"
    )
