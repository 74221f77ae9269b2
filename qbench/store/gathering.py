"""From records to results: of each cell what a baseline keeps, with its repeats under other arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from qbench import __version__
from qbench.errors import StoreError
from qbench.store.environment import shared_environment
from qbench.store.ground import device_class
from qbench.store.newest import newest
from qbench.store.record import DocumentLosses, Record
from qbench.store.results import (
    CellResult,
    Evaluation,
    Results,
    evaluation_name,
    excess,
    full_precision_label,
)

_DECIMALS = 6
"""Of a document's summed loss, nats: far below every tolerance, and half the size of a file."""


def classes_of(records: Iterable[Record]) -> list[str]:
    """Return the classes of device that records were made on, sorted; records that were not executed have none."""
    return sorted({device_class(record.environment) for record in records if record.environment})


def gather(records: Iterable[Record], repeats: Sequence[Iterable[Record]] = ()) -> Results:
    """Return the results that records make; of several records of one label the newest counts.

    Parameters
    ----------
    records : iterable of Record
        What a run of the suite left. Those of probes have no place in a baseline.
    repeats : sequence of iterables of Record
        The same cells again under other arithmetic, one entry a repeat. What is of another identity or another class
        of device, did not end well, or fell back where the run did not, says nothing about noise and is left out.
    """
    chosen = newest(record for record in records if not record.is_probe)
    evaluations: dict[str, Evaluation] = {}
    for label in sorted(chosen, key=lambda label: (label != full_precision_label(chosen[label].axes), label)):
        record = chosen[label]
        name = evaluation_name(record.axes)
        known = evaluations.get(name)
        if known is None or (record.documents and not known.documents):
            evaluations[name] = _evaluation(record)
    environment = _most_common_ground(chosen.values())
    cells = {
        label: _compact(record, evaluations[evaluation_name(record.axes)], environment)
        for label, record in sorted(chosen.items())
    }
    for repeat in repeats:
        _add_repeat(cells, chosen, repeat)
    return Results(environment=environment, qbench_version=__version__, evaluations=evaluations, cells=cells)


def one_class(records: Sequence[Record]) -> str:
    """Return the class of device that all records were made on.

    Raises
    ------
    StoreError
        They were made on several, or not one of them was executed.
    """
    found = classes_of(records)
    if len(found) == 1:
        return found[0]
    raise StoreError(
        f"the records were made on several classes of device ({', '.join(found)}): run the suite on one"
        if found
        else "not one cell was executed: nothing says on which class of device"
    )


def _evaluation(record: Record) -> Evaluation:
    loss, accuracy = (record.facts.get(f"chance_{name}") for name in ("loss", "accuracy"))
    return Evaluation(
        documents=[row.document for row in record.documents],
        tokens=[row.tokens for row in record.documents],
        chance_loss=None if loss is None else float(loss),
        chance_accuracy=None if accuracy is None else float(accuracy),
    )


def _most_common_ground(records: Iterable[Record]) -> dict[str, str]:
    found = Counter(tuple(shared_environment([record]).items()) for record in records if record.environment)
    return dict(min(found.items(), key=lambda counted: (-counted[1], counted[0]))[0]) if found else {}


def _compact(record: Record, evaluation: Evaluation, environment: dict[str, str]) -> CellResult:
    own = shared_environment([record]) if record.environment else {}
    return CellResult(
        axes=record.axes,
        status=record.status,
        reason=record.reason,
        metrics=record.metrics,
        effective_bits=record.effective_bits,
        weights_sha256=record.weights_sha256,
        fallback=bool(record.fallbacks),
        losses=[round(row.loss_sum, _DECIMALS) for row in record.documents] if _same(record, evaluation) else [],
        environment={name: value for name, value in own.items() if environment.get(name) != value},
    )


def _same(record: Record, evaluation: Evaluation) -> bool:
    names = list(zip(evaluation.documents, evaluation.tokens, strict=True))
    return [_name(row) for row in record.documents] == names


def _name(row: DocumentLosses) -> tuple[str, int]:
    return row.document, row.tokens


def _add_repeat(cells: dict[str, CellResult], chosen: dict[str, Record], repeat: Iterable[Record]) -> None:
    again = {
        label: CellResult(axes=record.axes, status=record.status, metrics=record.metrics)
        for label, record in newest(record for record in repeat if not record.is_probe).items()
        if label in chosen
        and record.status == "ok"
        and bool(record.fallbacks) == bool(chosen[label].fallbacks)
        and record.cell_id == chosen[label].cell_id
        and device_class(record.environment) == device_class(chosen[label].environment)
    }
    for label, cell in again.items():
        judged = excess(cell, again.get(full_precision_label(cell.axes)))
        if judged is not None and math.isfinite(judged):
            cells[label].repeats.append(judged)
        if cell.accuracy is not None:
            cells[label].accuracy_repeats.append(cell.accuracy)
        if cell.sqnr is not None:
            cells[label].sqnr_repeats.append(cell.sqnr)
