"""The claims: rules, verdicts, what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qbench.claims.base import Claim, Judgement
from qbench.claims.catalogue import all_claims
from qbench.report.claims import DECIDED, SOURCES, by_claim, gaps_of, overview, paragraphs, rows_of
from qbench.report.page.charting import Chart, of_claim
from qbench.report.run import Run

NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Told:
    """One claim about one run.

    Attributes
    ----------
    claim : Claim
        With its rule.
    source : str
        Who makes it, in words.
    rows : list of list of str
        See `qbench.report.claims.rows_of`, without the claim.
    paragraphs : list of (list of str, Judgement)
        See `qbench.report.claims.paragraphs`.
    gaps : list of str
        What is not judged.
    charts : list of Chart
        What is drawn of it.
    counts : dict of str to int
        Verdicts that were reached.
    """

    claim: Claim
    source: str
    rows: list[list[str]]
    paragraphs: list[tuple[list[str], Judgement]]
    gaps: list[str]
    charts: list[Chart]
    counts: dict[str, int]


@dataclass(frozen=True)
class Verdicts:
    """What a run says of all claims.

    Attributes
    ----------
    run : Run
        Which.
    headers : list of str
        Of the table at a glance.
    rows : list of list of str
        Of that table: those claims that are decided anywhere.
    told : list of Told
        The same claims in full.
    gaps : list of str
        Of every other claim, what it needs.
    """

    run: Run
    headers: list[str]
    rows: list[list[str]]
    told: list[Told]
    gaps: list[str]


def verdicts(run: Run, charts: Sequence[Chart]) -> Verdicts:
    """Return what a run says of the claims.

    Parameters
    ----------
    run : Run
        With its judgements.
    charts : sequence of Chart
        Of the run.
    """
    claims = all_claims()
    told = []
    for claim, ours in by_claim(run.judgements, claims):
        drawn = of_claim(charts, claim.id)
        rows = [row[1:] for row in rows_of(ours)]
        if rows or drawn:
            counts: dict[str, int] = {}
            for one in ours:
                if one.verdict != NOT_JUDGED:
                    counts[one.verdict] = counts.get(one.verdict, 0) + 1
            gaps = gaps_of(ours, {claim.id: claim}) if ours else []
            told.append(Told(claim, SOURCES[claim.source], rows, paragraphs(ours), gaps, drawn, counts))
    shown = {one.claim.id: one.claim for one in told}
    headers, rows = overview(run.judgements, shown)
    rows = [row for row in rows if any(verdict in cell for cell in row[1:] for verdict in DECIDED)]
    others = {name: claim for name, claim in claims.items() if name not in shown}
    return Verdicts(run, headers, rows, told, gaps_of([one for one in run.judgements if one.claim in others], others))
