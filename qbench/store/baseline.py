"""Blessed results of a suite, in one file kept in git: ``results/baselines/<suite>.json``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from qbench.atomic import write_text
from qbench.errors import StoreError
from qbench.store.floats import dumps
from qbench.store.ground import device_class
from qbench.store.results import CellResult, Results
from qbench.store.spread import measure_spread

BASELINE_VERSION = 2


class Baseline(BaseModel):
    """Blessed results of one suite.

    Attributes
    ----------
    schema_version : int
        Version of this layout.
    suite : str
        What was run.
    devices : dict of str to Results
        By class of device (`device_class`).
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = BASELINE_VERSION
    suite: str
    devices: dict[str, Results]


def read_baseline(path: Path) -> Baseline:
    """Return the baseline in a file, brought up to the current layout.

    Raises
    ------
    StoreError
        The file is missing, is no baseline, or was written by a newer qbench.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"no baseline at {path}: bless a run first") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is no baseline: not JSON ({error})") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or version < 1:
        raise StoreError(f"{path} is no baseline: no schema_version")
    if version > BASELINE_VERSION:
        raise StoreError(f"{path}: schema_version {version} was written by a newer qbench: update qbench")
    try:
        for old in range(version, BASELINE_VERSION):
            data = {**_MIGRATIONS[old](data), "schema_version": old + 1}
        return Baseline.model_validate(_without_spread(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{path} is no baseline: {place}: {first['msg']}") from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline, one line a cell, in one step."""
    write_text(path, _lines(baseline))


def _first_to_second(data: dict[str, Any]) -> dict[str, Any]:
    """Make of the one ground of version 1 the only class of device; what was accepted then is expected to fail."""
    results: dict[str, Any] = {name: data[name] for name in ("environment", "qbench_version", "cells") if name in data}
    cells = data.get("cells")
    flawed = {
        label
        for label, cell in (cells if isinstance(cells, dict) else {}).items()
        if CellResult.model_validate(cell).flaw is not None
    }
    results["expected"] = {label: {"reason": "accepted before reasons were kept"} for label in sorted(flawed)}
    return {"suite": data.get("suite"), "devices": {device_class(data.get("environment") or {}): results}}


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _first_to_second}


def _without_spread(data: dict[str, Any]) -> dict[str, Any]:
    # It follows from the cells, and is in the file for those who read it: tolerances cannot be loosened there.
    devices = data.get("devices")
    if not isinstance(devices, dict):
        return data
    kept = {
        name: {key: value for key, value in part.items() if key != "spread"} if isinstance(part, dict) else part
        for name, part in devices.items()
    }
    return {**data, "devices": kept}


def _lines(baseline: Baseline) -> str:
    # One line a cell, so that a change to one cell is one line of a diff.
    devices = ",\n".join(f"{dumps(name)}: {_device(part)}" for name, part in sorted(baseline.devices.items()))
    head = f'"schema_version": {baseline.schema_version},\n"suite": {dumps(baseline.suite)}'
    return f'{{\n{head},\n"devices": {{\n{devices}\n}}\n}}\n'


def _device(results: Results) -> str:
    data = results.model_dump(exclude_defaults=True)
    parts = [f'"{name}": {dumps(getattr(results, name))}' for name in ("environment", "qbench_version")]
    parts.append(_list("history", data.get("history", [])))
    parts += [_table(name, data.get(name, {})) for name in ("expected", "evaluations", "cells")]
    parts.append(_list("spread", [spread.model_dump() for spread in measure_spread(results)]))
    return "{\n" + ",\n".join(parts) + "\n}"


def _list(name: str, values: list[Any]) -> str:
    return f'"{name}": [\n' + ",\n".join(map(dumps, values)) + "\n]"


def _table(name: str, values: dict[str, Any]) -> str:
    lines = ",\n".join(f"{dumps(key)}: {dumps(value)}" for key, value in sorted(values.items()))
    return f'"{name}": {{\n{lines}\n}}'
