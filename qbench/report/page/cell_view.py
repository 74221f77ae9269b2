"""All there is to see of one cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qbench.report import numbers
from qbench.report.comparison_cells import HEADERS
from qbench.report.entries import Entry, full_label
from qbench.report.page import only
from qbench.report.page.against import row_of
from qbench.report.page.charting import Chart
from qbench.report.page.place import Place
from qbench.report.page.templating import environment
from qbench.store.floats import spell
from qbench.store.record import LayerRow, Record

_SPECS = ("model", "quantizer", "method", "probe")
_FIELDS = ("objective", "rtn_objective", "damping")
_MOST_DOCUMENTS = 40

PARTS = ("cell", "cell_layers", "cell_documents", "cell_settings")
"""What a cell's page is made of, from top to bottom: the templates."""


@dataclass(frozen=True)
class Document:
    """Losses of one document, nats a token (or an image): here, in full precision, and by how much they differ."""

    name: str
    tokens: int
    loss: float
    full: float | None

    @property
    def excess(self) -> float | None:
        """Return the loss above full precision."""
        return None if self.full is None else self.loss - self.full


def render_cell(
    place: Place,
    seeds: Sequence[Place],
    all_places: Mapping[str, Place],
    entry: Entry | None = None,
    charts: Sequence[Chart] = (),
) -> dict[str, str]:
    """Return the HTML of one cell, in the parts of `PARTS`.

    Parameters
    ----------
    place : Place
        The cell.
    seeds : sequence of Place
        All cells of its entry, itself among them.
    all_places : mapping of str to Place
        Every cell of the run by label.
    entry : Entry, optional
        What the leaderboard says of all of them together.
    charts : sequence of Chart
        What is drawn of it.
    """
    record = place.record
    full = all_places.get(full_label(place.axes))
    row = row_of(place.run, place.label)
    told: dict[str, dict[str, Any]] = {
        "cell": {
            "place": place,
            "record": record,
            "seeds": seeds,
            "full": full if full is not None and full.label != place.label else None,
            "command": only.command(place),
            "also": [one.label for one in only.others(place, all_places.values())],
            "entry": [] if entry is None else of_entry(entry),
            "metrics": [] if record is None else [(name, exact(value)) for name, value in record.metrics.items()],
            "compared": [] if row is None else list(zip(HEADERS, row, strict=True)),
            "charts": charts,
            "exact": exact,
        },
        "cell_layers": {
            "record": record,
            "measured": [] if record is None else measured(record.layers),
            "short": short,
            "value": layer_value,
        },
        "cell_documents": {
            "documents": [] if record is None else documents(record, None if full is None else full.record),
            "most": _MOST_DOCUMENTS,
        },
        "cell_settings": {
            "record": record,
            **({} if record is None else _provenance(record)),
        },
    }
    return {name: environment().get_template(f"{name}.html.j2").render(told[name]) for name in PARTS}


def _provenance(record: Record) -> dict[str, Any]:
    return {
        "settings": settings(record),
        "hashes": hashes(record),
        "sources": sources(record),
        "environment": [(name, plain(value)) for name, value in record.environment.items()],
        "facts": [(name, plain(value)) for name, value in record.facts.items()],
    }


def of_entry(entry: Entry) -> list[tuple[str, str]]:
    """Return what an entry says beyond its cells: means and intervals over seeds, and the regime with its bounds."""
    rows: list[tuple[str, str]] = []
    if entry.excess is not None:
        rows.append(("excess D", numbers.with_ends(numbers.signed(entry.excess.mean), entry.excess, numbers.compact)))
    if entry.regime is not None:
        rows.append(("regime", entry.regime.text))
        rows.append(("inside up to tau", exact(entry.regime.tau)))
        rows.append(("failed beyond tau_f", exact(entry.regime.tau_f)))
    if entry.recovered is not None:
        rows.append(
            ("G against rtn", numbers.with_ends(numbers.share(entry.recovered.mean), entry.recovered, numbers.share))
        )
    if (change := entry.accuracy_change) is not None:
        rows.append(("accuracy, points", numbers.with_ends(numbers.signed_points(change.mean), change, numbers.points)))
    return rows


def measured(layers: Sequence[LayerRow]) -> list[str]:
    """Return what only some methods measure of a layer, of what these layers have: fields, then details by name."""
    fields = [name for name in _FIELDS if any(getattr(layer, name) is not None for layer in layers)]
    return [*fields, *sorted({name for layer in layers for name in layer.details})]


def layer_value(layer: LayerRow, name: str) -> float | None:
    """Return what is measured of a layer under a name of `measured`."""
    found: float | None = getattr(layer, name) if name in _FIELDS else layer.details.get(name)
    return found


def documents(record: Record, full: Record | None) -> list[Document]:
    """Return the documents of a record, worst first: by what they lose, or where that is not known by their loss."""
    losses = {} if full is None else {one.document: one.loss_sum / max(one.tokens, 1) for one in full.documents}
    found = [
        Document(one.document, one.tokens, one.loss_sum / max(one.tokens, 1), losses.get(one.document))
        for one in record.documents
    ]
    return sorted(found, key=lambda one: (-(one.loss if one.excess is None else one.excess), one.name))


def settings(record: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what the cell was made with, defaults included: the options of every part of its key."""
    found = []
    for part in _SPECS:
        spec = record.key.get(part)
        if isinstance(spec, dict) and isinstance(spec.get("options"), dict):
            rows = [(name, plain(value)) for name, value in spec["options"].items()]
            if "version" in spec:
                rows.append(("version", plain(spec["version"])))
            found.append((part, rows))
    rest = {
        name: value
        for name, value in record.key.items()
        if name not in (*_SPECS, "data", "runner") and not isinstance(value, dict)
    }
    return [*found, ("cell", [(name, plain(value)) for name, value in rest.items()])] if rest else found


def hashes(record: Record) -> list[tuple[str, str]]:
    """Return what data, weights and environment the cell's identity holds, by name."""
    return _leaves(
        {
            name: value
            for name, value in record.key.items()
            if name not in (*_SPECS, "runner") and isinstance(value, dict)
        }
    )


def sources(record: Record) -> list[tuple[str, str]]:
    """Return the hashes of the source files that the cell's numbers went through."""
    found: dict[str, str] = {}
    for part in (*_SPECS, "runner"):
        held = record.key.get(part)
        if isinstance(held, dict):
            found |= {
                str(name): plain(value)
                for name, value in (held if part == "runner" else held.get("sources", {})).items()
            }
    return sorted(found.items())


def exact(value: float | None) -> str:
    """Return a number with every digit it was stored with."""
    return "" if value is None else repr(value)


def short(value: float | None) -> str:
    """Return a number to six digits: there are many side by side."""
    return "" if value is None else f"{value:.6g}"


def plain(value: Any) -> str:
    """Return a setting as it is read: words as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(spell(value), ensure_ascii=False)


def _leaves(data: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in data.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{before}{name}.")
        else:
            found.append((f"{before}{name}", plain(value)))
    return found
