"""What the verbs that compare with a baseline share: which part of it, in which form, and where it goes."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qbench import atomic
from qbench.cli import options
from qbench.errors import StoreError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from qbench.store.baseline import Baseline
    from qbench.store.comparison import Comparison
    from qbench.store.record import Record
    from qbench.store.results import Results
    from qbench.suite.schema import Suite

SUMMARY = "GITHUB_STEP_SUMMARY"


class Format(StrEnum):
    """How a comparison is written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"
    JUNIT = "junit"


FormatOption = Annotated[
    Format, typer.Option("--format", help="Markdown has changed cells only, ready for a comment; JUnit a case a cell.")
]
CommentOption = Annotated[
    Path | None,
    typer.Option("--comment", help="Write the Markdown to this file, too, in one step.", show_default=False),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        "--against",
        help="Compare with the baseline of this class of device, such as 'cpu x86_64'  [default: that of the records]",
        show_default=False,
    ),
]


def read(suite: str) -> Baseline | None:
    """Return the baseline of a suite, or None when there is none.

    Parameters
    ----------
    suite : str
        The suite's name.

    Raises
    ------
    StoreError
        It cannot be read.
    """
    from qbench.store.baseline import read_baseline

    path = options.baseline_path(suite)
    if not path.exists():
        return None
    found = read_baseline(path)
    if found.suite != suite:
        raise StoreError(f"{path} is the baseline of {found.suite!r} (allowed: {suite!r})")
    return found


def whole(suite: Suite, *parts: object) -> set[str] | None:
    """Return every label that a suite runs; None where only a part of it was asked for.

    Parameters
    ----------
    suite : Suite
        All of it.
    *parts : object
        What ``--only``, ``--seeds`` and ``--shard`` were given.
    """
    from qbench.suite.enumerate import enumerate_cells, measured_labels

    if any(part is not None for part in parts):
        return None
    return measured_labels(enumerate_cells(suite))


def choose(baseline: Baseline, records: Iterable[Record], against: str | None = None) -> tuple[str, Results | None]:
    """Return the class of device to compare with, and its part of a baseline, None where that has none.

    Parameters
    ----------
    baseline : Baseline
        Of the suite.
    records : iterable of Record
        What is compared.
    against : str, optional
        The class that the caller named.

    Raises
    ------
    StoreError
        The named class is not in the baseline, the records do not say which class is meant, or the baseline was edited
        since it was blessed.
    """
    from qbench.store.gathering import classes_of

    edited = [name for name, part in sorted(baseline.devices.items()) if not part.intact]
    if edited:
        date = baseline.devices[edited[0]].history[-1].date
        raise StoreError(
            f"{options.baseline_path(baseline.suite)}: its part of {edited[0]} is not what was blessed on {date}, but "
            "was edited since: restore the file, or bless again"
        )
    if against is not None:
        if against not in baseline.devices:
            raise StoreError(f"--against {against!r}: no such class of device{nearest(against, baseline.devices)}")
        return against, baseline.devices[against]
    classes = classes_of(records) or list(baseline.devices)
    if len(classes) != 1:
        found = ", ".join(classes) or "none"
        raise StoreError(f"records or baseline are of several classes of device ({found}): say --against which")
    return classes[0], baseline.devices.get(classes[0])


def absent(suite: str, baseline: Baseline | None, given: str, device: str) -> str:
    """Return what to say where there is nothing to compare with.

    Parameters
    ----------
    suite : str
        The suite's name.
    baseline : Baseline or None
        Of the suite, if there is one.
    given : str
        How the caller named the suite.
    device : str
        The class of device of the records.
    """
    path = options.baseline_path(suite)
    if baseline is None or not baseline.devices:
        return f"no baseline at {path}: `qbench bless --suite {given}` makes one"
    held = " or ".join(f"--against '{name}'" for name in sorted(baseline.devices))
    return f"{path} has no baseline of {device}: `qbench bless --suite {given}` adds one, {held} compares across"


@dataclass(frozen=True)
class Outcome:
    """What a run says of the baseline at its end.

    Attributes
    ----------
    comparison : Comparison or None
        None where there is nothing to compare with.
    text : str
        What to print.
    refusal : StoreError or None
        Why nothing was compared although there is a baseline; to be raised when all else is printed.
    """

    comparison: Comparison | None
    text: str
    refusal: StoreError | None = None

    @property
    def expected(self) -> set[str]:
        """Return the labels of known failures that failed again."""
        rows = () if self.comparison is None else self.comparison.rows
        return {row.label for row in rows if row.verdict == "expected"}

    @property
    def passed(self) -> bool:
        """Whether nothing is red."""
        return self.comparison is None or self.comparison.passed


def after_run(
    baseline: Baseline | None,
    records: Collection[Record],
    labels: Collection[str],
    given: str,
    *,
    name: str,
    only: str | None = None,
    seeds: int | None = None,
    suite_labels: Collection[str] | None = None,
) -> Outcome:
    """Compare what a run made with the baseline, and publish the Markdown of it.

    Parameters
    ----------
    baseline : Baseline or None
        Of the suite, if there is one.
    records : collection of Record
        What the run made, and what was stored before.
    labels : collection of str
        The cells that it had to make.
    given : str
        How the caller named the suite.
    name : str
        The suite's name.
    only, seeds : str or None, int or None
        How the caller chose cells.
    suite_labels : collection of str, optional
        See `whole`.
    """
    from qbench.store.comparison import compare

    if baseline is None:
        return Outcome(None, absent(name, None, given, ""))
    try:
        device, results = choose(baseline, records)
    except StoreError as error:
        return Outcome(None, f"not compared: {error}", error)
    if results is None:
        return Outcome(None, absent(name, baseline, given, device))
    found = compare(records, results, labels, suite=name, device=device, suite_labels=suite_labels)
    publish(show(found, given, form=Format.MARKDOWN, only=only, seeds=seeds))
    return Outcome(found, show(found, given, only=only, seeds=seeds))


def show(
    comparison: Comparison,
    given: str,
    *,
    form: Format = Format.TEXT,
    everything: bool = False,
    only: str | None = None,
    seeds: int | None = None,
) -> str:
    """Return a comparison in the asked form.

    Parameters
    ----------
    comparison : Comparison
        What was found.
    given : str
        How the caller named the suite.
    form : Format
        Any but JSON.
    everything : bool
        Whether the text shows every row.
    only, seeds : str or None, int or None
        How the caller chose cells.
    """
    from qbench.report.comparison import render_comparison
    from qbench.report.comparison_markdown import render_comparison_markdown
    from qbench.report.junit import render_junit

    chosen = [*(["--only", only] if only else []), *(["--seeds", str(seeds)] if seeds else [])]
    run = shlex.join(["qbench", "run", "--suite", given, *chosen])
    bless = shlex.join(["qbench", "bless", "--suite", given, *(["--only", only] if only else []), "--reason", "WHY"])
    if form is Format.MARKDOWN:
        return render_comparison_markdown(comparison, run=run, bless=bless)
    if form is Format.JUNIT:
        return render_junit(comparison)
    return render_comparison(comparison, everything=everything, bless=bless)


def publish(page: str, comment: Path | None = None) -> None:
    """Append a page to the summary of a GitHub job, where the environment names one, and write it as a comment.

    Parameters
    ----------
    page : str
        Markdown.
    comment : Path, optional
        The file to write.
    """
    summary = os.environ.get(SUMMARY)
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(page + "\n")
    if comment is not None:
        atomic.write_text(comment, page)
        typer.echo(f"wrote {comment}", err=True)
