"""What a report is asked of: a suite's own run, its published records, a folder, or an archive."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from qbench.cli import comparing, options, records
from qbench.cli.selection import select
from qbench.errors import QBenchError, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from qbench.report.run import Run
    from qbench.store.archive import Archive
    from qbench.suite.cell import Cell
    from qbench.suite.schema import Suite
    from qbench.suite.xref import Xref


def read_runs(
    given: Sequence[str],
    *,
    out: Path | None = None,
    seeds: int | None = None,
    only: str | None = None,
    compared: bool = False,
) -> list[Run]:
    """Return the runs that a caller named.

    Parameters
    ----------
    given : sequence of str
        Names of suites, suite files, folders of records, archives; what stands there twice counts once. Several runs of
        one suite are told apart by what was given.
    out : Path, optional
        The folder of one suite's records.
    seeds, only : int or None, str or None
        Which cells of suites; see `select`.
    compared : bool
        Whether they are compared with their baselines.

    Raises
    ------
    QBenchError
        `out`, `seeds` or `only` with something that they cannot choose from.
    StoreError
        There are no records, or they cannot be read.
    """
    names = list(dict.fromkeys(given))
    if out is not None and (len(names) > 1 or _is_stored(names[0])):
        raise QBenchError("--out is the folder of one suite's records: name one suite, and no folder")
    chosen = [option for option, value in (("--seeds", seeds), ("--only", only)) if value is not None]
    if chosen and (stored := next(filter(_is_stored, names), None)):
        raise QBenchError(f"{' and '.join(chosen)}: for suites only, which {stored} is none of")
    runs = [_read(name, out, seeds, only, compared) for name in names]
    counts = Counter(run.name for run in runs)
    return [replace(run, name=given) if counts[run.name] > 1 else run for run, given in zip(runs, names, strict=True)]


def require_names(runs: Sequence[Run], option: str) -> None:
    """Make sure that each run can have a file of its name.

    Raises
    ------
    QBenchError
        Several are of one suite.
    """
    if path := next((run.name for run in runs if Path(run.name).name != run.name), None):
        raise QBenchError(f"{option} names files by the suite, and {path} is of the same as another: name one of them")


def published_path(suite: str) -> Path:
    """Return where the published records of a suite are kept."""
    from qbench.store.archive import SUFFIX

    return options.results_folder() / "records" / f"{suite}{SUFFIX}"


def _is_stored(name: str) -> bool:
    from qbench.store.archive import is_archive

    return Path(name).is_dir() or is_archive(Path(name))


def _read(name: str, out: Path | None, seeds: int | None, only: str | None, compared: bool) -> Run:
    from qbench.report.run import Run
    from qbench.store.archive import is_archive, read_archive
    from qbench.suite.enumerate import places, probe_places

    path = Path(name)
    if path.is_dir():
        scan = records.scanned(path)
        if not scan.records:
            raise StoreError(f"{path} holds no records: name a folder that `qbench run` wrote, or a suite")
        damaged = [f"{file.name} ({reason})" for file, reason in scan.corrupt.items()]
        return Run(path.name, list(scan.records.values()), origin=str(path), damaged=damaged)
    if is_archive(path):
        run = _published(read_archive(path), path)
        return _compared(run, run.name, None) if compared else run
    suite, cells = select(name, seeds, only)
    published = published_path(suite.name)
    if out is None and not options.run_path(suite.name, None).exists() and published.exists():
        run = replace(_chosen(_published(read_archive(published), published), cells), xref=suite.xref)
        typer.echo(_told(run, suite, published, name), err=True)
    else:
        found = records.current(suite, cells, out)
        run = Run(
            suite.name,
            found,
            places(cells),
            probe_places(cells),
            origin=str(options.run_path(suite.name, out)),
            command=f"qbench run --suite {name}",
            xref=suite.xref,
        )
    whole = comparing.whole(suite, only, seeds)
    return _compared(run, name, whole) if compared else run


def _published(archive: Archive, path: Path) -> Run:
    from qbench.report.run import Run

    return Run(
        archive.suite,
        archive.records,
        archive.places,
        archive.probes,
        origin=str(path),
        command=f"qbench run --suite {archive.suite}",
        xref=_xref_of(archive.suite),
    )


def _xref_of(suite: str) -> Sequence[Xref]:
    """Return the published numbers that a shipped suite of this name has; an archive holds none."""
    from qbench.suite.load import load_suite

    try:
        return load_suite(suite).xref
    except QBenchError:  # no suite of that name is known here, or not in this form
        return ()


def _chosen(run: Run, cells: Sequence[Cell]) -> Run:
    """Return the part of published records that cells of the suite of today are about."""
    from qbench.suite.enumerate import places, probe_places

    labels = {cell.label() for cell in cells}
    kept = [record for record in run.records if record.label in labels]
    return replace(run, records=kept, places=places(cells), probes=probe_places(cells))


def _told(run: Run, suite: Suite, path: Path, given: str) -> str:
    dates = sorted({record.ended[:10] for record in run.records} - {""})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "no date"
    return (
        f"no run of {suite.name} here: these are its published records, {path} ({when}); "
        f"`qbench run --suite {given}` makes your own"
    )


def _compared(run: Run, given: str, whole: Collection[str] | None) -> Run:
    """Return a run with what its baseline says of it."""
    from qbench.store.comparison import compare
    from qbench.suite.cell import cell_label

    baseline = comparing.read(run.name)
    if baseline is None:
        return replace(run, uncompared=comparing.absent(run.name, None, given, ""))
    try:
        device, results = comparing.choose(baseline, run.records)
    except StoreError as error:
        return replace(run, uncompared=str(error))
    if results is None:
        return replace(run, uncompared=comparing.absent(run.name, baseline, given, device))
    labels = {cell_label(dict(axes)) for axes in run.places if axes.get("skip") is None}
    found = compare(run.records, results, labels, suite=run.name, device=device, suite_labels=whole)
    return replace(run, comparison=found)
