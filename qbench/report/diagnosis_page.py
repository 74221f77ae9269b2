"""The page that judges forecasts: results/tables/diagnose.md."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from tabulate import tabulate

from qbench.claims.curves import rank_correlation
from qbench.diagnosis.correction import METHODS, Corrections
from qbench.diagnosis.forecast import ANSWERS, failure
from qbench.diagnosis.judged import Both, Pair, Rung, sqnr_threshold
from qbench.report.markdown import escape
from qbench.report.numbers import ABSENT, compact

_FEWEST = 5
"""Bitwidths below which a correlation says nothing."""
_NAMES = {"rtn": "rtn", "second_order": "second-order", "qat": "QAT"}
Foretells = Callable[[Pair], int | None]


def render(pairs: Sequence[Pair], fitted: Corrections, *, command: str) -> str:
    """Return the page as Markdown.

    Parameters
    ----------
    pairs : sequence of Pair
        Of `qbench.diagnosis.judged.judge`.
    fitted : Corrections
        On all models: those that are shipped.
    command : str
        What makes the page anew.
    """
    families = sorted({pair.family for pair in pairs})
    parts = [
        "# diagnose",
        "\n".join(
            [
                f"- Made by: `{command}`",
                f"- Forecasts of {len(pairs)} pairs of a model and a quantizer at {_rungs(pairs)} bitwidths, of "
                f"{len(families)} families: {', '.join(families)}. Means over seeds where there are several.",
                "- Each family is foretold by corrections that were fitted on the others.",
                "- D: excess loss over full precision, nats a token (or an image). Failing bitwidth: the most bits at "
                "which D is above tau_f; `none` counts as one less than the fewest that were run.",
                "- `docs/diagnose.md` has the derivation, and what these tables say.",
            ]
        ),
        "## The failing bitwidth",
        _failing(pairs),
        "## Where it is off",
        _misses(pairs),
        "## Answers, measured by foretold",
        _confusion(pairs),
        "## Excess loss",
        _excess(pairs),
        "## Cost",
        _cost(pairs),
        "## Corrections",
        _corrections(pairs, fitted),
        "## Every bitwidth",
        _every(pairs),
    ]
    return "\n\n".join(parts) + "\n"


def to_json(pairs: Sequence[Pair], fitted: Corrections) -> dict[str, Any]:
    """Return what the page says, as JSON has it."""
    return {
        "corrections": {method: vars(one) for method, one in fitted.items()},
        "failing": {name: _score(pairs, foretells, method) for name, method, foretells in _predictors(pairs)},
        "cost_share": _share(pairs),
        "pairs": [
            {
                "model": pair.model,
                "quantizer": pair.quantizer,
                "bn": pair.bn,
                "family": pair.family,
                "bits": [_rung_json(rung) for rung in pair.rungs],
            }
            for pair in pairs
        ],
    }


def _rung_json(rung: Rung) -> dict[str, Any]:
    answers = rung.answers()
    return {
        "bits": rung.bits,
        "seeds": rung.seeds,
        "quadratic": rung.quadratic,
        "sqnr_db": rung.sqnr_db,
        "answer": None if answers is None else {"foretold": answers[0], "measured": answers[1]},
        "methods": {
            method: {"excess": both.excess, "se": both.se, "foretold": vars(both.foretold)}
            for method, both in rung.methods.items()
        },
    }


def _rungs(pairs: Iterable[Pair]) -> int:
    return sum(len(pair.rungs) for pair in pairs)


def _predictors(pairs: Sequence[Pair]) -> list[tuple[str, str, Foretells]]:
    """Return what foretells the failing bitwidth of which method, by name."""
    thresholds = {
        family: sqnr_threshold([pair for pair in pairs if pair.family != family])
        for family in {pair.family for pair in pairs}
    }

    def foretold(method: str) -> Foretells:
        return lambda pair: pair.failing(lambda rung: rung.foretold_to_fail(method), method)

    def of_sqnr(pair: Pair) -> int | None:
        return pair.failing(lambda rung: rung.sqnr_db < thresholds[pair.family])

    def of_quadratic(pair: Pair) -> int | None:
        if any(rung.quadratic is None for rung in pair.having("rtn")):
            return None
        return pair.failing(lambda rung: rung.quadratic_fails)

    def beside_quadratic(pair: Pair) -> int | None:
        return None if of_quadratic(pair) is None else foretold("rtn")(pair)

    own = [(f"diagnose, {_NAMES[method]}", method, foretold(method)) for method in METHODS]
    return [
        *own,
        ("weight SQNR threshold, rtn", "rtn", of_sqnr),
        ("exact quadratic, rtn", "rtn", of_quadratic),
        ("diagnose, rtn, on the same pairs", "rtn", beside_quadratic),
    ]


def _score(pairs: Iterable[Pair], foretells: Foretells, method: str) -> dict[str, float]:
    off = []
    for pair in pairs:
        measured = pair.failing(lambda rung: rung.fails(method), method)
        foretold = foretells(pair)
        if measured is not None and foretold is not None:
            off.append(foretold - measured)
    if not off:
        return {"pairs": 0}
    return {
        "pairs": len(off),
        "exact": sum(one == 0 for one in off) / len(off),
        "within_one": sum(abs(one) <= 1 for one in off) / len(off),
        "too_high": sum(one > 0 for one in off),
        "too_low": sum(one < 0 for one in off),
        "farthest": max(map(abs, off)),
    }


def _failing(pairs: Sequence[Pair]) -> str:
    families = sorted({pair.family for pair in pairs})
    headers = ["foretold by", "pairs", "exact", "within one bit", "too high", "too low", "farthest", *families]
    rows = []
    for name, method, foretells in _predictors(pairs):
        whole = _score(pairs, foretells, method)
        if not whole["pairs"]:
            continue
        parts = [_score([pair for pair in pairs if pair.family == family], foretells, method) for family in families]
        rows.append(
            [
                name,
                f"{whole['pairs']:.0f}",
                _percent(whole["exact"]),
                _percent(whole["within_one"]),
                f"{whole['too_high']:.0f}",
                f"{whole['too_low']:.0f}",
                f"{whole['farthest']:.0f}",
                *(
                    f"{part['exact'] * part['pairs']:.0f}/{part['pairs']:.0f}" if part["pairs"] else ABSENT
                    for part in parts
                ),
            ]
        )
    said = (
        "In the columns of families: how many are exact, of how many. The quadratic is `g e + e H e / 2` by exact "
        "Hessian-vector products, batch norms kept."
    )
    return f"{_table(headers, rows)}\n\n{said}"


def _misses(pairs: Sequence[Pair]) -> str:
    rows = []
    for method in METHODS:
        for pair in pairs:
            measured = pair.failing(lambda rung, method=method: rung.fails(method), method)  # type: ignore[misc]
            foretold = pair.failing(lambda rung, method=method: rung.foretold_to_fail(method), method)  # type: ignore[misc]
            if measured is None or foretold is None or measured == foretold:
                continue
            at = max(measured, foretold)
            rung = next(rung for rung in pair.rungs if rung.bits == at)
            both = rung.methods[method]
            rows.append(
                [
                    _NAMES[method],
                    pair.model,
                    pair.quantizer,
                    pair.bn,
                    _width(measured, pair, method),
                    _width(foretold, pair, method),
                    f"{compact(both.foretold.excess)} {_ends(both)}",
                    compact(both.excess),
                    compact(failure(rung.basin)),
                ]
            )
    headers = ["method", "model", "quantizer", "bn", "measured", "foretold", "D foretold there", "D measured", "tau_f"]
    return _table(headers, rows, keys=4) if rows else "Nowhere."


def _confusion(pairs: Sequence[Pair]) -> str:
    counts = Counter(answers for pair in pairs for rung in pair.rungs if (answers := rung.answers()) is not None)
    rows = [[ANSWERS[measured], *(str(counts[foretold, measured]) for foretold in ANSWERS)] for measured in ANSWERS]
    total = sum(counts.values())
    right = sum(counts[name, name] for name in ANSWERS)
    said = f"{right} of {total} bitwidths at which all methods were run have the answer that was foretold."
    return f"{_table(['measured', *ANSWERS.values()], rows)}\n\n{said}"


def _excess(pairs: Sequence[Pair]) -> str:
    families = sorted({pair.family for pair in pairs})
    rows = []
    for method in METHODS:
        for family in ["all", *families]:
            held = [
                (both, rung)
                for pair in pairs
                if family in ("all", pair.family)
                for rung in pair.having(method)
                for both in [rung.methods[method]]
            ]
            if len(held) < _FEWEST:
                continue
            foretold, measured = [both.foretold.excess for both, _ in held], [both.excess for both, _ in held]
            quadratic = [(rung.quadratic, both.excess) for both, rung in held if rung.quadratic is not None]
            outside = [
                abs(math.log(both.foretold.excess / both.excess)) for both, rung in held if _both_out(both, rung)
            ]
            rows.append(
                [
                    _NAMES[method],
                    family,
                    str(len(held)),
                    f"{rank_correlation(foretold, measured):.2f}",
                    f"{rank_correlation([-rung.sqnr_db for _, rung in held], measured):.2f}",
                    f"{rank_correlation(*zip(*quadratic, strict=True)):.2f}"
                    if len(quadratic) > 2 and method == "rtn"
                    else ABSENT,
                    f"{math.exp(fmean(outside)):.2f}" if outside else ABSENT,
                    _percent(sum(both.covered for both, _ in held) / len(held)),
                ]
            )
    headers = [
        "method",
        "family",
        "bitwidths",
        "rank corr.",
        "of SQNR",
        "of the quadratic",
        "factor off",
        "in the 90 % interval",
    ]
    said = (
        "rank corr.: Spearman's, of foretold with measured D. factor off: exp of the mean of |ln(foretold / measured)| "
        "where both are outside the basin."
    )
    return f"{_table(headers, rows, keys=2)}\n\n{said}"


def _both_out(both: Both, rung: Rung) -> bool:
    return min(both.foretold.excess, both.excess) > rung.basin.tau(0.0)


def _cost(pairs: Sequence[Pair]) -> str:
    families = sorted({pair.family for pair in pairs})
    rows = []
    for family in [*families, "all"]:
        own = [pair for pair in pairs if family in ("all", pair.family)]
        seconds = math.fsum(rung.seconds for pair in own for rung in pair.rungs)
        cells = math.fsum(rung.of_cells for pair in own for rung in pair.rungs)
        rows.append([family, f"{seconds:.0f}", f"{cells:.0f}", f"{100 * _share(own):.1f} %"])
    said = (
        "Seconds of the probes, grids not counted on either side, over those of all cells of the same models, "
        "quantizers, bits and seeds: every method that the suites ran there."
    )
    return f"{_table(['family', 'diagnose, s', 'cells, s', 'share'], rows)}\n\n{said}"


def _share(pairs: Sequence[Pair]) -> float:
    cells = math.fsum(rung.of_cells for pair in pairs for rung in pair.rungs)
    return math.fsum(rung.seconds for pair in pairs for rung in pair.rungs) / cells if cells else math.nan


def _corrections(pairs: Sequence[Pair], fitted: Corrections) -> str:
    held = {pair.family: pair.left_out for pair in pairs}
    rows = []
    for family, corrections in [*sorted(held.items()), ("none", fitted)]:
        for method, one in corrections.items():
            decay = f"{one.decay:.2f}" if method == "qat" else ABSENT
            rows.append([family, _NAMES[method], f"{one.slope:.3f}", decay, f"{one.spread:.2f}"])
    return _table(["left out", "method", "slope", "decay", "spread"], rows, keys=2)


def _every(pairs: Sequence[Pair]) -> str:
    rows = []
    for pair in pairs:
        for rung in pair.rungs:
            answers = rung.answers()
            row = [pair.model, pair.quantizer, pair.bn, str(rung.bits)]
            for method in METHODS:
                both = rung.methods.get(method)
                row += [ABSENT, ABSENT] if both is None else [_told(both), compact(both.excess)]
            row += [
                compact(rung.quadratic),
                *((ABSENT, ABSENT) if answers is None else (ANSWERS[answers[0]], ANSWERS[answers[1]])),
            ]
            rows.append(row)
    headers = ["model", "quantizer", "bn", "bits"]
    for method in METHODS:
        headers += [f"{_NAMES[method]} foretold", "measured"]
    return _table([*headers, "quadratic", "foretold", "measured"], rows, keys=4)


def _told(both: Both) -> str:
    return f"{compact(both.foretold.excess)} {_ends(both)}"


def _ends(both: Both) -> str:
    return f"[{compact(both.foretold.low)},{compact(both.foretold.high)}]"


def _width(bits: int, pair: Pair, method: str) -> str:
    return "none" if bits < pair.having(method)[-1].bits else str(bits)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], keys: int = 1) -> str:
    cells = [[escape(cell) for cell in row] for row in rows]
    align = ["left"] * keys + ["right"] * (len(headers) - keys)
    return tabulate(cells, headers=list(headers), tablefmt="github", disable_numparse=True, colalign=align)
