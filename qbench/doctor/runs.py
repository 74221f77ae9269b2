"""Shipped suites and stored runs: what does not load, is held, broken or half there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qbench.doctor.finding import Finding, some
from qbench.errors import QBenchError, StoreError
from qbench.store.candidates import has_weights
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
    """Look through the run folders in a folder, and those of their repeats; weights are looked for, not hashed."""
    found = sorted(path for path in folder.glob("*") if (path / "records").is_dir()) if folder.is_dir() else []
    if not found:
        yield Finding("ok", "runs", f"none in {folder}")
    for path in found:
        problems = [one for place in (path, *repeat_folders(path)) for one in _problems(place, path.name)]
        yield from problems
        if not problems:
            count = len(list((path / "records").glob("[!.]*.json")))
            yield Finding("ok", "runs", f"{path}: {count} records")


def _problems(path: Path, suite: str) -> Iterator[Finding]:
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
    half = [file for place in ("records", "weights") for file in (path / place).glob(".*.tmp")]
    if half:
        said = f"{path}: {len(half)} half-written files of a run that was killed"
        yield Finding("warning", "runs", said, f"{again} clears them away")
    without = [
        record.label
        for cell_id, record in scan.records.items()
        if has_weights(record) and not RunFolder(path).weights_path(cell_id).is_file()
    ]
    if without:
        yield Finding("warning", "runs", f"{path}: no weights of {some(without, 2)}", f"{again} makes them again")
