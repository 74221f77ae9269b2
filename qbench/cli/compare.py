"""`qbench compare`: stored records against the baseline."""

from __future__ import annotations

from typing import Annotated

import typer

from qbench.cli import comparing, options, records
from qbench.cli.comparing import Format
from qbench.cli.selection import select
from qbench.errors import QBenchError, StoreError


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench compare --suite llm_lowbit   |   qbench compare -s llm_lowbit --only bits=2 --all   "
        "|   qbench compare -s llm_lowbit --format junit > report.xml"
    )(compare)


def compare(
    suite: options.SuiteOption,
    out: options.OutOption = None,
    only: options.OnlyOption = None,
    seeds: options.SeedsOption = None,
    against: comparing.AgainstOption = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Other quantized weights on equal ground are red, too.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show every row, not only the worst.")] = False,
    form: comparing.FormatOption = Format.TEXT,
    comment: comparing.CommentOption = None,
    json: options.JsonOption = False,
) -> None:
    """Compare what is stored with the baseline; ends with 1 where anything changed, for better or worse.

    Full precision is looked at first. Each other cell is judged by its loss above full precision of the same run:
    against the noise that was measured when the baseline was blessed, and document by document.

    Where the environment variable GITHUB_STEP_SUMMARY names a file, the Markdown is appended to it.
    """
    from qbench.store.comparison import compare as compare_records
    from qbench.suite.enumerate import measured_labels

    if json and form not in (Format.TEXT, Format.JSON):
        raise QBenchError(f"--json and --format {form}: say one of them")
    loaded, cells = select(suite, seeds, only)
    baseline = comparing.read(loaded.name)
    if baseline is None:
        raise StoreError(comparing.absent(loaded.name, None, suite, ""))
    labels = measured_labels(cells)
    held = records.current(loaded, cells, out)
    device, results = comparing.choose(baseline, held, against)
    if results is None:
        raise StoreError(comparing.absent(loaded.name, baseline, suite, device))
    suite_labels = comparing.whole(loaded, only, seeds)
    found = compare_records(
        held, results, labels, suite=loaded.name, device=device, exact=exact, suite_labels=suite_labels
    )
    if json or form is Format.JSON:
        options.print_json(found.to_json())
    else:
        said = comparing.show(found, suite, form=form, everything=everything, only=only, seeds=seeds)
        options.show(said) if form is Format.TEXT else typer.echo(said)
    comparing.publish(comparing.show(found, suite, form=Format.MARKDOWN, only=only, seeds=seeds), comment)
    if not found.passed:
        raise typer.Exit(1)
