"""From records to what claims are about: one model and one quantizer, seed by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from qbench.claims import thresholds as limits
from qbench.claims.evidence import flaw, options_of
from qbench.claims.measured import Measured
from qbench.claims.regimes import Basin
from qbench.claims.statistics import paired_interval
from qbench.errors import QBenchError, StoreError
from qbench.store.newest import newest
from qbench.store.record import Record
from qbench.suite.cell import FP

Axes = Mapping[str, str | int | None]
"""`Cell.axes`; a cell that the suite skips has its reason under ``skip``."""

_DEPLOYED_BN = "recalibrate"


class LackingError(QBenchError):
    """Something that a claim needs is not there; the message names it."""


@dataclass(frozen=True)
class Subject:
    """A model and a quantizer: all that was measured of them.

    Attributes
    ----------
    model, quantizer : str
        Labels.
    seeds : tuple of int
        Seeds that were run or are expected.
    records : tuple of Record
        One a place: quantized cells and probes.
    full : mapping of int to Record
        Full precision, by seed.
    expected : frozenset of (int, int, str)
        Seed, bits and method (or probe) of every cell the suite has.
    """

    model: str
    quantizer: str
    seeds: tuple[int, ...]
    records: tuple[Record, ...] = ()
    full: Mapping[int, Record] = field(default_factory=dict)
    expected: frozenset[tuple[int, int, str]] = frozenset()

    @property
    def title(self) -> str:
        """Return ``model/quantizer``."""
        return f"{self.model}/{self.quantizer}"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return what is said of the model."""
        known = [*self.full.values(), *self.records]
        return dict(next((record.facts for record in known if record.status == "ok"), {}))

    @property
    def is_lattice(self) -> bool:
        """Whether bits only bound the codes: the step size is the quantizer's own."""
        return self.quantizer.partition("[")[0] == "lattice"

    @property
    def statistics_move(self) -> bool:
        """Whether batch norms are estimated again at every point, which derivatives at one point know nothing of."""
        return self._normed and self._bn == _DEPLOYED_BN

    @property
    def seeds_needed(self) -> int:
        """Return how many seeds a verdict takes: one where the task says that its seed changes nothing."""
        return 1 if self.facts.get("seeded") is False else limits.SEEDS

    @cached_property
    def basin(self) -> Basin:
        """Return what counts as inside and as failed."""
        losses = [one.loss for one in self.full.values() if one.loss is not None]
        return Basin.of(self.facts, sum(losses) / len(losses) if losses else None)

    @property
    def tolerance(self) -> float:
        """Return the excess that counts as nothing, nats: what the task states, or that of its kind."""
        return self.basin.tolerance

    @property
    def headroom(self) -> float | None:
        """Return ``L_chance - L_fp``, nats; None where there is no chance loss."""
        return self.basin.headroom

    def tau(self, se: float) -> float:
        """Return the threshold of the basin for an excess with this standard error, nats."""
        return self.basin.tau(se)

    def tau_f(self, se: float) -> float:
        """Return the excess from which a point with this standard error has failed, nats."""
        return self.basin.tau_f(se)

    def bits(self, name: str, seed: int) -> tuple[int, ...]:
        """Return the bits at which a method or probe was run or is expected in a seed, falling."""
        found = {
            bits
            for (at, bits, held), records in self._by_place.items()
            if (at, held) == (seed, name) and any(self._same_bn(record) for record in records)
        }
        for at, bits, label in self.expected:
            if at == seed and label.partition("[")[0] == name and (self._bn == "keep" or f"bn={self._bn}" in label):
                found.add(bits)
        return tuple(sorted(found, reverse=True))

    def rounding(self, seed: int, bits: int) -> Measured:
        """Return round-to-nearest.

        Raises
        ------
        LackingError
            There is none.
        """
        return self.plain(seed, bits, "rtn")

    def plain(self, seed: int, bits: int, name: str) -> Measured:
        """Return the cell of a method with the fewest options off their defaults.

        Raises
        ------
        LackingError
            There is none.
        """
        return min(self.arms(seed, bits, name), key=lambda one: (len(one.label), one.label))

    def best(self, seed: int, bits: int, name: str = "ste_qat") -> Measured:
        """Return the cell of a method with the least excess.

        Raises
        ------
        LackingError
            There is none.
        """
        return min(self.arms(seed, bits, name), key=lambda one: (one.excess, one.label))

    def arms(self, seed: int, bits: int, name: str) -> list[Measured]:
        """Return all sound cells of a method, sorted by label.

        Of ``ste_qat`` those of the theory: on a frozen grid, gradients as they are; of ``ft_then_ptq`` those
        that round.

        Raises
        ------
        LackingError
            There is none; the message says which failed and why.
        """
        places = self._by_place.get((seed, bits, name), [])
        sound = [record for record in places if flaw(record) is None and self._counts(record)]
        found = [self._measured(record, seed) for record in sound]
        if not found:
            raise LackingError(self._gap(seed, bits, name, places))
        return sorted(found, key=lambda one: one.label)

    def probe(self, seed: int, bits: int, name: str) -> Record:
        """Return the record of a probe.

        Raises
        ------
        LackingError
            There is none, or it is not sound.
        """
        places = self._by_place.get((seed, bits, name), [])
        sound = [record for record in places if flaw(record) is None]
        if not sound:
            raise LackingError(self._gap(seed, bits, name, places, "probe "))
        wanted = [record for record in sound if self._same_bn(record)]
        if not wanted:
            raise LackingError(f"probe {name} at {bits} bits with bn: {self._bn}, as the cells have it")
        return min(wanted, key=lambda record: (len(record.label), record.label))

    def failing(self, seed: int) -> list[int]:
        """Return the bits at which rounding fails, falling.

        Raises
        ------
        LackingError
            Rounding is missing at some bits.
        """
        bits = self.bits("rtn", seed)
        if not bits:
            raise LackingError("rtn")
        return [width for width in bits if self.rounding(seed, width).failed]

    def outside(self, seed: int) -> list[int]:
        """Return the bits at which rounding is outside the basin, falling; see `failing`."""
        return [width for width in self.bits("rtn", seed) if not self.rounding(seed, width).inside]

    def is_witness(self, seed: int, bits: int, label: str) -> bool:
        """Return whether a label is that of a sound cell of QAT on the frozen grid."""
        try:
            return any(one.label == label for one in self.arms(seed, bits, "ste_qat"))
        except LackingError:
            return False

    @cached_property
    def _bn(self) -> str:
        """Return which treatment of batch norms all arms get: the same, and estimated again where that was run."""
        treatments = {str(record.facts["bn"]) for record in self._named("rtn") if "bn" in record.facts}
        return _DEPLOYED_BN if _DEPLOYED_BN in treatments else "keep"

    def _named(self, name: str) -> list[Record]:
        return [record for place, found in self._by_place.items() if place[2] == name for record in found]

    def _counts(self, record: Record) -> bool:
        options = options_of(record)
        frozen = options.get("scale", "frozen") == "frozen" and options.get("gradient", "identity") == "identity"
        free = options.get("oscillation", "none") != "freeze"
        of_theory = {"ste_qat": frozen and free, "ft_then_ptq": options.get("ptq", "rtn") == "rtn"}
        own_loss = not options.get("distillation")
        return of_theory.get(str(options.get("name")), True) and own_loss and self._same_bn(record)

    def _same_bn(self, record: Record) -> bool:
        """Return whether batch norms got the treatment that all arms are compared with; true of models without any."""
        treated = record.facts.get("bn") or options_of(record).get("bn", self._bn)
        return treated == self._bn or not self._normed

    @cached_property
    def _normed(self) -> bool:
        return any(record.facts.get("batch_norm_layers") for record in self.records)

    @cached_property
    def _by_place(self) -> dict[tuple[int, int, str], list[Record]]:
        places: dict[tuple[int, int, str], list[Record]] = {}
        for record in self.records:
            axes = record.axes
            name = str(axes["method"]).partition("[")[0]
            places.setdefault((int(axes["seed"] or 0), int(axes["bits"] or 0), name), []).append(record)
        return places

    def _gap(self, seed: int, bits: int, name: str, found: Sequence[Record], kind: str = "") -> str:
        reasons = sorted({reason for record in found if (reason := flaw(record))})
        if not reasons and found:
            treated = f", batch norm {self._bn}" if self._normed else ""
            reasons = [
                f"none with the theory's options: frozen grid, the task's own loss, rounding to nearest{treated}"
            ]
        if not found and (seed, bits, name) in {(s, b, n.partition("[")[0]) for s, b, n in self.expected}:
            reasons = ["not run yet"]
        return f"{kind}{name} at {bits} bits" + (f" ({'; '.join(reasons)})" if reasons else "")

    def _measured(self, record: Record, seed: int) -> Measured:
        full = self.full.get(seed)
        if full is None or flaw(full) is not None or full.loss is None:
            raise LackingError(f"full precision of seed {seed}")
        chance = self.facts.get("chance_loss")
        if chance is not None and full.loss >= float(chance):
            raise LackingError("full precision that is better than chance")
        if record.cell_id not in self._cache:
            try:
                excess = paired_interval([(record, full)])
            except StoreError as error:
                raise LackingError(f"{record.label} that can be paired ({error})") from error
            se = excess.document_se or 0.0
            self._cache[record.cell_id] = Measured(record, excess.mean, se, self.tau(se), self.tau_f(se))
        return self._cache[record.cell_id]

    @cached_property
    def _cache(self) -> dict[str, Measured]:
        return {}


