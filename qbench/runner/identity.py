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

from qbench.registry import LOCAL
from qbench.runner.sources import closure, file_of, source_sha256
from qbench.spec import Spec
from qbench.store.record import Record, Status
from qbench.suite import plugins
from qbench.suite.cell import Cell

IDENTITY = 1
"""Raised when what a key is made of changes its meaning: all cells are others then."""

RUNNER_SOURCES = (
    "qbench.methods.base",
    "qbench.methods.batch_norm",
    "qbench.methods.block_calls",
    "qbench.methods.checkpoints",
    "qbench.methods.matrices",
    "qbench.methods.problem",
    "qbench.methods.sequential",
    "qbench.methods.stage",
    "qbench.methods.stage_error",
    "qbench.methods.stand_in",
    "qbench.methods.watch",
    "qbench.quant.packed_layer",
    "qbench.quant.packing",
    "qbench.runner.evidence",
    "qbench.runner.execute",
    "qbench.runner.handed_over",
    "qbench.runner.machine:seed_everything",
    "qbench.runner.machine:settle",
    "qbench.runner.packed_file:with_metadata",
    "qbench.runner.session",
    "qbench.runner.targets",
    "qbench.seeds",
    "qbench.spec",
)
"""What every cell goes through."""

PROBE_SOURCES = ("qbench.geometry.base", "qbench.geometry.scene", "qbench.runner.probing", "qbench.runner.packed_file")
"""What the cells of probes go through beside that."""

TRAJECTORY_SOURCES = ("qbench.geometry.scene", "qbench.geometry.trajectory", "qbench.runner.probing")
"""What the cells with a trajectory go through beside that."""

STREAMED_SOURCES = (
    "qbench.runner.hidden_states",
    "qbench.runner.packed_writer",
    "qbench.runner.streamed",
    "qbench.runner.streamed_block",
    "qbench.runner.streamed_calls",
    "qbench.runner.streamed_evaluation",
)
"""What the cells of models go through, beside that, of which one block at a time is in memory."""

SHARED_SOURCES = ("qbench.runner.meeting", "qbench.runner.rank", "qbench.runner.ranks")
"""What the cells go through, beside that, whose training several processes share."""


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
        "identity": IDENTITY,
        "model": _describe(cell.model),
        "data": _fingerprint(cell.model, cell.seed),
        "metrics": list(cell.metrics),
        "seed": cell.seed,
    }
    points = {str(point.axes()["method"]): identify(point).cell_id for point in cell.points}
    sources: tuple[str, ...] = RUNNER_SOURCES
    if cell.method is not None:
        key["method"] = _describe(cell.method)
    if cell.probe is not None:
        key |= {"probe": _describe(cell.probe), "points": points}
        sources += PROBE_SOURCES
    if cell.trajectory:
        key["trajectory"] = cell.trajectory
        sources += TRAJECTORY_SOURCES
    if cell.is_streamed:
        sources += STREAMED_SOURCES
    if cell.is_shared:
        sources += SHARED_SOURCES
    key["runner"] = {name: source_sha256(name) for name in sorted(set(sources))}
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
    modules = {cls.__module__ for cls in kind.__mro__ if issubclass(cls, Spec)} | named
    modules |= _imported_by_strangers(modules)
    sources = {plugins.public_name(name): source_sha256(name) for name in sorted(modules)}
    for plugin in plugins.loaded_for(modules):
        if plugin.path is not None and len(plugins.files_of(plugin.path)) > 1:
            sources[f"{plugins.public_name(plugin.module)}.*"] = plugins.tree_sha256(plugin.path)
    return {
        "options": to_jsonable_python(_without_places(spec.model_dump())),
        "version": kind.version,
        "sources": sources,
    }


def _imported_by_strangers(modules: set[str]) -> set[str]:
    """Return what modules from outside of qbench import of their own packages and of qbench.

    A module of qbench names its sources, and a test makes sure of it; a stranger may forget, and would be served
    records of older code.
    """
    outside = {name for name in modules if not f"{name}.".startswith("qbench.")}
    reached = closure(outside)
    above = {package for name in reached for package in _packages_above(name)}
    # The files of a local plugin are hashed one by one or as a tree: its module names hold their place.
    return {name for name in (reached | above) - outside if not f"{name}.".startswith(f"{LOCAL}.")}


def _packages_above(module: str) -> list[str]:
    """Return the packages whose own code runs before a stranger's module does."""
    parts = module.split(".")
    packages = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    return [] if parts[0] in ("qbench", LOCAL) else [name for name in packages if file_of(name) is not None]


def _is_package(module: str) -> bool:
    return hasattr(sys.modules.get(module), "__path__")


def _without_places(value: Any) -> Any:
    """Return options with paths cut to their names: what lies there is in the fingerprint, not where it lies."""
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(item) for item in value]
    return value.name if isinstance(value, Path) else value
