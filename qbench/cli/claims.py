"""`qbench claims`: what stored records say of the claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options
from qbench.cli.runs import read_runs, require_names
from qbench.errors import QBenchError, UnknownNameError

if TYPE_CHECKING:
    from qbench.report.run import Run

_MADE_BY = "- Made by: `qbench claims"


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench claims theory_llm   |   qbench claims results/runs/mine --only C7,C9   |   "
        "qbench claims theory_llm theory_vision river_valley --write"
    )(claims)


def claims(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Suites, folders of records, or archives of them.", metavar="RUN", show_default=False),
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
    if write and only is not None:
        raise QBenchError("--write makes the page of all claims: leave out --only")
    known = all_claims()
    asked = list(known) if only is None else [name.strip() for name in only.split(",")]
    for name in asked:
        if name not in known:
            raise UnknownNameError("claim", name, known)
    found = read_runs(named, out=out)
    judged = {run.name: judge(run.records, [*run.places, *run.probes], asked) for run in found}
    wanted = {name: claim for name, claim in known.items() if name in asked}
    command = f"qbench claims {' '.join(named)} --write"
    if write:
        page = render_markdown(judged, wanted, command=command)
        options.write_table(options.table_path("claims"), page, _MADE_BY)
    if figures is not None:
        require_names(found, "--figures")
        _draw(found, figures)
    if json:
        options.print_json({name: [one.to_json() for one in found] for name, found in judged.items()})
    elif markdown:
        typer.echo(render_markdown(judged, wanted, command=command))
    elif not write:
        for name, verdicts in judged.items():
            options.show(f"== {name} ==\n\n{render_text(verdicts, wanted)}")


def _draw(runs: Sequence[Run], folder: Path) -> None:
    from qbench.report.figures.write import write_figures

    for run in runs:
        drawn = write_figures(run.records, folder / run.name, ("svg",))
        typer.echo(f"wrote {len(drawn)} figures to {folder / run.name}", err=True)
