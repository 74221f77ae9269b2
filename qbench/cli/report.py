"""`qbench report`: the leaderboard of stored records, in the form its reader needs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qbench import atomic
from qbench.cli import options
from qbench.cli.runs import read_runs, require_names
from qbench.errors import QBenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qbench.report.run import Run


class Format(StrEnum):
    """How a leaderboard is written."""

    TEXT = "text"
    MD = "md"
    CSV = "csv"
    JSON = "json"
    LATEX = "latex"
    PARQUET = "parquet"


_MADE_BY = "- Made by: `nox -s tables"
_OF_ROWS = (Format.CSV, Format.PARQUET)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench report llm_lowbit   |   qbench report llm_lowbit theory_llm --html report.html   |   "
        "qbench report llm_lowbit --format csv --cells --output cells.csv"
    )(report)


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Suites, folders of records, or archives of them (results/records/*.jsonl.xz).",
            metavar="RUN",
            show_default=False,
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", "-s", help="A shipped suite's name, or a path to a suite file.")
    ] = None,
    out: options.OutOption = None,
    seeds: options.SeedsOption = None,
    only: options.OnlyOption = None,
    form: Annotated[Format, typer.Option("--format", help="CSV and Parquet hold a row an entry, all digits.")] = (
        Format.TEXT
    ),
    cells: Annotated[bool, typer.Option("--cells", help="In CSV and Parquet: a row a cell, each seed apart.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write it to this file in place of the terminal.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write one HTML file that needs no network: tables, plots, every cell."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", help="Draw them as SVG: a folder for each run in this one.", show_default=False),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write results/tables/SUITE.md of each run.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Show what is stored; run nothing.

    A suite that was not run here is shown by its published records (results/records), and that is said.
    """
    named = [*(runs or []), *([suite] if suite is not None else [])]
    if not named:
        raise QBenchError("a report of what? name suites, or folders of records: `qbench report llm_lowbit`")
    if json and form not in (Format.TEXT, Format.JSON):
        raise QBenchError(f"--json and --format {form}: say one of them")
    form = Format.JSON if json else form
    if cells and form not in _OF_ROWS:
        raise QBenchError(f"--cells is for {' and '.join(_OF_ROWS)}, not --format {form}")
    if write and (only is not None or seeds is not None):
        raise QBenchError("--write makes the table of the whole suite: leave out --only and --seeds")
    if form is Format.PARQUET and output is None:
        raise QBenchError("Parquet is no text: say where it goes, such as --output leaderboard.parquet")
    found = read_runs(named, out=out, seeds=seeds, only=only, compared=html is not None)
    if write:
        require_names(found, "--write")
        for run in found:
            _write_table(run)
    if figures is not None:
        require_names(found, "--figures")
        _draw(found, figures)
    if html is not None:
        _write_page(found, html)
    shown = form is not Format.TEXT or output is not None or not (write or html or figures)
    if shown:
        _show(found, form, cells, output)


def _show(runs: Sequence[Run], form: Format, cells: bool, output: Path | None) -> None:
    content = _content(runs, form, cells)
    if output is not None:
        atomic.write_bytes(output, content if isinstance(content, bytes) else content.encode())
        typer.echo(f"wrote {output}", err=True)
    elif form is Format.TEXT:
        options.show(str(content).removesuffix("\n"))
    else:
        typer.echo(content, nl=False)


def _content(runs: Sequence[Run], form: Format, cells: bool) -> str | bytes:
    if form is Format.TEXT:
        return "\n".join(_text(run) for run in runs)
    if form is Format.MD:
        from qbench.report.markdown import render_markdown

        return "\n".join(render_markdown(run.board, command=run.command or None) for run in runs)
    if form is Format.JSON:
        found = [run.board.to_json() for run in runs]
        return options.to_json(found[0] if len(found) == 1 else found)
    if form is Format.LATEX:
        from qbench.report.latex import render_latex

        return render_latex(runs)
    if form is Format.CSV:
        from qbench.report.table_csv import render_csv

        return render_csv(runs, cells=cells)
    from qbench.report.parquet import parquet_bytes

    return parquet_bytes(runs, cells=cells)


def _text(run: Run) -> str:
    from qbench.report.probes import render_probes
    from qbench.report.text import render_text

    probes = render_probes(run.records, run.probes)
    return render_text(run.board, options.text_width()) + (f"\n{probes}\n" if probes else "")


def _write_table(run: Run) -> None:
    from qbench.report.markdown import render_markdown

    if missing := run.board.counts.get("missing"):
        raise QBenchError(f"{missing} cells have no record: `{run.command or 'qbench run'}` before --write")
    options.write_table(options.table_path(run.name), render_markdown(run.board, command="nox -s tables"), _MADE_BY)


def _draw(runs: Sequence[Run], folder: Path) -> None:
    from qbench.report.figures.board import write_board_figures

    for run in runs:
        drawn = write_board_figures(run, folder / run.name, ("svg",))
        typer.echo(f"wrote {len(drawn)} figures to {folder / run.name}", err=True)


def _write_page(runs: Sequence[Run], path: Path) -> None:
    from qbench.report.page.render import render_page

    if str(path) == "-":
        raise QBenchError("--html - is no file: name one, such as --html report.html")
    if path.is_dir():
        raise QBenchError(f"--html {path} is a folder: name a file in it, such as {path / 'report.html'}")
    page = render_page(runs)
    atomic.write_text(path, page)
    typer.echo(
        f"wrote {path} ({len(page.encode()) / 2**20:.1f} MiB): it opens in a browser, without a network", err=True
    )
