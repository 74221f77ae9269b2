"""The figures of a page: which there are, where they belong, and their specifications."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qbench.report.figures.board import board_figures
from qbench.report.figures.cells import cell_figures
from qbench.report.figures.drawing import claim_of, specification
from qbench.report.figures.figure import Figure
from qbench.report.figures.write import figures_of
from qbench.report.run import Run
from qbench.store.record import Record


@dataclass(frozen=True)
class Chart:
    """A figure on the page.

    Attributes
    ----------
    id : str
        Its name in the page.
    title, of : str
        See `Figure`.
    notes : tuple of str
        See `Figure`.
    claim : str
        Id of the claim it belongs to; empty for one of the leaderboard.
    spec : dict
        Vega-Lite, without the titles that the page says itself.
    """

    id: str
    title: str
    of: str
    notes: tuple[str, ...]
    claim: str
    spec: dict[str, Any]


def charts_of(run: Run, place: int) -> list[Chart]:
    """Return the charts of a run, those of the leaderboard first.

    Parameters
    ----------
    run : Run
        What is drawn.
    place : int
        Of the run among those of the page: figures of several runs have the same names.
    """
    figures = [*board_figures(run), *figures_of(run.records)]
    return [_chart(figure, f"r{place}-{figure.name}") for figure in figures]


def charts_of_cell(record: Record) -> list[Chart]:
    """Return the charts of one cell."""
    return [_chart(figure, f"{figure.name}-{at}") for at, figure in enumerate(cell_figures(record))]


def _chart(figure: Figure, name: str) -> Chart:
    spec = specification(figure)
    # Heading and notes are words of the page, which wrap and can be read aloud.
    spec.pop("title", None)
    spec = _strict(spec)
    return Chart(name, figure.title, figure.of, figure.notes, claim_of(figure) or "", spec)


def specs(charts: Iterable[Chart]) -> dict[str, dict[str, Any]]:
    """Return the specifications by the charts' names."""
    return {chart.id: chart.spec for chart in charts}


def of_claim(charts: Sequence[Chart], claim: str) -> list[Chart]:
    """Return the charts of a claim."""
    return [chart for chart in charts if chart.claim == claim]


def _strict(part: Any) -> Any:
    """Return a part of a specification as strict JSON, where no number is infinite."""
    if isinstance(part, list):
        return [_strict(one) for one in part]
    if isinstance(part, float):
        return part if math.isfinite(part) else None
    if not isinstance(part, dict):
        return part
    return {name: _strict(one) for name, one in part.items()}
