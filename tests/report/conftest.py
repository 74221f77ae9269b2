"""Records with documents: what a leaderboard is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from qbench.store.record import Cost, DocumentLosses, LayerRow, Record

MakeRecord = Callable[..., Record]

TOKENS = (100, 300, 200, 400)
FULL_LOSSES = (2.5, 3.0, 2.8, 2.9)


def _make(
    label: str,
    excess: float | Sequence[float] = 0.0,
    *,
    tokens: Sequence[int] = TOKENS,
    fallback: str | None = None,
    **fields: Any,
) -> Record:
    """Return a record whose documents have the losses of full precision plus `excess`, one number or one a document."""
    parts = label.split("/")
    full = len(parts) == 3
    bits = None if full else int(parts[2].rstrip("b"))
    axes = {
        "model": parts[0],
        "quantizer": None if full else parts[1],
        "bits": bits,
        "method": parts[-2],
        "seed": int(parts[-1][1:]),
    }
    above = [excess] * len(tokens) if isinstance(excess, int | float) else excess
    documents = [
        DocumentLosses(document=f"wikitext/{i}", tokens=n, loss_sum=n * (FULL_LOSSES[i % 4] + d))
        for i, (n, d) in enumerate(zip(tokens, above, strict=True))
    ]
    loss = sum(row.loss_sum for row in documents) / sum(tokens)
    layer = LayerRow(name="up", shape=(2, 2), weight_error=0.1, output_error=0.1, levels=4, fallback=fallback)
    trained = parts[-2].startswith(("ste", "lsq"))
    filled: dict[str, Any] = {
        "cell_id": label.replace("/", "-"),
        "key": {},
        "axes": axes,
        "suite": "tiny",
        "status": "ok",
        "metrics": {
            "loss/blocks128": loss,
            "perplexity/blocks128": math.exp(min(loss, 700)),
            "next_sentence/acc": 0.5,
            **({} if bits is None else {"weight_sqnr_db": 6.0 * bits}),
        },
        "documents": documents,
        "layers": [] if full else [layer],
        "effective_bits": None if bits is None else bits + 0.25,
        "facts": {
            "chance_loss": math.log(1024),
            "parameters": 917632,
            "quantized_layers": 28,
            "floating_point": "embedding, tied head, norms",
            "grid": "symmetric, per channel",
        },
        "cost": Cost(
            method_seconds=0.0 if full else 40.0 if trained else 0.5,
            peak_memory_bytes=600 << 20,
            train_tokens=204800 if trained else 0,
        ),
        "environment": {"qbench": "0.1.0", "python": "3.11.9", "torch": "2.8.0", "device": "cpu"},
        "started": f"2026-08-0{axes['seed'] + 1}T10:00:00+00:00",
        "ended": f"2026-08-0{axes['seed'] + 1}T10:01:00+00:00",
    }
    if fields.get("status", "ok") != "ok":
        filled |= {"metrics": {}, "documents": []}
    return Record(**(filled | fields))


def _make_image(
    label: str, excess: float | Sequence[float] = 0.0, accuracy: float = 0.984, *, bn: str | None = None, **fields: Any
) -> Record:
    """Return a record of an image classifier; `bn` is what became of its batch norms."""
    plain = _make(label, excess, tokens=(10, 10, 10, 10))
    sqnr = {name: value for name, value in plain.metrics.items() if name == "weight_sqnr_db"}
    facts = {name: value for name, value in plain.facts.items() if name != "floating_point"} | {
        "chance_loss": math.log(10),
        "chance_accuracy": 0.1,
        "parameters": 77850,
        "calibration": "256 images of 1x28x28, calibration split",
        "evaluation": "1000 images of 1x28x28, evaluation split",
        **({} if bn is None else {"bn": bn, "batch_norm_layers": 9}),
    }
    losses = [
        DocumentLosses(
            document=f"images {10 * i}-{10 * i + 9}", tokens=10, loss_sum=row.loss_sum - 10 * (FULL_LOSSES[i] - 0.06)
        )
        for i, row in enumerate(plain.documents)
    ]
    metrics = {
        "loss/cross_entropy": sum(row.loss_sum for row in losses) / 40,
        "accuracy/top1": accuracy,
        **sqnr,
    }
    failed = fields.get("status", "ok") != "ok"
    made = {"documents": [] if failed else losses, "metrics": {} if failed else metrics, "facts": facts}
    return plain.model_copy(update=made | fields)


@pytest.fixture(scope="session")
def make_record() -> MakeRecord:
    return _make


@pytest.fixture(scope="session")
def make_image_record() -> MakeRecord:
    return _make_image
