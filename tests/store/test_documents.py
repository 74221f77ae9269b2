"""The loss of a record, and that of its documents."""

from __future__ import annotations

from typing import Any

import pytest

from qbench.store.documents import adds_up, loss_of_documents
from qbench.store.record import DocumentLosses, Record


def record(loss: float | None, *rows: tuple[int, float]) -> Record:
    documents = [DocumentLosses(document=str(i), tokens=n, loss_sum=total) for i, (n, total) in enumerate(rows)]
    metrics = {} if loss is None else {"loss/toy": loss}
    axes: dict[str, Any] = {"model": "m", "quantizer": None, "bits": None, "method": "fp", "seed": 0}
    return Record(cell_id="a", key={}, axes=axes, suite="s", status="ok", metrics=metrics, documents=documents)


def test_a_document_weighs_what_its_tokens_are() -> None:
    assert loss_of_documents(record(None, (1, 4.0), (3, 3.0))) == 1.75  # the mean of means would be 2.5
    assert loss_of_documents(record(2.0)) is None


@pytest.mark.parametrize(
    ("loss", "sound"), [(1.75, True), (1.75 + 1e-7, True), (1.75 + 1e-5, False), (2.5, False), (float("nan"), False)]
)
def test_a_loss_adds_up_but_for_rounding(loss: float, sound: bool) -> None:
    assert adds_up(record(loss, (1, 4.0), (3, 3.0))) is sound


def test_where_one_of_both_is_not_told_nothing_contradicts() -> None:
    assert adds_up(record(None, (1, 4.0)))
    assert adds_up(record(2.0))
