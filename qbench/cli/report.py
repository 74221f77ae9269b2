"""`qbench report`: the leaderboard of stored records."""

from __future__ import annotations

from typing import Annotated

import typer

from qbench.cli import options, records
from qbench.cli.selection import select
from qbench.errors import QBenchError


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog="Examples:  qbench report --suite llm_lowbit   |   qbench report --suite llm_lowbit --write")(
        report
    )


def report(
    suite: options.SuiteOption,
    out: options.OutOption = None,
    seeds: options.SeedsOption = None,
    only: options.OnlyOption = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write results/tables/SUITE.md.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Print the leaderboard of what is stored; run nothing."""
    from qbench.report.leaderboard import leaderboard
    from qbench.report.markdown import render_markdown
    from qbench.report.probes import render_probes
    from qbench.report.text import render_text
    from qbench.suite.enumerate import places

    if write and (only is not None or seeds is not None):
        raise QBenchError("--write makes the table of the whole suite: leave out --only and --seeds")
    loaded, cells = select(suite, seeds, only)
    found = records.current(loaded, cells, out)
    board = leaderboard(found, places(cells))
    if write:
        if missing := board.to_json()["counts"].get("missing"):
            raise QBenchError(f"{missing} cells have no record: `qbench run --suite {suite}` before --write")
        page = render_markdown(board, command="nox -s tables -- --suite " + suite + " --write")
        options.write_table(options.table_path(loaded.name), page, "- Made by: `nox -s tables")
    if json:
        options.print_json(board.to_json())
    elif markdown:
        typer.echo(render_markdown(board))
    elif not write:
        typer.echo(render_text(board))
        if probes := render_probes(found, cells):
            typer.echo("\n" + probes)
