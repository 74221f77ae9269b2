"""Blessed results of a suite, in one file kept in git: ``results/baselines/<suite>.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qbench import __version__
from qbench.atomic import write_text
from qbench.errors import StoreError, nearest
from qbench.store.environment import shared_environment
from qbench.store.floats import dumps
from qbench.store.newest import newest
from qbench.store.record import Record, Status, find_accuracy, find_loss
from qbench.store.spread import Spread, measure_spread

BASELINE_VERSION = 1


class BaselineCell(BaseModel):
    """What a baseline keeps of one cell.

    Attributes
    ----------
    axes, status, reason, metrics, effective_bits, weights_sha256
        As in `Record`.
    fallback : bool
        Whether a layer fell back.
    """

    model_config = ConfigDict(extra="forbid")

    axes: dict[str, str | int | None]
    status: Status
    reason: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    effective_bits: float | None = None
    weights_sha256: str | None = None
    fallback: bool = False

    @property
    def loss_key(self) -> str | None:
        """Return the name of the loss in `metrics`, or None; see `find_loss`."""
        return find_loss(self.metrics)

    @property
    def loss(self) -> float | None:
        """Return the evaluation loss in nats a token (or an image), or None."""
        return None if self.loss_key is None else self.metrics[self.loss_key]

    @property
    def accuracy(self) -> float | None:
        """Return the share of images classified as they are labelled, or None."""
        return find_accuracy(self.metrics)

    @property
    def flaw(self) -> str | None:
        """Return why the cell is not clean, or None."""
        if self.status != "ok":
            return f"{self.status}: {self.reason or 'no reason given'}"
        if self.fallback:
            return "a layer fell back"
        return None if self.loss is None or math.isfinite(self.loss) else f"loss is {self.loss}"


class Baseline(BaseModel):
    """Blessed results of one suite.

    Attributes
    ----------
    schema_version : int
        Version of this layout.
    suite, qbench_version : str
        What was run, by which version.
    environment : dict of str to str
        See `shared_environment`.
    cells : dict of str to BaselineCell
        By label (`cell_label` of the axes): a cell keeps its place when its identity changes.
    spread : list of Spread
        Excess loss over the seeds of each row.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = BASELINE_VERSION
    suite: str
    qbench_version: str
    environment: dict[str, str] = Field(default_factory=dict)
    cells: dict[str, BaselineCell]
    spread: list[Spread] = Field(default_factory=list)


def make_baseline(records: Iterable[Record], *, suite: str | None = None) -> Baseline:
    """Return the baseline that records make; of several records of one label the newest counts.

    Parameters
    ----------
    records : iterable of Record
        What a run of the suite left.
    suite : str, optional
        The suite's name; not needed when all records name the same one.

    Raises
    ------
    StoreError
        There is no record, or the records name several suites and none is given.
    """
    chosen = newest(record for record in records if not record.is_probe)
    suites = sorted({record.suite for record in chosen.values()})
    if not chosen:
        raise StoreError("there are no records to make a baseline of: run the suite first")
    if suite is None and len(suites) > 1:
        raise StoreError(f"the records are of several suites ({', '.join(suites)}): say which one to bless")
    return Baseline(
        suite=suite or suites[0],
        qbench_version=__version__,
        environment=shared_environment(chosen.values()),
        cells={label: _compact(record) for label, record in sorted(chosen.items())},
        spread=measure_spread(chosen.values()),
    )


def read_baseline(path: Path) -> Baseline:
    """Return the baseline in a file.

    Raises
    ------
    StoreError
        The file is missing, is no baseline, or was written by a newer qbench.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"no baseline at {path}: bless a run first") from error
    except ValueError as error:
        raise StoreError(f"{path} is no baseline: not JSON ({error})") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > BASELINE_VERSION:
        raise StoreError(f"{path}: schema_version {version} was written by a newer qbench: update qbench")
    try:
        return Baseline.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{path} is no baseline: {place}: {first['msg']}") from error


def write_baseline(
    path: Path, baseline: Baseline, *, expected_labels: Collection[str], accepted: Collection[str] = ()
) -> None:
    """Bless: write a baseline, one line a cell, in one step.

    Parameters
    ----------
    path : Path
        The file to make or replace.
    baseline : Baseline
        What to write.
    expected_labels : collection of str
        Every cell the suite runs; one that is not in the baseline is missing.
    accepted : collection of str
        Labels that may be missing, failed or fallen back.

    Raises
    ------
    StoreError
        A cell is missing or not clean and is not accepted, or an accepted label is no cell at all.
    """
    labels = set(expected_labels) | set(baseline.cells)
    for label in accepted:
        if label not in labels:
            raise StoreError(f"cannot accept {label!r}, which is no cell of {baseline.suite}{nearest(label, labels)}")
    flaws = {label: "missing" for label in sorted(labels - set(baseline.cells))}
    flaws |= {label: cell.flaw for label, cell in baseline.cells.items() if cell.flaw}
    refused = [f"{label} ({flaw})" for label, flaw in sorted(flaws.items()) if label not in accepted]
    if refused:
        raise StoreError(
            f"not blessed, because of {len(refused)} of {len(labels)} cells: {', '.join(refused)}. "
            "Run them again, or name the ones to accept"
        )
    write_text(path, _lines(baseline))


def _compact(record: Record) -> BaselineCell:
    return BaselineCell(
        axes=record.axes,
        status=record.status,
        reason=record.reason,
        metrics=record.metrics,
        effective_bits=record.effective_bits,
        weights_sha256=record.weights_sha256,
        fallback=bool(record.fallbacks),
    )


def _lines(baseline: Baseline) -> str:
    # One line a cell, so that a change to one cell is one line of a diff.
    data = baseline.model_dump()
    cells = ",\n".join(f"{dumps(label)}: {dumps(cell)}" for label, cell in sorted(data.pop("cells").items()))
    spread = ",\n".join(dumps(row) for row in data.pop("spread"))
    head = ",\n".join(f"{dumps(name)}: {dumps(value)}" for name, value in sorted(data.items()))
    return f'{{\n{head},\n"cells": {{\n{cells}\n}},\n"spread": [\n{spread}\n]\n}}\n'
