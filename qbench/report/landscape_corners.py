"""Landscapes of two weights: the corners around them, who chose which, and how training gets back into the basin."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qbench.claims.curves import slope
from qbench.claims.landscapes import entry_bound
from qbench.claims.thresholds import FIRST_ENTRY, RATES_ENTERED
from qbench.report.landscape_cells import Cells, places_of
from qbench.report.landscape_sheet import Place, Sheet, Span, Value, digits, sheet, word
from qbench.store.record import Record

_SAME_LOSS = 1e-6  # relative: both are f of the same weights, on the same machine
_SAME_DISTANCE = 1e-4  # relative: told apart by decibels of float32 weights
_CORNERS = ("corner", "distance", "quadratic", "with gradient", "f", "chosen by")
_TRAININGS = (
    "training",
    "noise",
    "rate",
    "steps",
    "seeds",
    "entry",
    "x rate",
    "bound",
    "before",
    "f entry",
    "f end",
    "late inside",
)
_MEANS_CORNERS = (
    "corner: levels above the one below, weight by weight; distance: from the weights; quadratic: e^T H e / 2 there, "
    "then with the gradient's part; f: what it costs; chosen by: methods that end there.",
)
_MEANS_TRAININGS = (
    "training: ste_qat with the gradient at the deployed weights, latent_grad at those in training; entry: "
    "updates until |z_F| of the deployed weights is at most the wall's, of all seeds, at the "
    "moments looked at; x rate: times the rate; bound: "
    "on it, by the errors and gradients seen; before: by what is known before training; f: of the deployed weights, "
    "mean over seeds; late inside: share of the last fifth.",
)


def corner_sheets(family: Sequence[Cells], probes: Sequence[Record]) -> list[Sheet]:
    """Return the corners and the trainings of one case, with its reversed and noisy kin.

    Parameters
    ----------
    family : sequence of Cells
        Methods on one lattice, of landscapes that differ in ``reverse`` and ``noise`` alone.
    probes : sequence of Record
        Of ``codewords`` on them; the first plain one counts.
    """
    plain = [one for one in family if not one.landscape.get("reverse") and not one.landscape.get("noise")] or family
    first, places = plain[0], places_of(family)
    probe = next((one for one in probes if one.axes["model"] == first.model), None)
    facts = first.facts
    worst = _worst(first)
    about = f"|z_F|: weights {digits(facts['offset'])}, wall {digits(facts['rho'])}"
    about += "" if worst is None else f", rounding errors up to {digits(worst)}"
    corners = [] if probe is None else _corners(first.model, places, about, probe, family)
    # Without corners nothing here says where rounding ends: then the ordinary tables stay.
    return corners + _trainings(first.model, places if corners else [], family)


def _corners(name: str, places: list[Place], about: str, probe: Record, family: Sequence[Cells]) -> list[Sheet]:
    curves = probe.traces
    axes = sorted((trace for trace in curves if trace.startswith("code_")), key=lambda trace: int(trace[5:]))
    losses = curves.get("loss")
    if not axes or not losses:
        return []
    rounded = {model: _rounding(model, family) for model, _ in places}
    chosen: list[dict[str, list[str]]] = [{} for _ in losses]
    nowhere = []
    for one in family:
        if one.ways:
            continue
        counts = [0] * len(losses)
        for record in one.records:
            for at in _chosen(record, rounded[one.model], losses, curves.get("distance", [])):
                counts[at] += 1
        kin = " ".join(word for word in ("reversed", "noise") if one.landscape.get(word.removesuffix("d")))
        for at, count in enumerate(counts):
            if count:
                told = one.name if count == len(one.records) else f"{one.name} {count}/{len(one.records)}"
                chosen[at].setdefault(kin, []).append(told)
        nowhere += [] if any(counts) else [f"{one.name} (f {word(one.one.loss)})"]
    rows: list[tuple[Value, ...]] = []
    for at, loss in enumerate(losses):
        offset = "(" + ",".join(str(int(curves[axis][at])) for axis in axes) + ")"
        terms = [curves[name][at] if name in curves else None for name in ("distance", "quadratic", "with_gradient")]
        who = [f"{kin}: {', '.join(names)}" if kin else ", ".join(names) for kin, names in sorted(chosen[at].items())]
        rows.append((offset, *terms, loss, "; ".join(who) or None))
    says = f"{about}; at no corner: {', '.join(nowhere)}" if nowhere else about
    return sheet(f"{name}: corners", places, says, _MEANS_CORNERS, _CORNERS, rows)


def _rounding(model: str, family: Sequence[Cells]) -> Record | None:
    return next((one.one for one in family if one.model == model and one.name == "rtn"), None)


def _chosen(record: Record, rounded: Record | None, losses: list[float], distances: list[float]) -> list[int]:
    """Return the corners with a record's loss, and its distance from the weights.

    Equal losses do not tell corners on both sides of the basin apart. Nearest rounding is at the nearest corner, and
    decibels of weights say how much farther another method's point is.
    """
    loss = record.loss
    same = [] if loss is None else [at for at, one in enumerate(losses) if math.isclose(one, loss, rel_tol=_SAME_LOSS)]
    own = record.metrics.get("weight_sqnr_db")
    nearest = None if rounded is None else rounded.metrics.get("weight_sqnr_db")
    if own is None or nearest is None or not distances:
        return same
    away = min(distances) * 10 ** ((nearest - own) / 20)
    return [at for at in same if math.isclose(distances[at], away, rel_tol=_SAME_DISTANCE)]


def _trainings(name: str, places: list[Place], family: Sequence[Cells]) -> list[Sheet]:
    trained = [one for one in family if one.ways]
    order = list(dict.fromkeys(one.name for one in trained))
    noise = any(one.landscape.get("noise") for one in trained)
    rows: list[tuple[Value, ...]] = []
    for one in sorted(trained, key=lambda cell: (order.index(cell.name), _noise(cell), cell.rate or 0)):
        place = (one.name, _noise(one) if noise else None, one.rate, one.steps)
        if one.missing:
            rows.append((*place, one.missing, *[None] * (len(_TRAININGS) - 5)))
            continue
        ways = one.ways
        firsts = [way.first for way in ways]
        entered = [way for way in ways if way.first < math.inf]
        bounds = [bound for way in ways if (bound := way.bound(one.facts)) is not None]
        curve = [_loss_at(way.record) for way in ways]
        entry = [found[way.step.index(way.first)] for way, found in zip(ways, curve, strict=True) if way in entered]
        same = len(entered) == len(ways) and min(firsts) == max(firsts) > 0
        rows.append(
            (
                *place,
                len(ways),
                Span(min(firsts), max(firsts)),
                (one.rate or 0.0) * firsts[0] if same and one.rate else None,
                ("none" if min(bounds) == math.inf else Span(min(bounds), max(bounds))) if bounds else None,
                _before(one) if bounds else None,
                _mean(entry),
                _mean([found[-1] for found in curve]),
                _mean([way.late for way in ways]),
            )
        )
    return sheet(f"{name}: trainings", places, _law(trained), _MEANS_TRAININGS, _TRAININGS, _merged(rows))


def _merged(rows: Sequence[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
    """Return rows that stand below each other and differ in the rate alone as one, with the span of their rates."""
    at = _TRAININGS.index("rate")
    found: list[tuple[Value, ...]] = []
    for row in rows:
        last = found[-1] if found else None
        if last is not None and (*last[:at], *last[at + 1 :]) == (*row[:at], *row[at + 1 :]):
            low, high = last[at], row[at]
            low = low.low if isinstance(low, Span) else low
            if isinstance(low, float) and isinstance(high, float):
                found[-1] = (*row[:at], Span(low, high), *row[at + 1 :])
                continue
        found.append(row)
    return found


def _noise(one: Cells) -> float:
    return float(one.landscape.get("noise", 0.0))


def _loss_at(record: Record) -> list[float]:
    """Return f of the deployed weights: its excess on the way, above where it ends in the record itself."""
    excess = record.traces["trajectory/deployed"]
    return [one - excess[-1] + (record.loss if record.loss is not None else math.nan) for one in excess]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _worst(one: Cells) -> float | None:
    """Return the longest rounding error in F on the lattice."""
    unit = one.facts.get("worst_error_per_step")
    return None if unit is None or one.step is None else unit * one.step


def _before(one: Cells) -> Value:
    """Return the bound with the worst error, and ``G + 2 eps / rho^2`` for the gradient: weights stay within 2."""
    facts, error = one.facts, _worst(one)
    if error is None or one.rate is None:
        return None
    gradient = facts["wall"] + 2 * facts["eps"] / facts["rho"] ** 2
    bound = entry_bound(facts["offset"], one.rate, facts, error, gradient)
    return bound if bound < math.inf else "none"


def _law(trained: Sequence[Cells]) -> str:
    """Return the slope of the first entry in the rate, both logarithms, as claim T2 has it."""
    firsts: dict[float, float] = {}
    for one in trained:
        if one.name == "ste_qat" and one.rate and not _noise(one) and FIRST_ENTRY <= one.ways[0].first < math.inf:
            firsts[one.rate] = one.ways[0].first
    if len(firsts) < RATES_ENTERED:
        return ""
    found, _ = slope([math.log(rate) for rate in firsts], [math.log(first) for first in firsts.values()])
    return f"slope of log first entry on log rate: {digits(found)} over {len(firsts)} rates, theory -1"
