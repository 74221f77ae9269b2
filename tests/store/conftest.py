"""What the store needs of records: single ones without documents, and whole runs with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from qbench.store.record import DocumentLosses, LayerRow, Record

MakeRecord = Callable[..., Record]

TOKENS = (100, 300, 200, 400, 150, 250)
OF_DOCUMENTS = (0.3, -0.2, 0.1, 0.0, -0.1, 0.2)


def _make(
    label: str = "llama-1m/mse/2b/gptq/s0", loss: float = 3.0, fallback: str | None = None, **fields: Any
) -> Record:
    parts = label.split("/")
    full = len(parts) == 3
    axes = {
        "model": parts[0],
        "quantizer": None if full else parts[1],
        "bits": None if full else int(parts[2].rstrip("b")),
        "method": parts[-2],
        "seed": int(parts[-1][1:]),
    }
    layer = LayerRow(name="up", shape=(2, 2), weight_error=0.1, output_error=0.1, levels=4, fallback=fallback)
    filled: dict[str, Any] = {
        "cell_id": label.replace("/", "-"),
        "key": {},
        "axes": axes,
        "suite": "tiny",
        "status": "ok",
        "metrics": {"loss/blocks128": loss, "perplexity/blocks128": 20.0},
        "layers": [] if full else [layer],
        "environment": {"torch": "2.8.0", "threads": 2},
        "ended": "2026-08-01T10:00:00+00:00",
    }
    return Record(**(filled | fields))


@pytest.fixture(scope="session")
def make_record() -> MakeRecord:
    return _make


def _run(
    excess: Mapping[str, float | Sequence[float]], full: Mapping[str, float] | float = 2.9, **fields: Any
) -> list[Record]:
    """Return full-precision cells and, of each label, a record with a loss above them: one number or one a document.

    ``full`` is the loss of full precision, of all models and seeds or by model and seed (``m/s0``).
    """
    groups = {"/".join((label.split("/")[0], label.split("/")[-1])): None for label in excess}
    levels = {group: full if isinstance(full, int | float) else full[group] for group in groups}
    records = [
        _with_documents(f"{group.split('/')[0]}/fp/{group.split('/')[1]}", levels[group], 0.0, fields)
        for group in groups
    ]
    for label, above in excess.items():
        level = levels["/".join((label.split("/")[0], label.split("/")[-1]))]
        records.append(_with_documents(label, level, above, fields))
    return records


def _with_documents(label: str, level: float, above: float | Sequence[float], fields: dict[str, Any]) -> Record:
    each = [above] * len(TOKENS) if isinstance(above, int | float) else above
    sums = [n * (level + own + d) for n, own, d in zip(TOKENS, OF_DOCUMENTS, each, strict=True)]
    documents = [
        DocumentLosses(document=f"d{i}", tokens=n, loss_sum=total)
        for i, (n, total) in enumerate(zip(TOKENS, sums, strict=True))
    ]
    facts = {"chance_loss": 6.9}
    return _make(label, sum(sums) / sum(TOKENS), **({"documents": documents, "facts": facts} | fields))


@pytest.fixture(scope="session")
def make_run() -> Callable[..., list[Record]]:
    return _run
