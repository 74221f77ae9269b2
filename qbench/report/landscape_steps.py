"""Landscapes of many weights: where methods end as the lattice gets coarser, and when training gets back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qbench.claims.curves import crossing
from qbench.report.landscape_cells import Cells, places_of
from qbench.report.landscape_sheet import OUTSIDE, Place, Point, Sheet, Span, Value, digits, sheet

_ORACLE = "oracle "
_STEPS = ("/compat", "/exit")
_MEANS_ENDS = (
    f"ends: |z_F| of the deployed weights and f, means over seeds; {OUTSIDE}: longer than rho, outside the basin; "
    f"rtn {OUTSIDE}: seeds outside. Steps in units of the compatible step sqrt(12 rho^2 / m) and of "
    "rounding's predicted exit sqrt(12 (rho^2 - r0^2) / m).",
)
_MEANS_EXIT = "exit of rtn: where the root mean square of |z_F| over seeds crosses rho, by a line in log-log."
_MEANS_ORACLE = "oracle: a codeword that exists, found with the metric that knows where the wall is."
_MEANS_ARMS = "latent f: of latent_grad, f alone, after as many updates with the gradient at the weights in training."
_ENTRIES = (
    "/compat",
    "rate",
    "updates",
    "began outside",
    "first entry",
    "bound",
    "under",
    "late inside",
    "end inside",
)
_MEANS_ENTRIES = (
    "entries: of ste_qat; first entry: the first moment looked at with |z_F| <= rho, least to greatest over seeds; "
    "bound: on the entries of plain trainings that began outside, by the errors and gradients seen, where it exists; "
    "under: entries that keep theirs; late inside: share of the last fifth; end inside: share of seeds.",
)


def step_sheets(family: Sequence[Cells]) -> list[Sheet]:
    """Return where methods end on each lattice, and the first entries of trainings.

    Parameters
    ----------
    family : sequence of Cells
        Methods on all lattices, of landscapes that differ in ``metric`` alone.
    """
    found = [one for one in family if one.step is not None and "compatible_step" in one.facts]
    if not found:
        return []
    title, places = min((one.model for one in found), key=len), places_of(found)
    return _ends(title, places, found) + _entries(title, places, found)


def _ends(title: str, places: list[Place], found: Sequence[Cells]) -> list[Sheet]:
    facts = found[0].facts
    names = dict.fromkeys(name for one in found if (name := _column(one, found)) is not None)
    columns = [*_STEPS, *names]
    at = columns.index("rtn") + 1 if "rtn" in columns else len(columns)
    columns.insert(at, f"rtn {OUTSIDE}")
    rows: list[tuple[Value, ...]] = []
    for step in sorted({one.step or 0.0 for one in found}):
        row: dict[str, Value] = dict(zip(_STEPS, _units(step, found[0]), strict=True))
        for one in found:
            name = _column(one, found)
            if one.step != step or name is None:
                continue
            row[name] = _alone(one)
            if name == "rtn":
                row[f"rtn {OUTSIDE}"] = _outside(one)
        rows.append(tuple(row.get(column) for column in columns))
    says = (
        f"rho {digits(facts['rho'])}, r0 {digits(facts['offset'])}, m {facts['flat']:.0f} of {facts['dimension']:.0f}, "
        f"{facts.get('visible', 0):.0f} visible; compatible step {digits(facts['compatible_step'])}, predicted exit of "
        f"rtn {digits(facts['exit_step'])}, of Hessian rounding {digits(facts['hessian_exit_step'])}{_exit(found)}"
    )
    means = list(_MEANS_ENDS)
    means += [_MEANS_EXIT] if _exit(found) else []
    means += [_MEANS_ORACLE] if any(name.startswith(_ORACLE) for name in names) else []
    means += [_MEANS_ARMS] if any(name.startswith("latent_grad") for name in names) else []
    return sheet(f"{title}: ends", places, says, means, columns, rows)


def _column(one: Cells, found: Sequence[Cells]) -> str | None:
    """Return the column of a method: with its rate where there are several, an oracle's apart."""
    if _is_oracle(one):
        return None if one.name == "rtn" else _ORACLE + one.name  # rounding to nearest knows no metric
    own = f"{one.name.removesuffix('_grad')} f" if _is_arm(one) else one.name
    kin = {other.method: other for other in found if other.name == one.name and not _is_oracle(other)}
    if len(kin) == 1:
        return own
    rates = {other.rate for other in kin.values()}
    return f"{own} {digits(one.rate)}" if one.rate is not None and len(rates) == len(kin) else one.method


