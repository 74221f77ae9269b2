"""Why a cell's stored result counts or does not: what its key holds today, against what stored keys held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qbench import atomic
from qbench.runner.identity import PlannedCell
from qbench.store.folder import RunFolder, Scan
from qbench.store.record import Record

ABSENT = "-"
_SHORT = 8  # letters of a hash
_HASH = 64
_NEAREST = 3

State = Literal["hit", "failed", "corrupt", "without weights", "other weights", "other key"]


@dataclass(frozen=True)
class Part:
    """A part of a key that is another today.

    Attributes
    ----------
    name : str
        Where it stands, such as ``method.options.percdamp`` or ``method.sources qbench.methods.gptq``.
    stored, today : str
        Both values; hashes by their first letters, ``-`` where there is none.
    """

    name: str
    stored: str
    today: str

    def __str__(self) -> str:
        return f"{self.name}: {self.stored} -> {self.today}"


@dataclass(frozen=True)
class Finding:
    """What one stored file means for a cell of today.

    Attributes
    ----------
    state : str
        ``hit``: it stands for the cell. ``failed``: it is the cell's, and tells of no result. ``corrupt``: it is no
        record. ``without weights``, ``other weights``: the file beside it is gone, or is not the one it tells of.
        ``other key``: it was made by other code, of other data or with other options.
    cell_id, label : str
        The stored record's.
    ended : str
        When it was run; empty for a corrupt one.
    reason : str
        More in words.
    parts : tuple of Part
        In what its key differs from the key of today.
    """

    state: State
    cell_id: str
    label: str
    ended: str = ""
    reason: str = ""
    parts: tuple[Part, ...] = ()


def explain(planned: PlannedCell, folder: RunFolder) -> list[Finding]:
    """Return what a folder holds for a cell: the record of its own id first, then others of its label, newest first.

    Where there are none of its label, those that come nearest: of the same model, quantizer and method whatever their
    options, bits and seed, with the fewest parts of their keys different.

    Parameters
    ----------
    planned : PlannedCell
        The cell as it is today.
    folder : RunFolder
        Where it is looked for.
    """
    scan = folder.scan()
    own = explain_own(planned, folder, scan)
    found = [] if own is None else [own]
    strangers = [_of_stranger(planned, one) for one in scan.records.values() if one.cell_id != planned.cell_id]
    label, named = planned.cell.label(), _names(planned.key)
    alike = [one for one in strangers if one.label == label]
    found += sorted(alike, key=lambda one: (one.ended, one.cell_id), reverse=True)
    if not found:
        near = [one for one in strangers if _names(scan.records[one.cell_id].key) == named]
        found += sorted(near, key=lambda one: (len(one.parts), one.label, one.cell_id))[:_NEAREST]
    return found


def explain_own(planned: PlannedCell, folder: RunFolder, scan: Scan) -> Finding | None:
    """Return what the record of a cell's own id means for it; None where there is no such file.

    Parameters
    ----------
    planned : PlannedCell
        The cell as it is today.
    folder : RunFolder
        Where it is looked for.
    scan : Scan
        What that folder holds.
    """
    own, path = scan.records.get(planned.cell_id), folder.record_path(planned.cell_id)
    if own is not None:
        return _of_own(planned, own, folder)
    if path in scan.corrupt:
        told = f"{path} is no record: {scan.corrupt[path]}"
        return Finding("corrupt", planned.cell_id, planned.cell.label(), reason=told)
    return None


def _of_stranger(planned: PlannedCell, record: Record) -> Finding:
    parts = tuple(key_changes(record.key, planned.key))
    return Finding("other key", record.cell_id, record.label, record.ended, parts=parts)


def _names(key: Mapping[str, Any]) -> list[str | None]:
    return [
        key[part]["options"].get("name") if part in key else None for part in ("model", "quantizer", "method", "probe")
    ]


def _of_own(planned: PlannedCell, record: Record, folder: RunFolder) -> Finding:
    if record.status != "ok":
        return Finding("failed", record.cell_id, record.label, record.ended, f"{record.status}: {record.reason}")
    if planned.cell.quantizer is None or planned.cell.is_probe:
        return Finding("hit", record.cell_id, record.label, record.ended)
    weights = folder.weights_path(record.cell_id)
    if not weights.exists():
        return Finding("without weights", record.cell_id, record.label, record.ended, f"{weights} is not there")
    sha256 = atomic.sha256_file(weights)
    if sha256 != record.weights_sha256:
        told = f"{weights} has the hash {sha256[:_SHORT]}, its record tells of {str(record.weights_sha256)[:_SHORT]}"
        return Finding("other weights", record.cell_id, record.label, record.ended, told)
    return Finding("hit", record.cell_id, record.label, record.ended)


def key_changes(stored: Mapping[str, Any], today: Mapping[str, Any]) -> Iterator[Part]:
    """Yield in which parts two keys differ, the parts in alphabetical order.

    Parameters
    ----------
    stored, today : mapping
        Keys, see `qbench.runner.identity.identify`.
    """
    first, second = dict(_leaves(stored)), dict(_leaves(today))
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name, ABSENT), second.get(name, ABSENT)
        if one != other:
            yield Part(name, _short(one), _short(other))


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            # A module's name has dots of its own, and a probe's points are labels.
            spaced = place.endswith("sources") or place in ("runner", "points", "data")
            yield from _leaves(inner, f"{place} {key}" if spaced else f"{place}.{key}".strip("."))
    else:
        yield place, value


def _short(value: Any) -> str:
    if isinstance(value, str):
        is_hash = len(value) == _HASH and set(value) <= set("0123456789abcdef")
        return value[:_SHORT] if is_hash else value
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)
