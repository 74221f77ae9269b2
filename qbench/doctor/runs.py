"""Shipped suites and stored runs: what does not load, is held, broken or half there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qbench.doctor.finding import Finding, some
from qbench.errors import QBenchError, StoreError
from qbench.store.candidates import weights_problem
from qbench.store.folder import RunFolder, repeat_folders
from qbench.store.lock import hold


def suites() -> Iterator[Finding]:
    """Read and enumerate every shipped suite."""
    from qbench.suite.enumerate import enumerate_cells
    from qbench.suite.load import list_suites, load_suite

    sound = []
    for name in list_suites():
        try:
            enumerate_cells(load_suite(name))
            sound.append(name)
        except QBenchError as error:
            yield Finding("broken", "suites", str(error), f"qbench validate {name}")
    if sound:
        yield Finding("ok", "suites", f"{some(sound, 20)}: sound")
    else:
        yield Finding("broken", "suites", "none is shipped", "pip install --force-reinstall qbench")


def runs(folder: Path) -> Iterator[Finding]:
    """Look through the run folders in a folder, and those of their repeats; every file of weights is hashed."""
    found = sorted(path for path in folder.glob("*") if (path / "records").is_dir()) if folder.is_dir() else []
    if not found:
        yield Finding("ok", "runs", f"none in {folder}")
    for path in found:
        known = cells_today(path.name)
        problems = [one for place in (path, *repeat_folders(path)) for one in _problems(place, path.name, known)]
        yield from problems
        stored = {file.stem for file in (path / "records").glob("[!.]*.json")}
        stale = 0 if known is None else len(stored - known)
        if stale or not problems:
            aside = f", {stale} of them of older code, data or options: they are left aside" if stale else ""
            yield Finding("ok", "runs", f"{path}: {len(stored)} records{aside}")


def cells_today(suite: str) -> set[str] | None:
    """Return the ids of a shipped suite's cells as they are today.

    Returns
    -------
    set of str or None
        None where no such suite is shipped, or what its cells are made of is not on this machine.
    """
    from qbench.runner.identity import identify
    from qbench.suite.enumerate import enumerate_cells
    from qbench.suite.load import list_suites, load_suite

    if suite not in list_suites():
        return None
    try:
        return {identify(cell).cell_id for cell in enumerate_cells(load_suite(suite)) if cell.skip is None}
    except QBenchError:
        return None  # said under suites, or under assets


def _problems(path: Path, suite: str, known: set[str] | None) -> Iterator[Finding]:
    again = f"qbench run --suite {suite}" if path.name == suite else f"qbench repeat --suite {suite}"
    if (path / ".lock").exists():
        try:
            with hold(path):
                pass
        except StoreError as error:
            yield Finding("warning", "runs", str(error))
            return
    try:
        scan = RunFolder(path).scan()
    except StoreError as error:
        yield Finding("warning", "runs", str(error), "pip install --upgrade qbench")
        return
    if scan.corrupt:
        file, reason = next(iter(scan.corrupt.items()))
        said = f"{path}: {len(scan.corrupt)} files are no records, such as {file.name} ({reason:.120})"
        yield Finding("warning", "runs", said, f"{again} makes their cells again")
    left = RunFolder(path).checkpoints()
    lost = [] if known is None else [cell_id for cell_id in left if cell_id not in known]
    if lost:
        size = sum(RunFolder(path).checkpoint_path(cell_id).stat().st_size for cell_id in lost)
        names = some([f"{cell_id[:12]}.." for cell_id in lost], 2)
        said = f"{path}: {len(lost)} checkpoints of cells that the suite has no more ({names}; {size / 1e6:.1f} MB)"
        yield Finding("warning", "runs", said, f"remove them from {path / 'checkpoints'}")
    half = [file for place in ("records", "weights", "checkpoints") for file in (path / place).glob(".*.tmp")]
    if half:
        said = f"{path}: {len(half)} half-written files of a run that was killed"
        yield Finding("warning", "runs", said, f"{again} clears them away")
    folder = RunFolder(path)
    gone, other = list[str](), list[str]()
    for cell_id, record in scan.records.items():
        # No run makes the weights of older code again: such a record is left aside.
        if (known is None or cell_id in known) and weights_problem(record, folder) is not None:
            (other if folder.weights_path(cell_id).exists() else gone).append(record.label)
    if gone:
        yield Finding("warning", "runs", f"{path}: no weights of {some(gone, 2)}", f"{again} makes them again")
    if other:
        said = f"{path}: the weights of {some(other, 2)} are not those that the records tell of"
        yield Finding("warning", "runs", said, f"{again} makes them again")
