"""Readings and cases with a truth planted in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import pytest

from qbench.claims.regimes import Basin
from qbench.diagnosis.depth import depth
from qbench.diagnosis.reading import Depths, Reading
from qbench.registry import METHODS, PROBES
from qbench.store.record import Cost, DocumentLosses, Record

BASIN = Basin(0.05, headroom=4.0)


def make_reading(
    bits: int,
    matched: float,
    second_order: float | None = None,
    *,
    sd: float = 0.0,
    basin: Basin = BASIN,
    layers: Mapping[str, tuple[float, float]] | None = None,
    **fields: Any,
) -> Reading:
    """Return a reading of a model on which errors as large as those of these bits cost so much, nats."""
    other = matched if second_order is None else second_order
    filled: dict[str, Any] = {
        "model": "llama-1m",
        "quantizer": "mse",
        "bn": "keep",
        "bits": bits,
        "seed": 0,
        "basin": basin,
        "relative_error": 1.1 * 2.0**-bits,
        "shrinkage": 0.0,
        "matched": Depths(depth(matched, basin.tolerance), sd),
        "second_order": Depths(depth(other, basin.tolerance), sd),
        "layers": layers or {"up": (4.0, 1.1 * 2.0**-bits)},
        "tokens": 1000.0,
        "passes": 5.0,
        "seconds": 1.0,
    }
    return Reading(**(filled | fields))


@pytest.fixture(scope="session")
def reading() -> Callable[..., Reading]:
    return make_reading


FULL, TOKENS = (2.5, 3.0, 2.8, 2.9), (100, 300, 200, 400)
TRAINED = {"ste_qat"}


def make_record(
    method: str,
    bits: int | None = None,
    excess: float = 0.0,
    *,
    model: str = "llama-1m",
    quantizer: str = "mse",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Record:
    """Return the record of a cell that loses so much; a probe's where `fields` has its metrics.

    Parameters
    ----------
    method : str
        ``fp``, or the name of a method or probe, whose label follows from its options.
    """
    full, probe = method == "fp", method in PROBES.names()
    registry = PROBES if probe else METHODS
    key: dict[str, Any] = {}
    label = method
    if not full:
        spec = registry.get(method).model_validate({"name": method, **(options or {})})
        label = spec.label()
        described = {"options": spec.model_dump(mode="json"), "sources": {registry.home(method): "x"}}
        key = {"probe" if probe else "method": described}
    rows = [
        DocumentLosses(document=f"d/{at}", tokens=count, loss_sum=count * (loss + excess))
        for at, (loss, count) in enumerate(zip(FULL, TOKENS, strict=True))
    ]
    trained = method in TRAINED
    filled: dict[str, Any] = {
        "cell_id": f"{model}-{quantizer}-{bits}-{label}-{seed}",
        "key": key,
        "axes": {
            "model": model,
            "quantizer": None if full else quantizer,
            "bits": bits,
            "method": label,
            "seed": seed,
        },
        "suite": "planted",
        "status": "ok",
        "metrics": {} if probe else {"loss/blocks128": sum(row.loss_sum for row in rows) / sum(TOKENS)},
        "documents": [] if probe else rows,
        "facts": {"chance_loss": 6.9},
        "cost": Cost(
            method_seconds=2.0,
            evaluation_seconds=1.0,
            train_tokens=4096 if trained else 0,
            train_steps=80 if trained else 0,
        ),
    }
    return Record(**(filled | fields))


def margin_metrics(matched: float, second_order: float, se: float = 0.0) -> dict[str, float]:
    """Return what the probe `margin` says of a model of two layers."""
    return {
        "full_loss": 2.8,
        "sample_tokens": 4096.0,
        "passes": 5.0,
        "matched/excess": matched,
        "matched/se": se,
        "second_order/excess": second_order,
        "second_order/se": se,
        "relative_error": 0.1,
        "shrinkage": 0.01,
        "relative_error/up": 0.08,
        "relative_error/down": 0.12,
        "weights/up": 400.0,
        "weights/down": 600.0,
    }


def make_margin(
    bits: int, matched: Sequence[float], second_order: Sequence[float] | None = None, se: float = 0.0, **fields: Any
) -> Record:
    """Return a record of the probe `margin`, whose draws lost so much."""
    other = matched if second_order is None else second_order
    metrics = margin_metrics(fmean(matched), fmean(other), se)
    traces = {"matched/draws": list(matched), "second_order/draws": list(other)}
    return make_record("margin", bits, **{"metrics": metrics, "traces": traces, **fields})


@pytest.fixture(scope="session")
def record() -> Callable[..., Record]:
    return make_record


@pytest.fixture(scope="session")
def margin_record() -> Callable[..., Record]:
    return make_margin
