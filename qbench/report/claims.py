"""What records say of the claims: tables and paragraphs, for a terminal and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tabulate import tabulate

from qbench.claims import thresholds
from qbench.claims.base import Claim, Judgement
from qbench.claims.spread import Spread
from qbench.claims.statistics import Interval
from qbench.report.fitting import fit, wrap
from qbench.report.layout import Table
from qbench.report.numbers import ABSENT, compact, with_ends
from qbench.report.short_names import explained, shorten

HEADERS = ("claim", "model", "quantizer", "verdict", "bits", "seeds", "numbers")
"""Of `rows_of`."""

_MOST_NUMBERS = 4
_FEW_GRIDS = 3
_MOST_COLUMNS = 6
_OF_FAMILIES = frozenset({"C11", "C14", "T1", "T2", "T3", "T4"})
DECIDED = ("supported", "refuted", "inconclusive")

SOURCES = {
    "abstract": "predicted by the abstract",
    "readers": "as reported by readers",
    "ours": "ours",
}
"""Who makes a claim, in words."""

LEGEND = (
    "verdict: supported where all seeds to which it applies support it, refuted where most refute it, otherwise "
    f"inconclusive; with fewer than {thresholds.SEEDS} seeds at most inconclusive. not applicable: a precondition is "
    "false, such as that rounding fails; grey bits, outside tau and not beyond tau_f (docs/claims.md), are no failure, "
    "and what was measured there is told all the same.",
    "seeds: those that support it, of all. numbers: means over seeds with their 95 % t interval; D in nats above full "
    "precision on the same data.",
)
"""What verdicts and numbers mean."""


def render_claims(judgements: Sequence[Judgement], ids: Sequence[str] = ()) -> str:
    """Return the short section for the end of a run: a line for each claim that its cells can judge.

    Parameters
    ----------
    judgements : sequence of Judgement
        From `qbench.claims.catalogue.judge`.
    ids : sequence of str
        All claims there are: those about nothing in the run are named as not judged.
    """
    void = Counter(one.claim for one in judgements if one.verdict == "not applicable")
    judged = [one for one in judgements if one.verdict not in ("not judged", "not applicable")]
    known = {one.claim for one in judged} | void.keys()
    asked = list(ids) or list(dict.fromkeys(one.claim for one in judgements))
    gaps = [name for name in asked if name not in known]
    lines = [
        f"{one.claim} {one.model}/{one.quantizer}: {one.verdict}{_at(one)}{_brief(one)}: {one.title}" for one in judged
    ]
    if void:
        told = ", ".join(name if count == 1 else f"{name} ({count} grids)" for name, count in void.items())
        lines.append(f"not applicable, a precondition is false: {told}")
    if gaps:
        claims = "claims" if len(gaps) > 1 else "claim"
        lines.append(f"{len(gaps)} {claims} not judged ({', '.join(gaps)}): see `qbench claims` for what they need")
    return "\n".join(["claims:", *(wrap(line) for line in lines)]) if lines else "claims: none to judge"


def render_text(judgements: Sequence[Judgement], claims: Mapping[str, Claim]) -> str:
    """Return everything as plain text.

    Parameters
    ----------
    judgements : sequence of Judgement
        In the order of the claims.
    claims : mapping of str to Claim
        Those that were asked for.
    """
    names = shorten(one.model for one in judgements)
    # In a terminal the numbers stand with the paragraphs.
    rows = [[claim, *rest, f"{names[model]}/{grid}"] for claim, model, grid, *rest, _ in rows_of(judgements)]
    table = Table([HEADERS[0], *HEADERS[3:-1], f"{HEADERS[1]}/{HEADERS[2]}"], rows, keys=len(HEADERS) - 2)
    parts = [fit(table, ["left"] * len(table.headers))] if rows else ["no claim could be judged"]
    parts += [wrap(line) for line in explained(names)] if rows else []
    for claim, ours in by_claim(judgements, claims):
        told = paragraphs(ours)
        if told:
            title = f"{claim.id} ({SOURCES[claim.source]}): {claim.title}. {claim.rule}"
            lines = [f"{', '.join(names)}: {one.verdict}. {one.why}{_means(one, names)}" for names, one in told]
            parts.append("\n".join(wrap(line) for line in [title, *lines]))
    gaps = gaps_of(judgements, claims)
    parts += ["\n".join(wrap(line) for line in ["not judged:", *gaps])] if gaps else []
    return "\n\n".join([*parts, "\n".join(map(wrap, LEGEND))]) + "\n"


def render_markdown(runs: Mapping[str, Sequence[Judgement]], claims: Mapping[str, Claim], *, command: str) -> str:
    """Return the page of one or several runs.

    Parameters
    ----------
    runs : mapping of str to sequence of Judgement
        By the run's name.
    claims : mapping of str to Claim
        Those that were asked for.
    command : str
        What makes the page anew.
    """
    about = "what arXiv:2606.09012 predicts by its abstract, what its readers report of it, and claims of our own"
    made = [f"- Made by: `{command}`", f"- Checked: {about}; its tables were not seen, and none is reproduced here"]
    parts = ["# Claims", "\n".join(made)]
    parts += ["\n".join(f"- {_escape(line)}" for line in LEGEND)]
    parts += ["## The claims", _github(("claim", "source", "what it says", "supports", "refutes"), _explained(claims))]
    for name, judgements in runs.items():
        parts.append(f"## {_escape(name)}")
        rows = rows_of(judgements)
        parts += (
            [_github(*overview(judgements, claims)), _github(HEADERS, rows)] if rows else ["No claim could be judged."]
        )
        for claim, ours in by_claim(judgements, claims):
            told = paragraphs(ours)
            if told:
                parts.append(f"### {claim.id}: {_escape(claim.title)}")
                lines = [f"- {_escape(', '.join(names))}: **{one.verdict}**. {_escape(one.why)}" for names, one in told]
                parts.append("\n".join(lines))
        gaps = gaps_of(judgements, claims)
        parts += ["### Not judged", "\n".join(f"- {_escape(line)}" for line in gaps)] if gaps else []
    return "\n\n".join(parts) + "\n"


def overview(judgements: Sequence[Judgement], claims: Mapping[str, Claim]) -> tuple[list[str], list[list[str]]]:
    """Return the verdicts at a glance: a row a claim, a column a model and quantizer, or a model where these are many.

    Parameters
    ----------
    judgements, claims
        As in `render_text`.

    Returns
    -------
    tuple of list
        Headers and rows.
    """
    decided: dict[str, set[str]] = {}
    for one in judgements:
        if one.verdict in DECIDED:
            decided.setdefault(f"{one.model}/{one.quantizer}", set()).add(one.claim)
    # Grids that are there for a claim about all of them together have no column each.
    titles = [title for title, ids in decided.items() if len(ids) > 1 or ids & _OF_FAMILIES] or list(decided)
    by_model = len(titles) > _MOST_COLUMNS
    if by_model:
        titles = list(dict.fromkeys(one.model for one in judgements if one.verdict in DECIDED))
    rows = []
    for claim, ours in by_claim(judgements, claims):
        counts = {title: Counter[str]() for title in titles}
        for one in ours:
            title = one.model if by_model else f"{one.model}/{one.quantizer}"
            if title in counts:
                counts[title][one.verdict] += 1
        rows.append([claim.id, *(_counted(count) for count in counts.values())])
    return ["claim", *titles], rows


def _counted(count: Mapping[str, int]) -> str:
    """Return a verdict, or how many there are of each; what was decided hides what does not apply."""
    decided = {verdict: many for verdict, many in count.items() if verdict in DECIDED} or dict(count)
    if len(decided) == 1 and sum(decided.values()) == 1:
        return next(iter(decided))
    return ", ".join(f"{many} {verdict}" for verdict, many in decided.items()) or ABSENT


def paragraphs(judgements: Iterable[Judgement]) -> list[tuple[list[str], Judgement]]:
    """Return what there is to say, and of which models and quantizers: those of which the same is said together."""
    judgements = list(judgements)
    same: dict[tuple[str, str], list[Judgement]] = {}
    for one in (one for together in _together(judgements) for one in together if len(together) == 1):
        same.setdefault((one.verdict, one.why), []).append(one)
    told = [([f"{one.model}/{one.quantizer}" for one in ours], ours[0]) for ours in same.values()]
    for together in _together(judgements):
        if len(together) > 1:  # many to which the claim does not apply: by name, with the reason of the first
            one = together[0]
            why = f"The precondition is false on all of these. On the first: {one.why}"
            told.append(([f"{each.model}/{each.quantizer}" for each in together], replace(one, why=why)))
    return told


def _means(one: Judgement, names: Sequence[str]) -> str:
    """Return the numbers of a paragraph about one model and quantizer."""
    numbers = _numbers(one) if len(names) == 1 else ""
    return f" Means: {numbers}." if numbers else ""


def _explained(claims: Mapping[str, Claim]) -> list[list[str]]:
    return [[one.id, one.source, one.title, one.supports, one.refutes] for one in claims.values()]


def rows_of(judgements: Iterable[Judgement]) -> list[list[str]]:
    """Return a row a verdict; grids of one model to which a claim does not apply are one row where they are many."""
    rows = []
    for together in _together(judgements):
        one = together[0]
        grids = one.quantizer if len(together) == 1 else f"{len(together)} grids"
        numbers = _numbers(one) if len(together) == 1 else ""
        rows.append([one.claim, one.model, grids, one.verdict, _bits(one) or ABSENT, _tally(together), numbers])
    return rows


def _together(judgements: Iterable[Judgement]) -> list[list[Judgement]]:
    found: dict[tuple[str, ...], list[Judgement]] = {}
    for one in judgements:
        if one.verdict != "not judged":
            place = (one.claim, one.model, one.verdict)
            found.setdefault(place if one.verdict == "not applicable" else (*place, one.quantizer), []).append(one)
    return [part for ours in found.values() for part in ([ours] if len(ours) > _FEW_GRIDS else [[one] for one in ours])]


def by_claim(judgements: Sequence[Judgement], claims: Mapping[str, Claim]) -> list[tuple[Claim, list[Judgement]]]:
    """Return every claim with what is said of it, in the order of the claims."""
    return [(claim, [one for one in judgements if one.claim == name]) for name, claim in claims.items()]


def gaps_of(judgements: Sequence[Judgement], claims: Mapping[str, Claim]) -> list[str]:
    """Return, a line each, what is not judged and what it lacks, subjects that lack the same together."""
    lines = []
    for claim, ours in by_claim(judgements, claims):
        if not ours:
            lines.append(f"{claim.id}: nothing here that it is about (needs: {claim.needs})")
        same: dict[tuple[str, ...], list[str]] = {}
        for one in ours:
            if one.verdict == "not judged":
                same.setdefault(one.lacks, []).append(f"{one.model}/{one.quantizer}")
        lines += [f"{claim.id}: {', '.join(names)}: lacks {'; '.join(lacks)}" for lacks, names in same.items()]
    return lines


def _at(one: Judgement) -> str:
    bits = _bits(one)
    return f" at {bits} bits" if bits else ""


def _bits(one: Judgement) -> str:
    return ", ".join(map(str, one.bits))


def _tally(together: Sequence[Judgement]) -> str:
    seeds = [seed for one in together for seed in one.seeds.values()]
    return f"{sum(seed.outcome == 'supports' for seed in seeds)}/{len(seeds)}" if seeds else ABSENT


def _brief(one: Judgement) -> str:
    numbers = _numbers(one)
    return f" ({numbers})" if numbers else ""


def _numbers(one: Judgement) -> str:
    return ", ".join(f"{name} {_spread(value)}" for name, value in list(one.numbers.items())[:_MOST_NUMBERS])


def _spread(value: Spread) -> str:
    return with_ends(compact(value.mean), Interval(value.mean, value.low, value.high), compact)


def _github(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[_escape(cell) for cell in row] for row in rows]
    return tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
