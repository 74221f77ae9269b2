"""`qbench archive`: the records of a run in one file that git keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options, records
from qbench.cli.runs import published_path
from qbench.cli.selection import select
from qbench.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qbench.store.record import Record


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog="Examples:  qbench archive llm_lowbit   |   qbench archive mine.yaml --out results/runs/mine")(
        archive
    )


def archive(
    suite: Annotated[str, typer.Argument(help="A shipped suite's name, or a path to a suite file.")],
    out: options.OutOption = None,
) -> None:
    """Pack a run's records into results/records/SUITE.jsonl.xz, which git keeps; `nox -s tables` makes tables of it.

    Records say how each number was made; weights and repeats stay where they are. A run that is not whole is refused.
    """
    from qbench.store.archive import Archive, write_archive
    from qbench.suite.enumerate import places, probe_places

    loaded, cells = select(suite)
    found = records.current(loaded, cells, out)
    held = {record.label for record in found}
    missing = [cell.label() for cell in cells if cell.skip is None and cell.label() not in held]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise StoreError(f"no record of {missing[0]}{more}: `qbench run --suite {suite}` makes what is missing")
    path = published_path(loaded.name)
    change = _change(path, found)
    write_archive(path, Archive(loaded.name, places(cells), probe_places(cells), found))
    typer.echo(f"wrote {path}: {len(found)} records{change}", err=True)


def _change(path: Path, found: Sequence[Record]) -> str:
    """Return how many results are others than in the file that is replaced."""
    from qbench.store.archive import read_archive
    from qbench.store.same_result import differences

    if not path.exists():
        return ""
    before = {record.label: record for record in read_archive(path).records}
    now = {record.label: record for record in found}
    changed = sum(bool(differences(before[label], now[label])) for label in before.keys() & now.keys())
    told = {"changed": changed, "new": len(now.keys() - before.keys()), "gone": len(before.keys() - now.keys())}
    said = ", ".join(f"{count} {word}" for word, count in told.items() if count)
    return f" ({said or 'the same results as before'})"
