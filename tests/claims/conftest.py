"""Small records with a truth planted in them: what claims are judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from qbench.claims.base import Judgement
from qbench.claims.catalogue import judge
from qbench.registry import METHODS, PROBES
from qbench.store.record import Cost, DocumentLosses, LayerRow, Record

TOKENS = (100, 300, 200, 400)
FULL_LOSSES = (2.5, 3.0, 2.8, 2.9)
CHANCE = math.log(1024)
TRAINED = {"ste_qat", "lsq", "latent_grad", "noise_grad", "random_grad", "ft_then_ptq"}

Trace = dict[str, list[float]]


def documents(above: Sequence[float], tokens: Sequence[int]) -> list[DocumentLosses]:
    return [
        DocumentLosses(document=f"wikitext/{i}", tokens=n, loss_sum=n * (FULL_LOSSES[i % 4] + d))
        for i, (n, d) in enumerate(zip(tokens, above, strict=True))
    ]


def make_record(
    label: str, excess: float | Sequence[float] = 0.0, *, tokens: Sequence[int] = TOKENS, **fields: Any
) -> Record:
    """Return a record whose documents have the losses of full precision plus `excess`, one number or one a document."""
    parts = label.split("/")
    full = len(parts) == 3
    axes = {
        "model": parts[0],
        "quantizer": None if full else parts[1],
        "bits": None if full else int(parts[2].rstrip("b")),
        "method": parts[-2],
        "seed": int(parts[-1][1:]),
    }
    rows = documents([excess] * len(tokens) if isinstance(excess, int | float) else excess, tokens)
    filled: dict[str, Any] = {
        "cell_id": label.replace("/", "-"),
        "key": {},
        "axes": axes,
        "suite": "planted",
        "status": "ok",
        "metrics": {"loss/blocks128": sum(row.loss_sum for row in rows) / sum(tokens)},
        "documents": rows,
        "facts": {"chance_loss": CHANCE, "calibration": "128 windows of 128 tokens, calibration split"},
    }
    if fields.get("status", "ok") != "ok":
        filled |= {"metrics": {}, "documents": []}
    return Record(**(filled | fields))


class Bench:
    """Records of one model, planted one by one; options are filled in as a real cell's key has them.

    Parameters
    ----------
    model, quantizer : str
        Labels.
    seeds : sequence of int
        What is planted is planted in each.
    facts : dict, optional
        Of the model; for a landscape its valley.
    """

    def __init__(
        self,
        model: str = "m",
        quantizer: str = "mse",
        seeds: Sequence[int] = (0, 1, 2),
        facts: dict[str, Any] | None = None,
        grid: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.quantizer, self.seeds, self.facts, self.grid = model, quantizer, tuple(seeds), facts, grid
        self.records: dict[str, Record] = {}
        for seed in self.seeds:
            self._put(f"{model}/fp/s{seed}", {})

    def method(self, bits: int, name: str, excess: float | Sequence[float], **given: Any) -> Bench:
        """Plant a method's cell in every seed; `given` may be its options, and fields of the record."""
        fields = {key: given.pop(key) for key in [*Record.model_fields] if key in given}
        sources = given.pop("sources", None) or {METHODS.home(name): "x", "qbench.methods.problem": "x"}
        options = METHODS.get(name)(name=name, **given).model_dump(mode="json")
        label = METHODS.get(name)(name=name, **given).label()
        trained = name in TRAINED
        cost = Cost(train_tokens=4096 if trained else 0, train_steps=80 if trained else 0)
        proxy = fields.pop("layers", None) or [
            LayerRow(name="up", shape=(2, 2), weight_error=0.1, output_error=0.1, levels=4)
        ]
        method = {"options": options, "version": 1, "sources": sources}
        return self._all(bits, label, {"method": method}, excess, {"cost": cost, "layers": proxy, **fields})

    def probe(self, bits: int, name: str, metrics: dict[str, float], traces: Trace | None = None) -> Bench:
        """Plant a probe's cell in every seed."""
        probe = {"options": PROBES.get(name)(name=name).model_dump(mode="json"), "version": 1}
        key = {"probe": {**probe, "sources": {PROBES.home(name): "x"}}}
        return self._all(bits, name, key, 0.0, {"metrics": metrics, "traces": traces or {}, "documents": []})

    def only(self, *seeds: int) -> Bench:
        """Return a bench that plants into these seeds alone, in the same records."""
        other = Bench.__new__(Bench)
        other.__dict__ = {**self.__dict__, "seeds": seeds}
        return other

    def without(self, name: str, bits: int | None = None) -> Bench:
        """Return a bench without the records of a method or probe."""
        other = Bench.__new__(Bench)
        other.__dict__ = {**self.__dict__}
        other.records = {
            label: one
            for label, one in self.records.items()
            if str(one.axes["method"]).partition("[")[0] != name or bits not in (None, one.axes["bits"])
        }
        return other

    def sham(self, name: str) -> Bench:
        """Say of all cells of a method that a class from elsewhere made them, and change nothing else."""
        for record in self.records.values():
            if str(record.axes["method"]).partition("[")[0] == name:
                record.key["method"]["sources"] = {"sham.methods": "x", **record.key["method"]["sources"]}
        return self

    def verdict(self, claim: str, *others: Bench) -> Judgement:
        """Return the one judgement on a claim."""
        (found,) = judge([record for one in (self, *others) for record in one.records.values()], only=[claim])
        return found

    def _all(
        self, bits: int, label: str, key: dict[str, Any], excess: float | Sequence[float], fields: dict[str, Any]
    ) -> Bench:
        for seed in self.seeds:
            self._put(f"{self.model}/{self.quantizer}/{bits}b/{label}/s{seed}", key, excess, **fields)
        return self

    def _put(self, label: str, key: dict[str, Any], excess: float | Sequence[float] = 0.0, **fields: Any) -> None:
        grid = {} if self.grid is None else {"quantizer": {"options": self.grid, "version": 1, "sources": {}}}
        given = {"key": {**key, **grid}, **fields}
        if self.facts is not None:
            given["facts"] = {**self.facts, **fields.get("facts", {})}
        made = make_record(label, excess, **given)
        self.records[made.label] = made


@pytest.fixture(name="make_record", scope="session")
def make_record_fixture() -> Callable[..., Record]:
    return make_record


@pytest.fixture(scope="session")
def bench() -> Callable[..., Bench]:
    return Bench
