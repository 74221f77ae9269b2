"""Records without documents: what the store needs of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qbench.store.record import LayerRow, Record

MakeRecord = Callable[..., Record]


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
