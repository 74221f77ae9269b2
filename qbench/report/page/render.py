"""One HTML file that shows everything and needs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qbench.errors import QBenchError
from qbench.report.claims import LEGEND as CLAIMS_LEGEND
from qbench.report.comparison_cells import HEADERS as COMPARISON_HEADERS
from qbench.report.figures.bundle import javascript
from qbench.report.figures.theme import DARK
from qbench.report.landscape_sheet import Sheet, meanings
from qbench.report.layout import counts, footnotes, legend
from qbench.report.page import answer, assets
from qbench.report.page.against import Compared, compared
from qbench.report.page.cell_view import PARTS, render_cell
from qbench.report.page.charting import Chart, charts_of, charts_of_cell, specs
from qbench.report.page.entry_table import entry_table, order
from qbench.report.page.packing import chunks, pack, pack_json
from qbench.report.page.place import Place, by_row, places_of
from qbench.report.page.templating import environment
from qbench.report.page.verdict_table import Verdicts, verdicts
from qbench.report.published_table import published_notes, published_table
from qbench.report.run import Run


@dataclass(frozen=True)
class Part:
    """One run, as the page shows it.

    Attributes
    ----------
    run : Run
        What is shown.
    counts : str
        Cells by status, in a line.
    troubles : dict of str to int
        Cells that failed, are missing, or in which a layer fell back.
    versions, dates : str
        Of the records.
    answers : list of Answer
        Model by model.
    lattices : int
        Grids of a given step size, which no bitwidth describes.
    cautions : list of str
        What the leaderboard warns of, and no answer says.
    charts : list of Chart
        Of leaderboard and claims.
    verdicts : Verdicts
        Of the claims.
    compared : Compared
        With the baseline.
    probes : list of Place
        Cells that a probe measures.
    footnotes, legend : list of str
        How to read it.
    """

    run: Run
    counts: str
    troubles: dict[str, int]
    versions: str
    dates: str
    answers: list[answer.Answer]
    lattices: int
    cautions: list[str]
    charts: list[Chart]
    verdicts: Verdicts
    compared: Compared
    probes: list[Place]
    footnotes: list[str]
    legend: list[str]


def render_page(runs: Sequence[Run], *, title: str | None = None) -> str:
    """Return a page of one or several runs: one HTML file, the same bytes for the same runs.

    Parameters
    ----------
    runs : sequence of Run
        Each of one suite; no two of one name.
    title : str, optional
        The heading; by default the names of the suites.

    Raises
    ------
    QBenchError
        There is no run, two have one name, or a library of the page is missing.
    """
    names = [run.name for run in runs]
    if not runs or len(set(names)) < len(names):
        raise QBenchError(f"a page shows one run or more, each of another suite; given: {', '.join(names) or 'none'}")
    parts = [_part(run, at) for at, run in enumerate(runs)]
    cells = {route: cell for part in parts for route, cell in _cells(part).items()}
    packed = chunks(cells)
    script = assets.own("page.js")
    module, style = assets.tables()
    board, lattices = entry_table(runs), entry_table(runs, landscapes=True)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=title or f"qbench: {', '.join(names)}",
            parts=parts,
            board=board,
            lattices=lattices,
            order=order,
            word=answer.word,
            tone=answer.tone,
            told=answer.told,
            map_rows=answer.map_rows,
            numeric=_numeric,
            published_table=published_table,
            published_notes=published_notes,
            claims_legend=CLAIMS_LEGEND,
            comparison_headers=COMPARISON_HEADERS,
            policy=assets.policy(script),
            css=assets.own("page.css"),
            script=script,
            libraries={"tables": pack(module), "tables-style": pack(style), "vega": pack(javascript())},
            figures=pack_json(specs(chart for part in parts for chart in part.charts)),
            dark=dict(DARK),
            chunks=packed.packed,
            chunk_of=packed.of,
            cell_parts=PARTS,
        )
    )


def _part(run: Run, at: int) -> Part:
    board = run.board
    charts = charts_of(run, at)
    answers = [
        one for group in board.of_networks.groups if (one := answer.answer(group, board.of_networks.groups)) is not None
    ]
    titles = [group.title for group in board.of_networks.groups]
    ground = board.environment
    known = [f"{name} {ground[name]}" for name in ("qbench", "python", "torch") if name in ground]
    dates = sorted({board.started[:10], board.ended[:10]} - {""})
    loud = {name: count for name, count in board.counts.items() if name not in ("expected", "ok", "skipped")}
    lines = meanings(board.landscapes)
    if board.of_networks.groups or not board.landscapes:
        lines += [*legend(board.of_networks), f"interval: {board.interval}."]
    return Part(
        run=run,
        counts=counts(board),
        troubles=loud,
        versions=", ".join(known) or "not recorded",
        dates=" to ".join(dates) or "no date",
        answers=answers,
        lattices=sum(map(answer.is_lattice, board.of_networks.groups)),
        cautions=[
            line
            for line in board.summary
            if not any(line.startswith(f"{one}:") or line.startswith(f"{one} (fp") for one in titles)
        ],
        charts=charts,
        verdicts=verdicts(run, charts),
        compared=compared(run),
        probes=[place for place in places_of(run) if place.probe],
        footnotes=footnotes(board),
        legend=lines,
    )


def _cells(part: Part) -> dict[str, dict[str, Any]]:
    places = places_of(part.run)
    rows, known = by_row(places), {place.label: place for place in places}
    entries = {
        (group.model, None if entry.bits is None else group.quantizer, entry.bits, entry.method): entry
        for group in part.run.board.groups
        for entry in group.entries
    }
    found: dict[str, dict[str, Any]] = {}
    for place in places:
        charts = [] if place.record is None else charts_of_cell(place.record)
        html = render_cell(place, rows[place.row], known, entries.get(place.row), charts)
        found[place.route] = {"title": place.label, **html, "charts": specs(charts)}
    return found


def _numeric(sheet: Sheet) -> list[int]:
    """Return which columns of a sheet hold no words."""
    return [at for at in range(len(sheet.columns)) if not any(isinstance(row[at], str) for row in sheet.rows)]
