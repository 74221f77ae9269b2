"""Records of landscapes by what differs between them: the landscape, its lattice, the method, and the seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qbench.claims.evidence import options_of
from qbench.claims.landscapes import entry_bound
from qbench.claims.thresholds import LATE
from qbench.claims.trajectories import is_plain
from qbench.report.landscape_sheet import Place, Point
from qbench.store.record import Record
from qbench.suite.cell import FP

PLAIN_WORDS = frozenset({"optimizer=sgd", "momentum=0", "schedule=constant", "clip_norm=None", "act_order=false"})
_IN_COLUMNS = ("steps=", "learning_rate=")


@dataclass(frozen=True)
class Cells:
    """The seeds of one method on one lattice of one landscape.

    Attributes
    ----------
    model, quantizer, method : str
        Labels.
    records : tuple of Record
        Those that ended well, with no layer that fell back; by seed. Never empty.
    expected : int
        Seeds there should be.
    """

    model: str
    quantizer: str
    method: str
    records: tuple[Record, ...]
    expected: int

    @property
    def one(self) -> Record:
        """Return the first seed."""
        return self.records[0]

    @property
    def missing(self) -> str | None:
        """Return ``2/3 seeds`` where a seed is missing: then there is no mean."""
        return None if len(self.records) >= self.expected else f"{len(self.records)}/{self.expected} seeds"

    @property
    def landscape(self) -> dict[str, Any]:
        """Return the options of the landscape."""
        found: dict[str, Any] = self.one.key.get("model", {}).get("options", {})
        return found

    @property
    def facts(self) -> dict[str, float]:
        """Return what the landscape says of itself."""
        found: dict[str, float] = self.one.facts["valley"]
        return found

    @property
    def options(self) -> dict[str, Any]:
        """Return the method's options, defaults included."""
        return options_of(self.one)

    @property
    def step(self) -> float | None:
        """Return the lattice's step in units of the weights; None on another quantizer."""
        found = self.one.key.get("quantizer", {}).get("options", {})
        return float(found["step"]) if "step" in found and found.get("unit") == "absolute" else None

    @property
    def rate(self) -> float | None:
        """Return the learning rate of a training."""
        found = self.options.get("learning_rate")
        return None if found is None else float(found)

    @property
    def steps(self) -> int | None:
        """Return the updates of a training."""
        found = self.options.get("steps")
        return None if found is None else int(found)

    @property
    def name(self) -> str:
        """Return the method's name, with the options that no column tells; those of plain training go without."""
        name, _, rest = self.method.partition("[")
        shown = [one for one in rest.removesuffix("]").split(",") if one and one not in PLAIN_WORDS]
        told = [one for one in shown if not one.startswith(_IN_COLUMNS)]
        if self.ways and self.rate and not is_plain(self.options):
            told.insert(0, "not plain")
        return f"{name}[{','.join(told)}]" if told else name

    @property
    def ways(self) -> list[Way]:
        """Return the trainings that were looked at on their way, and began on a known side of the wall."""
        return [Way(one, self.facts["rho"]) for one in self.records if _looked_at(one)]

    def point(self) -> Point | str | None:
        """Return the mean end of all seeds, or what stands in its place."""
        ends = [(one.metrics.get("valley/normal_distance"), one.loss) for one in self.records]
        known = [(away, loss) for away, loss in ends if away is not None and loss is not None]
        if len(known) < len(ends):
            return None
        if self.missing:
            return self.missing
        away, loss = (math.fsum(column) / len(known) for column in zip(*known, strict=True))
        return Point(away, loss, away > self.facts["rho"])


