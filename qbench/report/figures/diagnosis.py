"""What a diagnosis foretells by bits, beside what was measured, and the law that it reads off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from qbench.claims.regimes import Basin
from qbench.diagnosis.correction import METHODS
from qbench.diagnosis.depth import excess_at
from qbench.diagnosis.forecast import ANSWERS, Forecast, Ladder, Row, failure
from qbench.diagnosis.outcome import Measured, Outcome, Place
from qbench.diagnosis.reading import Reading
from qbench.report.figures.axes import bits_axis, change_axis, round_numbers
from qbench.report.figures.board import write_all
from qbench.report.figures.drawing import Format
from qbench.report.figures.estimates import Estimate, Trend
from qbench.report.figures.figure import Axis, Figure, Guide, Level, Panel
from qbench.report.figures.naming import file_names, short
from qbench.report.figures.paging import brief

_BEYOND = 100.0  # of tau_f: what is lost beyond is no longer worth room
_FLOOR = 1e-3  # of tau: where the frame of the law ends below
_AROUND = 1.5  # how far that frame goes on beyond what is in it
_FAR = 10.0  # how far a radius may lie from what was measured and still be in it
_MOST = 1e15  # what is put into a drawing: larger numbers have no place in its format
_SIZE = (390, 280)
_SE = 1.645  # standard errors to either end of a 90 % interval
_COVERED = (("interval", ""),)
"""Told of an estimate, so that its ends are called no more than that: by themselves they would be those of 95 %."""


def diagnosis_figures(ladders: Mapping[Place, Ladder], measured: Mapping[tuple[Place, int], Outcome]) -> list[Figure]:
    """Return a figure a ladder: the excess that is foretold of each method by bits, and the law it follows from.

    They are called ``diagnosis_<model>_<quantizer>``, with the treatment of batch norms and the seed behind that where
    there are several.

    Parameters
    ----------
    ladders : mapping of Place to Ladder
        By model, quantizer, treatment of batch norms and seed, in any order.
    measured : mapping of (Place, int) to Outcome
        What methods really gave, by place and bits; whatever is missing is not drawn.
    """
    places = sorted(place for place, ladder in ladders.items() if ladder.rows)
    files = _files(places)
    models, quantizers = short(place[0] for place in places), short(place[1] for place in places)
    figures = []
    for place in places:
        ladder = ladders[place]
        held = {
            row.reading.bits: measured[place, row.reading.bits]
            for row in ladder.rows
            if (place, row.reading.bits) in measured
        }
        left, right = _by_bits(ladder, held), _by_size(ladder)
        notes = (_foretold(ladder.rows), *_reading(left, ladder), _left_out(left))
        title = f"{models[place[0]]} on {quantizers[place[1]]}: what will be lost as bits fall"
        told = tuple(note for note in notes if note)
        figures.append(Figure(files[place], title, _of(place), told, (left, right), 2, size=_SIZE))
    return figures


def write_diagnosis(
    ladders: Mapping[Place, Ladder],
    measured: Mapping[tuple[Place, int], Outcome],
    folder: Path,
    formats: Sequence[Format] = ("svg", "png"),
) -> list[Path]:
    """Write the figures of some ladders, and return the files written; others are left as they are.

    Parameters
    ----------
    ladders, measured : mapping
        See `diagnosis_figures`.
    folder : Path
        Where files go; made when missing. Files of the same name are replaced.
    formats : sequence of str
        ``svg`` or ``png``, one file each.

    Raises
    ------
    QBenchError
        The drawing libraries are missing: ``pip install qbench[report]``.
    """
    return write_all(diagnosis_figures(ladders, measured), folder, formats)


def _files(places: Sequence[Place]) -> dict[Place, str]:
    models, quantizers = file_names(place[0] for place in places), file_names(place[1] for place in places)
    found = {}
    for place in places:
        model, quantizer, bn, seed = place
        kin = [other for other in places if other[:2] == place[:2]]
        parts = ["diagnosis", models[model], quantizers[quantizer]]
        parts += [bn] if len({one[2] for one in kin}) > 1 else []
        parts += [f"s{seed}"] if len({one[3] for one in kin}) > 1 else []
        found[place] = "_".join(parts)
    return found


def _of(place: Place) -> str:
    model, quantizer, bn, seed = place
    treated = "" if bn == "keep" else f"batch norms: {bn}; "
    return f"Model {brief(model)}; quantizer {brief(quantizer)}; {treated}seed {seed}."


def _by_bits(ladder: Ladder, held: Mapping[int, Outcome]) -> Panel:
    """Return the forecasts with their intervals, and what was measured beside them."""
    basin = ladder.rows[0].reading.basin
    far = _BEYOND * failure(basin)
    trends = []
    for method in METHODS:
        rows = [row for row in ladder.rows if method in row.forecasts]
        if rows:
            trends.append(Trend(f"{method} foretold", tuple(_forecast(row, row.forecasts[method]) for row in rows)))
        given = [(bits, one) for bits, outcome in held.items() if (one := getattr(outcome, method)) is not None]
        if given:
            trends.append(Trend(f"{method} measured", tuple(_given(bits, one) for bits, one in given)))
    estimates = [one for trend in trends for one in trend.estimates]
    reach = [end for one in estimates for end in (one.y, one.low, one.high) if end is not None and math.isfinite(end)]
    low, high = max(min(0.0, *reach), -far), min(max(failure(basin), *reach), far)
    axis = change_axis(f"excess loss D over fp ({_unit(basin)})", basin.tau(0.0))
    return Panel(
        "foretold, by bits",
        _bits(row.reading.bits for row in ladder.rows),
        replace(axis, low=low, high=high, ticks=round_numbers(low, high, axis.constant)),
        (),
        levels=(Level("y", basin.tau(0.0), "τ"), Level("y", failure(basin), "τ_f")),
        trends=tuple(trends),
    )


def _bits(bits: Iterable[int]) -> Axis:
    """Return an axis of bits; one alone has ticks at its neighbours, for points are moved aside by a share of these."""
    axis = bits_axis(bits)
    if len(axis.ticks) > 1:
        return axis
    (alone,) = axis.ticks
    ticks = (alone + 1, alone, alone - 1) if alone > 1 else (alone + 1, alone)
    return replace(axis, ticks=ticks, low=ticks[-1], high=ticks[0])


def _forecast(row: Row, of: Forecast) -> Estimate:
    told = (
        *_COVERED,
        ("answer", ANSWERS[row.answer] + ("" if row.sure else " (not sure)")),
        ("basin radius over error", f"{row.margin:.3g}"),
    )
    return Estimate(float(row.reading.bits), _drawable(of.excess), _drawable(of.low), _drawable(of.high), told=told)


def _given(bits: int, one: Measured) -> Estimate:
    told = [("method", one.method), ("standard error", f"{one.se:.2g}")]
    told += [("steps", str(one.steps))] if one.steps else []
    return Estimate(float(bits), _drawable(one.excess), told=tuple(told))


def _drawable(value: float) -> float:
    """Return a value with a place far beyond the frame where it is larger than drawings take; NaN stays."""
    return value if math.isnan(value) else max(-_MOST, min(value, _MOST))


def _by_size(ladder: Ladder) -> Panel:
    """Return what random errors as large as those of each bitwidth cost, with the law through them."""
    basin, law = ladder.rows[0].reading.basin, ladder.law
    tau = basin.tau(0.0)
    sizes = [one.relative_error for one in ladder.readings] + ([law.basin_radius] if _in_sight(ladder) else [])
    x = Axis("relative error |e| / |w|", "log", low=min(sizes) / _AROUND, high=max(sizes) * _AROUND)
    lost = [excess_at(one.matched.mean, basin.tolerance) for one in ladder.readings]
    low = min(tau, max(min(lost), _FLOOR * tau)) / _AROUND
    high = min(max(tau, *lost), _BEYOND * failure(basin)) * _AROUND
    y = Axis(f"excess loss D of random errors ({_unit(basin)})", "log", low=low, high=high)
    levels = [Level("y", tau, "τ")]
    if _in_sight(ladder):
        levels.append(Level("x", law.basin_radius))
    return Panel(
        "what errors cost, by their size",
        x,
        y,
        (),
        joined=False,
        levels=tuple(levels),
        guides=_law(ladder, x, y),
        trends=tuple(_stand_in(one, excess, y) for one, excess in zip(ladder.readings, lost, strict=True)),
    )


def _in_sight(ladder: Ladder) -> bool:
    sizes, radius = [one.relative_error for one in ladder.readings], ladder.law.basin_radius
    return min(sizes) / _FAR <= radius <= max(sizes) * _FAR


def _stand_in(one: Reading, excess: float, y: Axis) -> Trend:
    """Return the point of a bitwidth, at the edge of the frame where it lies beyond."""
    assert y.low is not None
    assert y.high is not None
    told = (("SQNR", f"{one.sqnr_db:.1f} dB"), ("measured", f"{excess:.3g}"))
    if y.cuts(excess):
        edge = y.low if excess < y.low else y.high
        return Trend("edge", (Estimate(one.relative_error, edge, told=told),), f"{one.bits}")
    deep = one.matched
    low, high = (excess_at(deep.mean + side * _SE * deep.sd, one.basin.tolerance) for side in (-1, 1))
    ends = Estimate(one.relative_error, excess, max(low, y.low), _drawable(high), told=(*_COVERED, *told))
    return Trend("stand-ins", (ends,), f"{one.bits}")


def _law(ladder: Ladder, x: Axis, y: Axis) -> tuple[Guide, ...]:
    """Return the law from one side of the frame to the other, or to its upper edge."""
    assert x.low is not None
    assert x.high is not None
    assert y.high is not None
    tolerance, law = ladder.rows[0].reading.basin.tolerance, ladder.law
    places = [(at, tolerance * law.at(at)) for at in (x.low, *(one for one in law.radii if one > x.low))]
    if places[0][1] > y.high:
        return ()
    last, lost = places[-1]
    # In logarithms: of two errors that differ by little the law may be too steep for a power.
    if 0 < lost < y.high:
        room = math.log(x.high / last)
        up = math.log(y.high / lost)
        slope = law.exponent(x.high)
        run = min(room, up / slope) if slope > 0 else room
        places.append((last * math.exp(run), lost * math.exp(min(run * slope, up))))
    kept = [places[0]]
    for (before, less), (at, more) in pairwise(places):
        if more > y.high:
            if less < y.high:
                share = math.log(y.high / less) / math.log(more / less)
                kept.append((before * (at / before) ** share, y.high))
            break
        kept.append((at, more))
    return (Guide("law", *zip(*kept, strict=True)),)


def _unit(basin: Basin) -> str:
    # Losses that have no sampling error are those of landscapes, which are no logarithms of probabilities.
    return "loss units" if basin.exact else "nats"


def _foretold(rows: Iterable[Row]) -> str:
    """Return what to do at which bits, in words."""
    held: dict[str, list[str]] = {}
    for row in rows:
        held.setdefault(ANSWERS[row.answer], []).append(f"{row.reading.bits}{'' if row.sure else '?'}")
    answers = "; ".join(f"{answer} at {', '.join(bits)}" for answer, bits in held.items())
    unsure = " (?: the intervals leave it open)" if any("?" in bit for bits in held.values() for bit in bits) else ""
    return f"Bits and what they ask for: {answers}{unsure}."


def _reading(left: Panel, ladder: Ladder) -> list[str]:
    known = " Filled: what was measured." if any(name.endswith("measured") for name in left.series) else ""
    radius = ladder.law.basin_radius
    if math.isinf(radius):
        where = "The law never reaches τ: the basin has no edge that was seen."
    elif _in_sight(ladder):
        where = f"The basin's radius, {radius:.2g}, is where the law reaches τ."
    else:
        where = f"The law reaches τ at {radius:.2g}, the basin's radius, beyond the frame."
    return [
        "Left: inside the basin below τ, failed above τ_f. Hollow, with 90 % intervals: what is foretold." + known,
        "Right: what random errors as large as those of rounding cost, with 90 % intervals; numbers are bits. " + where,
    ]


def _left_out(panel: Panel) -> str:
    places = panel.places
    lost = sum(not panel.y.shows(y) for _, y in places)
    cut = sum(panel.y.shows(y) and panel.y.cuts(y) for _, y in places)
    said = []
    if lost:
        said.append(f"Not shown: {lost} value{'s that are' if lost > 1 else ' that is'} no number.")
    if cut:
        said.append(f"{cut} value{'s lie' if cut > 1 else ' lies'} beyond the frame.")
    return " ".join(said)
