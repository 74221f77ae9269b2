"""A diagnosis in words and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from qbench.diagnosis.cases import Outcomes
from qbench.diagnosis.depth import excess_at
from qbench.diagnosis.forecast import ANSWERS, DEFAULT_STEPS, Forecast, Ladder, Row, failure
from qbench.diagnosis.layers import LayerLoss
from qbench.diagnosis.mixed import Mixture
from qbench.diagnosis.outcome import Measured, Place
from qbench.report.fitting import fit, plain_table, wrap
from qbench.report.layout import Table
from qbench.report.numbers import ABSENT, compact, share

_MOST_LAYERS = 5


def title(place: Place, ladder: Ladder) -> str:
    """Return the headline of a ladder: model, grid, and what counts as inside and as failed."""
    model, quantizer, bn, seed = place
    basin = ladder.rows[0].reading.basin
    treated = "" if bn == "keep" else f", bn {bn}"
    return (
        f"{model} on {quantizer}{treated}, seed {seed}: inside to D = {compact(basin.tau(0.0))}, "
        f"failed from {compact(failure(basin))} nats"
    )


def verdict(ladder: Ladder) -> str:
    """Return the answer in one sentence."""
    parts = []
    for name in ANSWERS:
        bits = [row.reading.bits for row in ladder.rows if row.answer == name]
        if bits:
            parts.append(f"{ANSWERS[name]} at {_listed(bits)}")
    return "; ".join(parts)


def forecasts(place: Place, ladder: Ladder, found: Outcomes, steps: int, width: int) -> str:
    """Return the table of a ladder.

    Parameters
    ----------
    place : Place
        Of the ladder.
    ladder : Ladder
        What is foretold.
    found : Outcomes
        What was measured; a second line of a row has it where it is known.
    steps : int
        Of training.
    width : int
        Columns of the terminal.
    """
    headers = ["bits", "|e|/|w|", "margin", "rtn D", "second-order D", f"QAT D, {steps} steps", "answer"]
    rows = []
    for row in ladder.rows:
        rows.append(_row(row))
        outcome = found.get((place, row.reading.bits))
        if outcome is not None:
            rows.append(
                ["", "", "measured", _seen(outcome.rtn), _seen(outcome.second_order, "rtn"), _seen(outcome.qat), ""]
            )
    return fit(Table(headers, rows, keys=1), ["right"] * 6 + ["left"], width)


def layer_table(layers: Sequence[LayerLoss], bits: int) -> str:
    """Return the layers that cost most alone, and their parts of what all cost."""
    total = sum(layer.excess for layer in layers)
    most = sorted(layers, key=lambda layer: -layer.excess)[:_MOST_LAYERS]
    weights = sum(layer.weights for layer in layers)
    rows = [
        [
            layer.name,
            f"{compact(layer.excess)} ±{compact(layer.se)}",
            _percent(layer.excess / total if total else 0.0),
            _percent(layer.weights / weights),
            share(layer.relative_error),
        ]
        for layer in most
    ]
    headers = [f"layers that eat the margin at {bits} bits", "D alone", "of all", "weights", "|e|/|w|"]
    return plain_table(headers, rows, ["left", "right", "right", "right", "right"])


def mixture_lines(found: Mixture, uniform: Mapping[int, float], width: int) -> str:
    """Return a mixed-precision hint in words, beside the same bits for all layers."""
    by_bits: dict[int, list[str]] = {}
    for name, bits in found.bits.items():
        by_bits.setdefault(bits, []).append(name)
    lines = [f"mixed precision, {found.mean_bits:.2f} bits a weight in the mean:"]
    for bits, names in sorted(by_bits.items(), reverse=True):
        counted = f"{len(names)} layer{'' if len(names) == 1 else 's'}"
        lines.append(wrap(f"  {bits} bits, {counted}: {_shortened(names)}", width, indent="      "))
    alike = ", ".join(f"{compact(excess)} at {bits} bits for all" for bits, excess in sorted(uniform.items()))
    said = f"  layers' costs add up to D = {compact(found.excess)}, {alike} (rounding to nearest)"
    lines.append(wrap(said, width, indent="      "))
    return "\n".join(lines)


def notes(width: int, *, families: Iterable[str], measured: bool) -> str:
    """Return what the columns mean."""
    said = [
        "D: excess loss over full precision, nats a token (or an image), with the 90 % interval of the forecast.",
        "|e|/|w|: length of the rounding error over that of the weights. margin: the basin's radius over the rounding "
        "error, both in this unit; below 1 rounding to nearest is outside the basin. ~: the edge lies beyond all bits "
        "that were asked about.",
        "second-order: GPTQ or AdaRound. QAT: straight-through training on the grid; forecasts were fitted on "
        f"trainings of at most {DEFAULT_STEPS} steps.",
        "answer: the cheapest that stays inside, else QAT unless all fail, which does not promise that QAT comes back "
        "inside: its D says. ?: the interval's ends would give another. Forecasts were fitted on "
        f"{', '.join(families)}: docs/diagnose.md says how well they do. -: nothing stored.",
    ]
    if measured:
        said.append("measured: what stored records have, of the better method where there are several.")
    return "\n".join(wrap(text, width) for text in said)


def to_json(place: Place, ladder: Ladder, found: Outcomes) -> dict[str, object]:
    """Return a ladder as JSON has it."""
    model, quantizer, bn, seed = place
    basin = ladder.rows[0].reading.basin
    radius = ladder.law.basin_radius
    return {
        "model": model,
        "quantizer": quantizer,
        "bn": bn,
        "seed": seed,
        "inside": basin.tau(0.0),
        "failed": failure(basin),
        "failing_bits": {method: ladder.failing(method) for method in ladder.rows[0].forecasts},
        "basin_radius": radius,
        "law": {
            "relative_error": list(ladder.law.radii),
            "excess": [basin.tolerance * one for one in ladder.law.excesses],
        },
        "bits": [_row_json(place, row, found) for row in ladder.rows],
    }


def _row_json(place: Place, row: Row, found: Outcomes) -> dict[str, object]:
    reading = row.reading
    outcome = found.get((place, reading.bits))
    measured = (
        {}
        if outcome is None
        else {
            name: {"method": one.method, "excess": one.excess, "se": one.se, "steps": one.steps}
            for name, one in outcome.methods.items()
        }
    )
    return {
        "bits": reading.bits,
        "relative_error": reading.relative_error,
        "shrinkage": reading.shrinkage,
        "margin": row.margin,
        "exponent": row.exponent,
        "forecasts": {
            method: {"excess": one.excess, "low": one.low, "high": one.high} for method, one in row.forecasts.items()
        },
        "stand_ins": {
            "matched": excess_at(reading.matched.mean, reading.basin.tolerance),
            "second_order": excess_at(reading.second_order.mean, reading.basin.tolerance),
        },
        "answer": row.answer,
        "sure": row.sure,
        "measured": measured,
        "sample_tokens": reading.tokens,
        "passes": reading.passes,
        "seconds": reading.seconds,
    }


def _row(row: Row) -> list[str]:
    said = ANSWERS[row.answer] + ("" if row.sure else " ?")
    found = [_with_ends(row.forecasts[method]) for method in ("rtn", "second_order", "qat")]
    margin = ("" if row.bracketed else "~") + (compact(row.margin) if row.margin < 1000 else "> 1000")
    return [str(row.reading.bits), share(row.reading.relative_error), margin, *found, said]


def _with_ends(one: Forecast) -> str:
    return f"{compact(one.excess)} [{compact(one.low)},{compact(one.high)}]"


def _seen(one: Measured | None, plain: str = "") -> str:
    if one is None:
        return ABSENT
    name = one.method.partition("[")[0]
    return f"{compact(one.excess)} {name}" if plain else compact(one.excess)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _listed(bits: Sequence[int]) -> str:
    held = [str(one) for one in bits]
    words = held[0] if len(held) == 1 else f"{', '.join(held[:-1])} and {held[-1]}"
    return f"{words} {'bit' if bits == [1] else 'bits'}"


def _shortened(names: Sequence[str]) -> str:
    held = list(names)
    return ", ".join(held[:6]) + (f" and {len(held) - 6} more (--json has all)" if len(held) > 6 else "")
