"""`qbench claims`: what stored records say of the claims."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options, records
from qbench.cli.selection import select
from qbench.errors import QBenchError, StoreError, UnknownNameError

if TYPE_CHECKING:
    from qbench.store.record import Record

_MADE_BY = "- Made by: `qbench claims"


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench claims theory_llm   |   qbench claims results/runs/mine --only C7,C9   |   "
        "qbench claims theory_llm theory_vision river_valley --write"
    )(claims)


def claims(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Suites, or folders of records.", metavar="RUN", show_default=False)
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", "-s", help="A shipped suite's name, or a path to a suite file.")
    ] = None,
    out: options.OutOption = None,
    only: Annotated[str | None, typer.Option("--only", help="Some claims only, such as 'C7,C9'.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write results/tables/claims.md.")] = False,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", help="Draw them as SVG: a folder for each run in this one.", show_default=False),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Judge every claim by what is stored; run nothing. It ends well whatever the verdicts are."""
    from qbench.claims.catalogue import all_claims, judge
    from qbench.report.claims import render_markdown, render_text

    named = [*(runs or []), *([suite] if suite is not None else [])]
    if not named:
        raise QBenchError("claims of what? name suites, or folders of records: `qbench claims theory_llm`")
    if out is not None and (len(named) > 1 or Path(named[0]).is_dir()):
        raise QBenchError("--out is the folder of one suite's records: name one suite, and no folder")
    if write and only is not None:
        raise QBenchError("--write makes the page of all claims: leave out --only")
    known = all_claims()
    asked = list(known) if only is None else [name.strip() for name in only.split(",")]
    for name in asked:
        if name not in known:
            raise UnknownNameError("claim", name, known)
    runs_of = {name: _read(name, out) for name in dict.fromkeys(named)}
    judged = {name: judge(found, expected, asked) for name, (found, expected) in runs_of.items()}
    wanted = {name: claim for name, claim in known.items() if name in asked}
    command = f"qbench claims {' '.join(judged)} --write"
    if write:
        page = render_markdown(judged, wanted, command=command)
        options.write_table(options.table_path("claims"), page, _MADE_BY)
    if figures is not None:
        _draw({name: found for name, (found, _) in runs_of.items()}, figures)
    if json:
        options.print_json({name: [one.to_json() for one in found] for name, found in judged.items()})
    elif markdown:
        typer.echo(render_markdown(judged, wanted, command=command))
    elif not write:
        for name, verdicts in judged.items():
            typer.echo(f"== {name} ==\n\n{render_text(verdicts, wanted)}")


def _draw(runs: Mapping[str, list[Record]], folder: Path) -> None:
    from qbench.report.figures.write import write_figures

    for name, found in runs.items():
        drawn = write_figures(found, folder / Path(name).stem, ("svg",))
        typer.echo(f"wrote {len(drawn)} figures to {folder / Path(name).stem}", err=True)


def _read(run: str, out: Path | None) -> tuple[list[Record], list[dict[str, str | int | None]]]:
    """Return the records of a run, and the axes of the cells it should have where it is a suite."""
    from qbench.suite.enumerate import axes_of

    if not Path(run).is_dir():
        loaded, cells = select(run)
        return records.current(loaded, cells, out), axes_of(cells)
    held = records.stored(Path(run))
    if not held:
        raise StoreError(f"{run} holds no records: name a folder that `qbench run` wrote, or a suite")
    return list(held.values()), []
