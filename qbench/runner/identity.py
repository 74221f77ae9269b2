"""A cell's identity: a hash of everything that can change its numbers, and of nothing else.

Host and device are not part of it; they stand in the record.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from qbench import atomic
from qbench.errors import QBenchError
from qbench.spec import Spec
from qbench.store.record import SCHEMA_VERSION, Record, Status
from qbench.suite import plugins
from qbench.suite.cell import Cell

_RUNNER_SOURCES = (
    "qbench.methods.batch_norm",
    "qbench.methods.block_calls",
    "qbench.methods.matrices",
    "qbench.methods.problem",
    "qbench.methods.sequential",
    "qbench.methods.stage",
    "qbench.quant.packed_layer",
    "qbench.quant.packing",
    "qbench.runner.evidence",
    "qbench.runner.execute",
    "qbench.runner.session",
    "qbench.runner.targets",
)
_PROBE_SOURCES = ("qbench.geometry.base", "qbench.geometry.scene", "qbench.runner.probing", "qbench.runner.packed_file")
_TRAJECTORY_SOURCES = ("qbench.geometry.scene", "qbench.geometry.trajectory", "qbench.methods.watch")


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its identity.

    Attributes
    ----------
    cell : Cell
        All options resolved.
    key : dict
        The parts of the identity, kept beside the result so that one can see what changed.
    cell_id : str
        sha256 of the canonical JSON of `key`.
    points : dict of str to str
        The cells whose weights a probe reads: their ids, by the method's label.
    """

    cell: Cell
    key: dict[str, Any]
    cell_id: str
    points: dict[str, str] = field(default_factory=dict)

    def not_executed(self, suite: str, status: Status, reason: str, at: str) -> Record:
        """Return the record of a cell that was not executed to its end.

        Parameters
        ----------
        suite : str
            The suite that wanted it.
        status, reason : str
            What became of it, and why.
        at : str
            Start and end, ISO 8601 in UTC.
        """
        return Record(
            cell_id=self.cell_id,
            key=self.key,
            axes=self.cell.axes(),
            suite=suite,
            status=status,
            reason=reason,
            started=at,
            ended=at,
        )


def identify(cell: Cell) -> PlannedCell:
    """Resolve a cell's identity.

    Raises
    ------
    AssetError
        Its model or text is missing.
    """
    key: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": _describe(cell.model),
        "data": _fingerprint(cell.model, cell.seed),
        "metrics": list(cell.metrics),
        "seed": cell.seed,
    }
    points = {str(point.axes()["method"]): identify(point).cell_id for point in cell.points}
    sources: tuple[str, ...] = _RUNNER_SOURCES
    if cell.method is not None:
        key["method"] = _describe(cell.method)
    if cell.probe is not None:
        key |= {"probe": _describe(cell.probe), "points": points}
        sources += _PROBE_SOURCES
    if cell.trajectory:
        key["trajectory"] = cell.trajectory
        sources += _TRAJECTORY_SOURCES
    key["runner"] = {name: source_sha256(name) for name in sources}
    if cell.quantizer is not None:
        key |= {"quantizer": _describe(cell.quantizer), "bits": cell.bits}
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return PlannedCell(cell, key, hashlib.sha256(canonical.encode()).hexdigest(), points)


@cache
def _fingerprint(model: Spec, seed: int) -> dict[str, str]:
    return model.fingerprint(seed)  # type: ignore[attr-defined, no-any-return]


@cache
def _describe(spec: Spec) -> dict[str, Any]:
    kind = type(spec)
    owner = next(cls for cls in kind.__mro__ if "sources" in vars(cls))
    package = owner.__module__ if _is_package(owner.__module__) else owner.__module__.rpartition(".")[0]
    named = {importlib.util.resolve_name(name, package) if name.startswith(".") else name for name in kind.sources}
    modules = sorted({cls.__module__ for cls in kind.__mro__ if issubclass(cls, Spec)} | named)
    sources = {plugins.public_name(name): source_sha256(name) for name in modules}
    for plugin in plugins.loaded_for(modules):
        if plugin.path is not None and len(plugins.files_of(plugin.path)) > 1:
            sources[f"{plugins.public_name(plugin.module)}.*"] = plugins.tree_sha256(plugin.path)
    return {
        "options": to_jsonable_python(_without_places(spec.model_dump())),
        "version": kind.version,
        "sources": sources,
    }


def _is_package(module: str) -> bool:
    return hasattr(sys.modules.get(module), "__path__")


def _without_places(value: Any) -> Any:
    """Return options with paths cut to their names: what lies there is in the fingerprint, not where it lies."""
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(item) for item in value]
    return value.name if isinstance(value, Path) else value


@cache
def source_sha256(module: str) -> str:
    """Return the sha256 of a module's source file, without importing it.

    Raises
    ------
    QBenchError
        There is no such module, or it has no source file.
    """
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a package above it is missing, or is a plain module
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise QBenchError(f"module {module!r} is named as a source but has no file")
    return atomic.sha256_file(Path(spec.origin))