def _is_oracle(one: Cells) -> bool:
    return one.landscape.get("metric") == "normal"


def _alone(one: Cells) -> Value:
    """Return where a method ends; of arms that are there for comparison the loss alone."""
    end = one.point()
    return Point(None, end.loss, end.outside) if _is_arm(one) and isinstance(end, Point) else end


def _is_arm(one: Cells) -> bool:
    """Return whether a training is there for comparison with QAT."""
    return one.options.get("name") in ("latent_grad", "noise_grad", "random_grad")


def _outside(one: Cells) -> str | None:
    if one.missing:
        return None
    away = [record.metrics["valley/normal_distance"] > one.facts["rho"] for record in one.records]
    return f"{sum(away)}/{len(away)}"


def _units(step: float, one: Cells) -> tuple[float, float]:
    return step / one.facts["compatible_step"], step / one.facts["exit_step"]


def _exit(found: Sequence[Cells]) -> str:
    """Return where the root mean square of rounding's ``|z_F|`` crosses rho, as claim T3 has it."""
    rounded = sorted(
        (one for one in found if one.name == "rtn" and not _is_oracle(one) and one.missing is None),
        key=lambda one: one.step or 0.0,
    )
    if not rounded:
        return ""
    away = [[record.metrics["valley/normal_distance"] for record in one.records] for one in rounded]
    # Of the steps with the most seeds: others would shift the mean.
    most = max(map(len, away))
    steps = [one.step or 0.0 for one, at in zip(rounded, away, strict=True) if len(at) == most]
    squares = [math.sqrt(math.fsum(z * z for z in at) / most) for at in away if len(at) == most]
    facts = rounded[0].facts
    left = crossing(steps, squares, facts["rho"])
    if left is None:
        return ""
    return f"; exit of rtn at {digits(left)} ({most} seeds), {digits(left / facts['exit_step'])} of the predicted"


def _entries(title: str, places: list[Place], found: Sequence[Cells]) -> list[Sheet]:
    rows: list[tuple[Value, ...]] = []
    kept = promised = at_home = 0
    trained = [one for one in found if one.ways and one.name.partition("[")[0] == "ste_qat"]
    for one in sorted(trained, key=lambda cell: (cell.step or 0.0, cell.rate or 0.0)):
        place: list[Value] = [_units(one.step or 0.0, one)[0], one.rate, one.steps]
        if one.missing:
            rows.append((*place, one.missing, *[None] * (len(_ENTRIES) - 4)))
            continue
        ways = one.ways
        firsts = [way.first for way in ways]
        outside = sum(not way.inside[0] for way in ways)
        if not outside and all(way.late == 1 for way in ways):
            at_home += 1
            continue
        bounds = [(way, bound) for way in ways if (bound := way.bound(one.facts)) is not None]
        told = [(way.first, bound) for way, bound in bounds if bound < math.inf]
        under = sum(first <= bound for first, bound in told)
        kept, promised = kept + under, promised + len(told)
        limits = [bound for _, bound in told]
        rows.append(
            (
                *place,
                f"{outside}/{len(ways)}",
                Span(min(firsts), max(firsts)),
                Span(min(limits), max(limits)) if limits else "none" if bounds else None,
                f"{under}/{len(told)}" if told else None,
                math.fsum(way.late for way in ways) / len(ways),
                sum(way.inside[-1] for way in ways) / len(ways),
            )
        )
    says = f"{kept} of {promised} first entries are under their bound"
    says += (
        f"; {at_home} other {'row begins and stays' if at_home == 1 else 'rows begin and stay'} inside"
        if at_home
        else ""
    )
    return sheet(f"{title}: entries", places, says, _MEANS_ENTRIES, _ENTRIES, rows)
