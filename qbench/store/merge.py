"""Several run folders made one: the shards of a suite, or the same suite on several machines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qbench import atomic
from qbench.errors import StoreError
from qbench.store.candidates import Candidates, candidates, has_weights
from qbench.store.folder import RunFolder, repeat_folders
from qbench.store.ground import unlike
from qbench.store.record import Record
from qbench.store.same_result import Difference, differences
from qbench.store.tolerance import FULL_PRECISION_FLOOR

Prefer = Literal["first", "last"]


@dataclass(frozen=True)
class Conflict:
    """A cell that two folders have different results of.

    Attributes
    ----------
    label, cell_id : str
        The cell.
    first, second : Path
        The folders: the destination comes before the sources, these come in the order in which they were given.
    differences : tuple of Difference
        In what the results differ.
    unlike : mapping of str to (str, str)
        In what the grounds differ; empty where equal bytes were to be expected.
    """

    label: str
    cell_id: str
    first: Path
    second: Path
    differences: tuple[Difference, ...]
    unlike: Mapping[str, tuple[str, str]]


@dataclass
class Merged:
    """What became of a merge.

    Attributes
    ----------
    copied, kept, same, rounded, replaced : int
        Records that were written; of the sources' cells, those where the destination's own record stayed; records
        that tell of the same result as the one that is kept; those of cells without quantized weights whose loss
        differs by no more than another ground's rounding errors; and those that are not ``ok`` where another folder's
        is. Those of repeats are counted too.
    repeats : int
        The repeats that the destination has now.
    conflicts : list of Conflict
        Cells of which nothing was written, unless one folder was preferred.
    aside : dict of Path to str
        Files of the sources, and of the destination, that do not count, and why.
    pointless : dict of str to list of str
        Probes, by label, with those of the cells they read that the destination does not have.
    """

    copied: int = 0
    kept: int = 0
    same: int = 0
    rounded: int = 0
    replaced: int = 0
    repeats: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    aside: dict[Path, str] = field(default_factory=dict)
    pointless: dict[str, list[str]] = field(default_factory=dict)


def merge(sources: Sequence[Path], destination: Path, prefer: Prefer | None = None) -> Merged:
    """Copy records and weights into one folder; every file is wholly written or not there.

    What a merge that was stopped has written counts as the destination's own when it is called again.

    Parameters
    ----------
    sources : sequence of Path
        Run folders; they are only read.
    destination : Path
        A run folder, or what is to be one.
    prefer : {"first", "last"}, optional
        Whose result is taken where they differ: of the destination and the sources, in the order in which they are
        given, the first or the last one.

    Raises
    ------
    StoreError
        A source holds no record, is given twice, or is the destination or in it or around it; a record was written by
        a newer qbench; or another process works in the destination.
    """
    _check_places(sources, destination)
    given = [candidates(path) for path in sources]
    merged = Merged()
    with RunFolder(destination).lock():
        own = candidates(destination)
        _merge_into(own, given, prefer, merged)
        merged.conflicts.sort(key=lambda conflict: conflict.label)
        _merge_repeats(sources, destination, merged)
        merged.repeats = len(repeat_folders(destination))
        held = RunFolder(destination).scan().records
        for record in held.values():
            points = record.key.get("points", {}) if record.is_probe and record.status == "ok" else {}
            if missing := [name for name, cell_id in points.items() if cell_id not in held]:
                merged.pointless[record.label] = missing
    return merged


def _check_places(sources: Sequence[Path], destination: Path) -> None:
    target, seen = destination.resolve(), dict[Path, Path]()
    for source in sources:
        place = source.resolve()
        if place == target or place.is_relative_to(target) or target.is_relative_to(place):
            what = "is the destination" if place == target else "and the destination lie in each other"
            raise StoreError(f"{source} {what} (allowed: folders apart from {destination})")
        if place in seen:
            raise StoreError(f"{source} is given twice")
        seen[place] = source
        if not any((source / "records").glob("[!.]*.json")):
            raise StoreError(f"{source} holds no record (allowed: the folder of a run, with records/ in it)")


def _merge_into(own: Candidates, given: Sequence[Candidates], prefer: Prefer | None, merged: Merged) -> None:
    folders = [own, *given]
    for folder in folders:
        merged.aside |= folder.aside
    for cell_id in sorted({cell_id for folder in given for cell_id in folder.records}):
        holders = [folder for folder in folders if cell_id in folder.records]
        sound = [folder for folder in holders if folder.records[cell_id].status == "ok"]
        merged.replaced += len(holders) - len(sound) if sound else 0
        if not sound:  # the newest says why it failed
            chosen = max(holders, key=lambda folder: folder.records[cell_id].ended)
        else:
            found = _conflicts(cell_id, sound)
            clashes = [one for one in found if not _rounded(one, sound)]
            merged.same += len(sound) - 1 - len(found)
            merged.rounded += len(found) - len(clashes)
            merged.conflicts += clashes
            if clashes and prefer is None:
                continue
            chosen = sound[-1] if clashes and prefer == "last" else sound[0]
        if chosen is own:
            merged.kept += 1
        elif own.records.get(cell_id) != chosen.records[cell_id]:
            _copy(chosen.records[cell_id], chosen.folder, own.folder)
            merged.copied += 1


def _conflicts(cell_id: str, holders: Sequence[Candidates]) -> list[Conflict]:
    first, *others = holders
    found = []
    for other in others:
        one, two = first.records[cell_id], other.records[cell_id]
        if different := differences(one, two):
            ground = unlike(one.environment, two.environment)
            places = first.folder.path, other.folder.path
            found.append(Conflict(one.label, cell_id, *places, tuple(different), ground))
    return found


def _rounded(conflict: Conflict, holders: Sequence[Candidates]) -> bool:
    """Return whether a conflict is one of rounding errors alone.

    Shards share full-precision cells and controls. Of unlike machines these differ in the last bits, which the cells
    that are read against them do not feel. Quantized weights are another matter: a rounding that fell to the other
    side makes another result.
    """
    records = {folder.folder.path: folder.records[conflict.cell_id] for folder in holders}
    one, two = records[conflict.first], records[conflict.second]
    if not conflict.unlike or one.axes["quantizer"] is not None or one.is_probe or one.loss is None or two.loss is None:
        return False
    return abs(one.loss - two.loss) <= FULL_PRECISION_FLOOR and not one.fallbacks and not two.fallbacks


def _copy(record: Record, source: RunFolder, destination: RunFolder) -> None:
    """Copy the weights, then the record: what a kill leaves is a cell without a record, which counts as missing."""
    if has_weights(record):
        data = source.weights_path(record.cell_id).read_bytes()
        if hashlib.sha256(data).hexdigest() != record.weights_sha256:
            raise StoreError(f"{source.weights_path(record.cell_id)} was changed meanwhile: merge again")
        atomic.write_bytes(destination.weights_path(record.cell_id), data)
    destination.write(record)


def _merge_repeats(sources: Sequence[Path], destination: Path, merged: Merged) -> None:
    """Give each repeat a place among the destination's: the first where it contradicts nothing, or a new one.

    So shards' repeats become one, those of other machines further ones, and a second merge finds what the first did.
    """
    for source in sources:
        taken: set[Path] = set()
        for path in repeat_folders(source):
            repeat = candidates(path)
            merged.aside |= repeat.aside
            if not repeat.records:
                continue
            own = _place_for(repeat, destination, taken)
            taken.add(own.folder.path)
            with own.folder.lock():
                _merge_into(own, [repeat], None, merged)


def _place_for(repeat: Candidates, destination: Path, taken: set[Path]) -> Candidates:
    present = repeat_folders(destination)
    for path in present:
        own = candidates(path)
        if path not in taken and not any(_conflicts(cell_id, [own, repeat]) for cell_id in _sound_in_both(own, repeat)):
            return own
    number = max((int(path.name) for path in present), default=0) + 1
    return Candidates(RunFolder(destination / "repeats" / str(number)))


def _sound_in_both(own: Candidates, repeat: Candidates) -> list[str]:
    shared = own.records.keys() & repeat.records.keys()
    return [one for one in shared if own.records[one].status == repeat.records[one].status == "ok"]
