"""The records that stand for a suite as it is now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from qbench.cli import options
from qbench.errors import StoreError

if TYPE_CHECKING:
    from qbench.store.folder import Scan
    from qbench.store.record import Record
    from qbench.suite.cell import Cell
    from qbench.suite.schema import Suite


def stored(path: Path) -> dict[str, Record]:
    """Return the records in a folder by cell id, and tell of files that are none."""
    return scanned(path).records


def scanned(path: Path) -> Scan:
    """Return what is in a folder, and tell of files that are no records."""
    from qbench.store.folder import RunFolder

    scan = RunFolder(path).scan()
    for file, reason in scan.corrupt.items():
        typer.echo(f"warning: {file} is no record ({reason}): it is left aside", err=True)
    return scan


def current(suite: Suite, cells: list[Cell], out: Path | None) -> list[Record]:
    """Return the stored records whose identity is that of the suite's cells today, and tell of those left aside.

    Raises
    ------
    StoreError
        The folder holds no such record.
    """
    from qbench.runner.identity import identify
    from qbench.suite.enumerate import enumerate_cells
    from qbench.suite.load import list_suites

    folder = options.run_path(suite.name, out)
    held = stored(folder)
    wanted = {identify(cell).cell_id for cell in cells if cell.skip is None}
    known = wanted | {identify(cell).cell_id for cell in enumerate_cells(suite) if cell.skip is None}
    stale = sum(cell_id not in known for cell_id in held)
    found = [record for cell_id, record in held.items() if cell_id in wanted]
    if not found:
        there = f" ({len(held)} others are there, {stale} of them of older code, data or options)" if held else ""
        given = suite.name if list_suites().get(suite.name) == suite.file else suite.file
        raise StoreError(f"{folder} holds no record of {suite.name}{there}: `qbench run --suite {given}`")
    if stale:
        typer.echo(f"{stale} records of older code, data or options are left aside", err=True)
    return found