@dataclass(frozen=True)
class Way:
    """One training on its way.

    Attributes
    ----------
    record : Record
        With the traces of a trajectory.
    rho : float
        The wall's distance from the river: up to there a point is inside.
    """

    record: Record
    rho: float

    @property
    def step(self) -> list[float]:
        """Return the updates made at each moment."""
        return self.record.traces["trajectory/step"]

    @property
    def inside(self) -> list[bool]:
        """Return whether the deployed weights are in the basin, moment by moment."""
        return [away <= self.rho for away in self.record.traces["trajectory/valley/normal_distance"]]

    @property
    def first(self) -> float:
        """Return the first moment inside, infinite where there is none."""
        return next((step for step, inside in zip(self.step, self.inside, strict=True) if inside), math.inf)

    @property
    def late(self) -> float:
        """Return the share inside of the moments in the last fifth of training."""
        last = [inside for step, inside in zip(self.step, self.inside, strict=True) if step > LATE * self.step[-1]]
        return sum(last) / len(last) if last else math.nan

    def bound(self, facts: dict[str, float]) -> float | None:
        """Return the theorem's bound on the first entry, as claim T1 has it; infinite where nothing is promised.

        It is for plain training that begins outside, with the largest error and gradient seen until the entry.
        """
        options = options_of(self.record)
        noise = self.record.key.get("model", {}).get("options", {}).get("noise", 0)
        if options.get("name") != "ste_qat" or not is_plain(options) or noise or self.inside[0]:
            return None
        seen = sum(step <= self.first for step in self.step)
        seen_of = ("quantization_error", "gradient_norm")
        curves = [self.record.traces.get(f"trajectory/valley/{name}") for name in seen_of]
        start = self.record.traces.get("trajectory/valley/latent_distance")
        if not start or not all(curves):
            return None
        error, gradient = (max((curve or [])[:seen]) for curve in curves)
        return entry_bound(start[0], float(options["learning_rate"]), facts, error, gradient)


def cells(records: Iterable[Record], expected: Sequence[Any]) -> list[Cells]:
    """Return the cells of landscapes, in the order of the suite, without full precision and its controls.

    Parameters
    ----------
    records : iterable of Record
        One a label; those of other models are left out.
    expected : sequence of mapping
        `Cell.axes` of the suite's cells; of probes there may be more records than these name.
    """
    wanted: dict[tuple[Any, ...], int] = {}
    for axes in expected:
        if axes["quantizer"] is not None and axes.get("skip") is None:
            wanted[_place(axes)] = wanted.get(_place(axes), 0) + 1
    held: dict[tuple[Any, ...], list[Record]] = {place: [] for place in wanted}
    for record in records:
        if record.clean and is_landscape(record) and record.axes["quantizer"] is not None:
            held.setdefault(_place(record.axes), []).append(record)
    return [
        Cells(
            str(place[0]), str(place[1]), str(place[3]), tuple(sorted(found, key=_seed)), wanted.get(place, len(found))
        )
        for place, found in held.items()
        if found and place[3] != FP
    ]


def is_landscape(record: Record) -> bool:
    """Return whether a record is of a landscape that says where its wall is."""
    valley = record.facts.get("valley")
    return isinstance(valley, dict) and {"rho", "wall", "flat", "offset"} <= valley.keys()


def families(found: Sequence[Cells], ignored: frozenset[str]) -> list[list[Cells]]:
    """Return the cells of landscapes that differ in the ignored options alone, together."""
    groups: dict[str, list[Cells]] = {}
    for one in found:
        options = {name: value for name, value in one.landscape.items() if name not in ignored}
        groups.setdefault(json.dumps(options, sort_keys=True, default=str), []).append(one)
    return list(groups.values())


def places_of(found: Iterable[Cells]) -> list[Place]:
    """Return the labels of the models and quantizers, each pair once."""
    return list(dict.fromkeys((one.model, one.quantizer) for one in found))


def _looked_at(record: Record) -> bool:
    traces = record.traces
    return bool(traces.get("trajectory/step")) and bool(traces.get("trajectory/valley/normal_distance"))


def _place(axes: Any) -> tuple[Any, ...]:
    return tuple(axes[name] for name in ("model", "quantizer", "bits", "method"))


def _seed(record: Record) -> int:
    return int(record.axes["seed"] or 0)
