"""Options that several verbs share, and where results are kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from qbench import atomic
from qbench.errors import QBenchError

SuiteOption = Annotated[str, typer.Option("--suite", "-s", help="A shipped suite's name, or a path to a suite file.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder of the records  [default: results/runs/SUITE]", show_default=False)
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        "--only", help="Some cells only, such as 'method=gptq|rtn,bits=2'; axes: model, quantizer, bits, method, seed."
    ),
]
SeedsOption = Annotated[int | None, typer.Option("--seeds", min=1, help="Seeds 0..N-1 in place of the suite's own.")]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", help="One of n parts of the cells, such as 2/4, for n machines; see `qbench merge`."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")]


def console() -> Console:
    """Return where messages go: stderr, as they are."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def text_width() -> int:
    """Return how many columns tables may take: those of the terminal, from 80 to 120; 80 where there is none."""
    out = Console()
    return max(80, min(out.width, 120)) if out.is_terminal else 80


def line_width() -> int:
    """Return how long a line about one thing may be: no limit where a program reads it, a line a thing."""
    return text_width() if Console().is_terminal else sys.maxsize


def show(text: str) -> None:
    """Print what renderers give: with colours in a terminal, as it is to a file or where NO_COLOR asks for that."""
    out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not out.is_terminal or out.no_color:
        typer.echo(text)
        return
    from qbench.report.paint import paint

    out.print(paint(text))


def results_folder() -> Path:
    """Return ``results/`` of the present folder: in a checkout, the one that git keeps."""
    return Path("results")


def run_path(suite: str, out: Path | None) -> Path:
    """Return the folder of a suite's records."""
    return out if out is not None else results_folder() / "runs" / suite


def baseline_path(suite: str) -> Path:
    """Return where a suite's baseline is kept."""
    return results_folder() / "baselines" / f"{suite}.json"


def table_path(suite: str) -> Path:
    """Return where a suite's table is kept."""
    return results_folder() / "tables" / f"{suite}.md"


def write_table(path: Path, page: str, made_by: str) -> None:
    """Write a page, and say so.

    Parameters
    ----------
    path : Path
        Where.
    page : str
        Markdown.
    made_by : str
        How pages of this kind say which command made them.

    Raises
    ------
    QBenchError
        A file is there that says no such thing.
    """
    if path.exists() and made_by not in path.read_text(encoding="utf-8", errors="replace"):
        raise QBenchError(f"{path} was not made by qbench: it is not overwritten")
    atomic.write_text(path, page)
    typer.echo(f"wrote {path}", err=True)


def to_json(value: Any) -> str:
    """Return a value as JSON, with a newline at its end; NaN and infinities are spelled as in records."""
    from qbench.store import floats

    return json.dumps(floats.spell(value), indent=1, sort_keys=True) + "\n"


def print_json(value: Any) -> None:
    """Print a value as JSON; see `to_json`."""
    typer.echo(to_json(value), nl=False)
