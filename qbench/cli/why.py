"""`qbench why`: why a cell is run again, or why it is not."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated

import typer

from qbench.cli import options
from qbench.cli.selection import select
from qbench.errors import QBenchError

if TYPE_CHECKING:
    from qbench.runner.identity import PlannedCell
    from qbench.runner.why import Finding
    from qbench.suite.cell import Cell

_SHORTEST_PREFIX = 6
_MOST_PARTS = 12


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog="Example:  qbench why 'llama-1m/mse[per_channel]/4b/gptq/s0' --suite smoke")(why)


def why(
    cell: Annotated[str, typer.Argument(help="A cell's label, its id, or the first 6 or more letters of the id.")],
    suite: options.SuiteOption,
    out: options.OutOption = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="Show every record of the label, not the newest alone.")
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Tell whether a stored record stands for a cell; where none does, in what the newest of its label differs.

    JSON has every record of the label, with all parts.
    """
    from qbench.runner.why import explain
    from qbench.store.folder import RunFolder

    loaded, cells = select(suite)
    folder = RunFolder(options.run_path(loaded.name, out))
    planned = _find(cell, cells, folder)
    found = explain(planned, folder)
    hit = bool(found) and found[0].state == "hit"
    if json:
        options.print_json(
            {
                "label": planned.cell.label(),
                "cell_id": planned.cell_id,
                "hit": hit,
                "record": str(folder.record_path(planned.cell_id)) if hit else None,
                "found": [
                    {
                        "state": one.state,
                        "cell_id": one.cell_id,
                        "label": one.label,
                        "ended": one.ended,
                        "reason": one.reason,
                        "parts": [vars(part) for part in one.parts],
                    }
                    for one in found
                ],
            }
        )
        return
    typer.echo(f"{planned.cell.label()} ({planned.cell_id[:12]})")
    label = planned.cell.label()
    if show_all or all(one.label != label for one in found):
        shown = found
    else:  # the record that was asked for by its id, or the newest
        shown = [next((one for one in found if one.cell_id.startswith(cell)), found[0])]
    if hit:
        path = folder.record_path(planned.cell_id)
        typer.echo(f"  is stored: {path}, run {found[0].ended[:19]}; it is not run again")
        for one in shown:
            if one is not found[0]:
                _show(one, label)
        return
    if not found:
        typer.echo(f"  is to be run: {folder.path} holds nothing like it")
    elif found[0].label != label:
        typer.echo(f"  is to be run: {folder.path} holds no record of this label; the nearest are")
    for one in shown:
        _show(one, label)
    if others := len(found) - len(shown):
        typer.echo(f"  and {others} more records of this label, of other keys (--all shows them)")


def _show(found: Finding, label: str) -> None:
    when = f", run {found.ended[:19]}" if found.ended else ""
    if found.state != "other key":
        typer.echo(f"  is run again: its record{when} does not count: {found.reason}")
        return
    other = "" if found.label == label else f" of {found.label}"
    typer.echo(f"  record {found.cell_id[:12]}{other}{when}, is of another key:")
    for part in found.parts[:_MOST_PARTS]:
        typer.echo(f"    {part}")
    if len(found.parts) > _MOST_PARTS:
        typer.echo(f"    and {len(found.parts) - _MOST_PARTS} more (--json has them)")


def _find(text: str, cells: list[Cell], folder: object) -> PlannedCell:
    """Return the cell that a text means: by its label, by its id of today, or by the id of a stored record."""
    from qbench.runner.identity import identify
    from qbench.store.folder import RunFolder

    skipped = [one for one in cells if one.skip is not None and one.label() == text]
    if skipped:
        raise QBenchError(f"{text} is left out by the suite: {skipped[0].skip}")
    live = [one for one in cells if one.skip is None]
    for one in live:
        if one.label() == text:
            return identify(one)
    labels = sorted(one.label() for one in live)
    if re.fullmatch(r"[0-9a-f]+", text):
        if len(text) < _SHORTEST_PREFIX:
            raise QBenchError(f"{text!r} is too short for an id (allowed: {_SHORTEST_PREFIX} letters or more)")
        assert isinstance(folder, RunFolder)
        planned = [identify(one) for one in live]
        old = [record for key, record in folder.scan().records.items() if key.startswith(text)]
        meant = {one.cell.label(): one for one in planned if one.cell_id.startswith(text)}
        meant |= {one.cell.label(): one for one in planned if one.cell.label() in {record.label for record in old}}
        if len(meant) > 1:
            raise QBenchError(f"{text!r} begins the ids of {len(meant)} cells: {', '.join(sorted(meant)[:4])}")
        if meant:
            return next(iter(meant.values()))
        if old:
            raise QBenchError(f"{text!r} is a record of {old[0].label}, which is no cell of this suite any more")
    close = difflib.get_close_matches(text, labels, n=3, cutoff=0.5)
    hint = f": did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise QBenchError(f"the suite has no cell {text!r}{hint} ({len(labels)} cells; `qbench plan` lists them)")
