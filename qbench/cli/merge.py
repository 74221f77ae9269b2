"""`qbench merge`: several run folders made one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options

if TYPE_CHECKING:
    from qbench.store.merge import Conflict, Merged


class Prefer(StrEnum):
    """Whose result is taken where they differ."""

    FIRST = "first"
    LAST = "last"


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog="Example:  qbench merge shard1 shard2 --out results/runs/llm_lowbit")(merge)


def merge(
    sources: Annotated[list[Path], typer.Argument(help="Run folders: of shards, or of other machines.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder they are copied into; what it holds stays.")],
    prefer: Annotated[
        Prefer | None,
        typer.Option(
            help="Where results differ, take the first or the last; the destination's own come first.",
            show_default=False,
        ),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Copy the records and weights of several run folders into one; the sources stay as they are.

    Of a result that several have, one is kept; of a cell that failed in one and not in another, the sound one. Where
    results differ nothing of the cell is written, they are shown, and it ends with 1, unless one is preferred.
    """
    from qbench.store.merge import merge as merge_folders

    merged = merge_folders(sources, out, None if prefer is None else prefer.value)
    if json:
        options.print_json(_to_json(merged, out, prefer))
    else:
        _show(merged, out, prefer)
    if merged.conflicts and prefer is None:
        raise typer.Exit(1)


def _show(merged: Merged, out: Path, prefer: Prefer | None) -> None:
    for path, reason in merged.aside.items():
        typer.echo(f"warning: {path} is left aside: {reason}", err=True)
    for label, names in merged.pointless.items():
        typer.echo(f"warning: {label} read the weights of {', '.join(names)}, which {out} does not have", err=True)
    typer.echo(
        f"{out}: {merged.copied} records copied, {merged.kept} there already, {merged.same} more of the same result, "
        f"{merged.replaced} failed ones that another has, {merged.repeats} repeats"
    )
    if merged.rounded:
        typer.echo(f"{merged.rounded} full-precision records differ by another ground's rounding errors: one is kept")
    if merged.conflicts:
        from qbench.report.fitting import wrap

        lines = [wrap(line, options.line_width()) for conflict in merged.conflicts for line in _told(conflict)]
        typer.echo("\n" + "\n".join(lines))
        done = f"the {prefer} was taken" if prefer else "nothing of them was written (--prefer first|last takes one)"
        cells = len({conflict.cell_id for conflict in merged.conflicts})
        typer.echo(f"\n{cells} cell{'s have' if cells > 1 else ' has'} different results: {done}")


def _told(conflict: Conflict) -> list[str]:
    what, first, second = conflict.differences[0]
    more = f" (and {len(conflict.differences) - 1} more)" if len(conflict.differences) > 1 else ""
    ground = ", ".join(f"{name}: {one} / {other}" for name, (one, other) in conflict.unlike.items())
    return [
        conflict.label,
        f"  {what}{more}: {first} ({conflict.first}), {second} ({conflict.second})",
        f"  ground: {ground or 'equal: the same bytes were to be expected'}",
    ]


def _to_json(merged: Merged, out: Path, prefer: Prefer | None) -> dict[str, object]:
    return {
        "out": str(out),
        "copied": merged.copied,
        "kept": merged.kept,
        "same": merged.same,
        "rounded": merged.rounded,
        "replaced": merged.replaced,
        "repeats": merged.repeats,
        "prefer": None if prefer is None else prefer.value,
        "conflicts": [
            {
                "label": one.label,
                "cell_id": one.cell_id,
                "first": str(one.first),
                "second": str(one.second),
                "differences": [different._asdict() for different in one.differences],
                "ground": {name: list(values) for name, values in one.unlike.items()},
            }
            for one in merged.conflicts
        ],
        "aside": {str(path): reason for path, reason in merged.aside.items()},
        "missing_points": merged.pointless,
    }