def subjects(records: Iterable[Record], expected: Iterable[Axes] = ()) -> list[Subject]:
    """Return one subject a model and quantizer, sorted.

    Parameters
    ----------
    records : iterable of Record
        Of several of one label the newest counts.
    expected : iterable of mapping, optional
        `Cell.axes` of every cell of the suite, so that a cell without a record is known to be missing.
    """
    chosen = sorted(newest(records).values(), key=lambda record: record.label)
    full = {(str(one.axes["model"]), int(one.axes["seed"] or 0)): one for one in chosen if one.axes["method"] == FP}
    wanted: dict[tuple[str, str], set[tuple[int, int, str]]] = {}
    for axes in expected:
        if axes["quantizer"] is not None and axes.get("skip") is None:
            place = (int(axes["seed"] or 0), int(axes["bits"] or 0), str(axes["method"]))
            wanted.setdefault((str(axes["model"]), str(axes["quantizer"])), set()).add(place)
    held: dict[tuple[str, str], list[Record]] = {}
    for record in chosen:
        if record.axes["quantizer"] is not None:
            held.setdefault((str(record.axes["model"]), str(record.axes["quantizer"])), []).append(record)
    found = []
    for model, quantizer in sorted(wanted.keys() | held.keys()):
        places, ours = wanted.get((model, quantizer), set()), held.get((model, quantizer), [])
        seeds = {seed for seed, _, _ in places} | {int(record.axes["seed"] or 0) for record in ours}
        of_model = {seed: record for (name, seed), record in full.items() if name == model}
        subject = Subject(model, quantizer, tuple(sorted(seeds)), tuple(ours), of_model, frozenset(places))
        found.append(subject)
    return found
