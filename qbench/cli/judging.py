"""`qbench diagnose --judge`: forecasts beside what was measured, for all models whose records are published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from qbench.cli import options
from qbench.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qbench.diagnosis.outcome import Outcome, Place
    from qbench.store.record import Record

_MADE_BY = "- Made by: `qbench diagnose"
_SUITE = "diagnose"


def judge_all(*, write: bool, json: bool) -> None:
    """Judge, and print or write what came out.

    Parameters
    ----------
    write : bool
        Write the page, and the corrections that all models together give.
    json : bool
        Print JSON.

    Raises
    ------
    StoreError
        There are no readings.
    """
    from qbench.cli.diagnosing import stored
    from qbench.diagnosis import shipped
    from qbench.diagnosis.cases import cases
    from qbench.diagnosis.correction import family_of, fit, with_widest
    from qbench.diagnosis.judged import judge, quadratics
    from qbench.diagnosis.outcome import merged, outcomes
    from qbench.diagnosis.reading import readings
    from qbench.report.diagnosis_page import render, to_json

    folder = options.results_folder() / "records"
    own: Sequence[Record] = ()
    found: dict[tuple[Place, int], Outcome] = {}
    for name, records in stored([folder] if folder.is_dir() else []):
        if name.partition(".")[0] == _SUITE:
            own = records
        else:
            found = merged(found, outcomes(records))
    held = readings(own)
    if not held:
        raise StoreError(f"{folder} has no records of the suite {_SUITE}: run it, then `qbench archive {_SUITE}`")
    pairs = judge(held, found, quadratics(own))
    fitted = with_widest(fit(cases(held, found)), [pair.left_out for pair in pairs])
    page = render(pairs, fitted, command="qbench diagnose --judge --write")
    if write:
        options.write_table(options.table_path(_SUITE), page, _MADE_BY)
        seen = {family_of(one.model) for one in held}
        typer.echo(f"wrote {shipped.write(fitted, seen)}", err=True)
    if json:
        options.print_json(to_json(pairs, fitted))
    elif not write:
        typer.echo(page, nl=False)
