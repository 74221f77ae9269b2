"""Forecasts beside what was measured, each model by corrections that were fitted without its family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

from qbench.claims.evidence import flaw
from qbench.claims.regimes import Basin
from qbench.diagnosis.cases import Outcomes, cases, measured_of, outcome_of
from qbench.diagnosis.correction import METHODS, Corrections, family_of, fit
from qbench.diagnosis.depth import depth, excess_at
from qbench.diagnosis.forecast import Answer, Forecast, answer, failure, forecast
from qbench.diagnosis.reading import Reading
from qbench.store.record import Record


@dataclass(frozen=True)
class Both:
    """A method at one bitwidth: foretold and measured, means over seeds.

    Attributes
    ----------
    foretold : Forecast
        The mean depth, and the mean ends of its interval, in nats.
    excess, se : float
        Measured D, and the standard error of one seed over documents.
    """

    foretold: Forecast
    excess: float
    se: float

    @property
    def covered(self) -> bool:
        """Return whether the interval holds what was measured; below 0 counts as 0."""
        return self.foretold.low <= max(self.excess, 0.0) <= self.foretold.high


@dataclass(frozen=True)
class Rung:
    """One bitwidth of a model and quantizer.

    Attributes
    ----------
    bits, seeds : int
        Where, and how many seeds the means are over.
    basin : Basin
        What counts as inside and as failed.
    sqnr_db : float
        Signal over noise of the rounded weights.
    methods : mapping of str to Both
        By `METHODS`; those that were run.
    quadratic : float or None
        ``g . e + e^T H e / 2`` of the rounding error, nats.
    seconds, of_cells : float
        What the readings took, and the cells of these bits.
    """

    bits: int
    seeds: int
    basin: Basin
    sqnr_db: float
    methods: Mapping[str, Both]
    quadratic: float | None
    seconds: float
    of_cells: float

    def fails(self, method: str = "rtn") -> bool:
        """Return whether a method was measured to fail."""
        both = self.methods[method]
        return both.excess > self.basin.tau_f(both.se)

    def foretold_to_fail(self, method: str = "rtn") -> bool:
        """Return whether it was foretold to."""
        return self.methods[method].foretold.excess > failure(self.basin)

    @property
    def quadratic_fails(self) -> bool:
        """Return whether the quadratic foretells that rounding fails."""
        return self.quadratic is not None and self.quadratic > failure(self.basin)

    def answers(self) -> tuple[Answer, Answer] | None:
        """Return the foretold and the measured answer; None where a method that decides it was not run."""
        if any(method not in self.methods for method in METHODS):
            return None
        se = max(both.se for both in self.methods.values())
        basin = self.basin
        foretold = [self.methods[method].foretold.excess for method in METHODS]
        measured = [self.methods[method].excess for method in METHODS]
        return answer(foretold, basin.tau(0.0), failure(basin)), answer(measured, basin.tau(se), basin.tau_f(se))


@dataclass(frozen=True)
class Pair:
    """A model and a quantizer, with one treatment of batch norms.

    Attributes
    ----------
    model, quantizer, bn, family : str
        Labels.
    rungs : tuple of Rung
        By falling bits.
    left_out : Corrections
        Fitted without the family.
    """

    model: str
    quantizer: str
    bn: str
    family: str
    rungs: tuple[Rung, ...]
    left_out: Corrections = field(repr=False)

    def having(self, method: str) -> list[Rung]:
        """Return the rungs at which a method was run."""
        return [rung for rung in self.rungs if method in rung.methods]

    def failing(self, fails: Callable[[Rung], bool], method: str = "rtn") -> int | None:
        """Return the most bits at which something fails; one less than the fewest where nothing does."""
        rungs = self.having(method)
        if not rungs:
            return None
        return max((rung.bits for rung in rungs if fails(rung)), default=rungs[-1].bits - 1)


Quadratics = Mapping[tuple[str, str, int, int], float]
"""By model, quantizer, bits and seed; batch norms kept."""


def quadratics(records: Iterable[Record]) -> dict[tuple[str, str, int, int], float]:
    """Return ``g . e + e^T H e / 2`` of rounding to nearest, from the records of the probe `curvature`, nats."""
    found = {}
    for record in records:
        metrics, axes = record.metrics, record.axes
        if str(axes["method"]).partition("[")[0] != "curvature" or "rtn/hessian" not in metrics or flaw(record):
            continue
        place = (str(axes["model"]), str(axes["quantizer"]), int(axes["bits"] or 0), int(axes["seed"] or 0))
        found[place] = metrics["rtn/linear"] + metrics["rtn/hessian"]
    return found


def judge(readings: Iterable[Reading], found: Outcomes, quadratics: Quadratics) -> list[Pair]:
    """Return all pairs that have readings and outcomes, by label.

    Parameters
    ----------
    readings : iterable of Reading
        Of models of several families; with one family nothing is left to fit on.
    found : Outcomes
        What was measured.
    quadratics : Quadratics
        Of the rounding error.
    """
    held = [one for one in readings if outcome_of(one, found) is not None]
    families = {family_of(one.model) for one in held}
    corrections = {
        family: fit(cases([one for one in held if family_of(one.model) != family], found)) for family in families
    }
    groups: dict[tuple[str, str, str], list[Reading]] = {}
    for one in held:
        groups.setdefault((one.model, one.quantizer, one.bn), []).append(one)
    pairs = []
    for (model, quantizer, bn), own in sorted(groups.items()):
        family = family_of(model)
        if not corrections[family]:
            continue
        rungs = [
            _rung([one for one in own if one.bits == bits], found, quadratics, corrections[family])
            for bits in sorted({one.bits for one in own}, reverse=True)
        ]
        pairs.append(Pair(model, quantizer, bn, family, tuple(rungs), corrections[family]))
    return pairs


def _rung(own: Sequence[Reading], found: Outcomes, quadratics: Quadratics, corrections: Corrections) -> Rung:
    outcomes = [outcome for one in own if (outcome := outcome_of(one, found)) is not None]
    tolerance = fmean(one.basin.tolerance for one in own)
    headrooms = [one.basin.headroom for one in own if one.basin.headroom is not None]
    methods = {}
    for method in METHODS:
        seeds = [
            (forecast(method, one, corrections, measured.way[-1][0] if measured.way else 0), measured)
            for one, outcome in zip(own, outcomes, strict=True)
            if method in corrections and (measured := measured_of(method, outcome)) is not None
        ]
        if seeds:
            methods[method] = Both(
                _mean([foretold for foretold, _ in seeds], tolerance),
                fmean(measured.excess for _, measured in seeds),
                fmean(measured.se for _, measured in seeds),
            )
    exact = [quadratics.get((one.model, one.quantizer, one.bits, one.seed)) for one in own if one.bn == "keep"]
    known = [value for value in exact if value is not None]
    return Rung(
        bits=own[0].bits,
        seeds=len(own),
        basin=Basin(tolerance, fmean(headrooms) if headrooms else None, own[0].basin.exact),
        sqnr_db=fmean(one.sqnr_db for one in own),
        methods=methods,
        quadratic=fmean(known) if known else None,
        seconds=math.fsum(one.seconds for one in own),
        of_cells=math.fsum(outcome.seconds for outcome in outcomes),
    )


def _mean(forecasts: Sequence[Forecast], tolerance: float) -> Forecast:
    """Return the forecast of the mean excess: depths are averaged, as are those of the ends."""
    deep = fmean(one.depth for one in forecasts)
    low, high = (fmean(depth(getattr(one, end), tolerance) for one in forecasts) for end in ("low", "high"))
    return Forecast(deep, *(excess_at(value, tolerance) for value in (deep, low, high)))


def sqnr_threshold(pairs: Iterable[Pair]) -> float:
    """Return the signal-to-noise ratio below which rounding is said to fail, dB: the one that errs least on pairs.

    Families count alike. Of thresholds that err as little the middle is taken.
    """
    rungs: list[tuple[float, bool, float]] = []
    by_family: dict[str, list[Rung]] = {}
    for pair in pairs:
        by_family.setdefault(pair.family, []).extend(pair.having("rtn"))
    for own in by_family.values():
        rungs += [(rung.sqnr_db, rung.fails(), 1 / len(own)) for rung in own]
    values = sorted({value for value, _, _ in rungs})
    if not values:
        return 0.0
    edges = [values[0] - 1, *((a + b) / 2 for a, b in pairwise(values)), values[-1] + 1]
    errors = [math.fsum(weight for value, fails, weight in rungs if (value < edge) != fails) for edge in edges]
    best = [edge for edge, error in zip(edges, errors, strict=True) if error <= min(errors) + 1e-12]
    return best[len(best) // 2]
