"""C10 and the theorem: after how many updates the deployed weights are back in the basin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from qbench.claims.landscapes import entry_bound
from qbench.claims.subject import Subject
from qbench.claims.trajectories import Trajectory, first_entry, landscape, plain_trajectories
from qbench.report.figures.figure import Axis, Curve, Figure, Guide, Panel
from qbench.report.figures.paging import Sheet, pages
from qbench.report.figures.places import bits_of, outside, present, where

_RATE = Axis("learning rate of plain gradient descent", "log")
_ENTRY = Axis("first step k* with training D at or below τ", "log")


def entries_by_rate(subjects: Sequence[Subject]) -> list[Figure]:
    """Return k* by learning rate; on landscapes the theorem's bound as well."""
    sheets, never = [], 0
    for subject in subjects:
        for bits in outside(subject, "ste_qat"):
            curves, without = _curves(subject, bits)
            never += without
            if len({rate for curve in curves for rate in curve.x}) > 1:
                panel = Panel(where(subject, bits), _RATE, _ENTRY, tuple(curves), guides=_inverse(curves))
                sheets.append(Sheet(subject, [panel]))
    notes = ["Plain gradient descent: no momentum, constant rate, no clipping. Grey: slope -1."]
    if never:
        notes.append(f"Not shown: {never} run{'s that never enter' if never > 1 else ' that never enters'}.")
    title = "C10: after how many steps are the deployed weights back in the basin?"
    return pages("C10_first_entry", title, notes, sheets, titled=True)


def entries_by_bound(subjects: Sequence[Subject]) -> list[Figure]:
    """Return k* of every run on a landscape by the theorem's bound, all runs of a kind of model in one panel."""
    kinds: dict[str, list[tuple[Subject, int, float, float]]] = {}
    for subject in subjects:
        for seed in subject.seeds:
            for way in [way for bits in bits_of(subject, "ste_qat") for way in _ways(subject, seed, bits)]:
                promise = promised(subject, way)
                if promise is not None and max(promise) < math.inf:
                    kinds.setdefault(subject.model.partition("[")[0], []).append((subject, seed, *promise))
    sheets = []
    for kind, runs in sorted(kinds.items()):
        ends = [value for _, _, bound, entry in runs for value in (bound, entry) if value > 0]
        panel = Panel(
            kind,
            Axis("bound on k* (updates)", "log"),
            Axis("measured k* (updates)", "log"),
            tuple(Curve("entry", seed, (bound,), (entry,)) for _, seed, bound, entry in runs),
            joined=False,
            guides=(Guide("equal", (min(ends), max(ends)), (min(ends), max(ends))),),
        )
        sheets.append(Sheet(runs[0][0], [panel]))
    notes = [
        "One point a run that begins outside: all seeds, grids and rates for which the bound is finite and the run "
        "enters. k*: the first step with |z_F(q)| at or below rho. The "
        "theorem holds where points are on or below the diagonal."
    ]
    title = "T1: is the first entry within the theorem's bound?"
    found = pages("T1_first_entries", title, notes, sheets, titled=True)
    of = f"Landscapes whose truth is known: {', '.join(sorted(kinds))}."
    return [replace(figure, of=of) for figure in found]


def promised(subject: Subject, way: Trajectory) -> tuple[float, float] | None:
    """Return the bound on k* of a run on a landscape, and its k*; None of other runs and of those that begin inside.

    ``k* <= |z_F(w_0)|^2 / (eta (2 G (rho - e) - eta G'^2))``, with e the largest error of quantization and G' the
    largest gradient in the normal directions until entry; infinite where the bracket is not positive. See claim T1.
    """
    names = ("normal_distance", "latent_distance", "quantization_error", "gradient_norm")
    if not {"rho", "wall"} <= subject.facts.get("valley", {}).keys():
        return None
    read = [present(landscape, way.cell, name) for name in names]
    held = [curve for curve in read if curve is not None]
    if len(held) < len(names):
        return None
    away, latent, errors, slopes = held
    rho, wall = (float(subject.facts["valley"][name]) for name in ("rho", "wall"))
    if away[0] <= rho:
        return None
    place = next((place for place, z in enumerate(away) if z <= rho), None)
    until = slice(None if place is None else place + 1)
    bound = entry_bound(latent[0], way.rate, {"rho": rho, "wall": wall}, max(errors[until]), max(slopes[until]))
    return bound, math.inf if place is None else way.step[place]


def _entry(way: Trajectory) -> float:
    return first_entry(way.step, way.train, way.tau_train)


def _ways(subject: Subject, seed: int, bits: int) -> list[Trajectory]:
    return present(plain_trajectories, subject, seed, bits) or []


def _curves(subject: Subject, bits: int) -> tuple[list[Curve], int]:
    """Return the curves of a panel, and how many runs never entered."""
    curves, never = [], 0
    for seed in subject.seeds:
        ways = _ways(subject, seed, bits)
        entries = [(way.rate, _entry(way)) for way in ways]
        never += sum(math.isinf(entry) for _, entry in entries)
        # Those that begin inside have nothing to enter.
        entered = [(rate, entry) for rate, entry in entries if 0 < entry < math.inf]
        if entered:
            x, y = zip(*entered, strict=True)
            curves.append(Curve("entry", seed, x, y))
        bounds = [(way.rate, promise[0]) for way in ways if (promise := promised(subject, way)) is not None]
        if finite := [(rate, bound) for rate, bound in bounds if math.isfinite(bound)]:
            x, y = zip(*finite, strict=True)
            curves.append(Curve("bound", seed, x, y))
    return (curves if any(curve.series == "entry" for curve in curves) else []), never


def _inverse(curves: Sequence[Curve]) -> tuple[Guide, ...]:
    """Return a line of slope -1 through the geometric mean of all entries."""
    places = [
        (math.log(x), math.log(y))
        for curve in curves
        if curve.series == "entry"
        for x, y in zip(curve.x, curve.y, strict=True)
        if y > 0
    ]
    if not places:
        return ()
    constant = math.exp(sum(a + b for a, b in places) / len(places))
    ends = [math.exp(pick(a for a, _ in places)) for pick in (min, max)]
    return (Guide("slope -1", tuple(ends), tuple(constant / rate for rate in ends)),)
