"""A cell's identity: a hash of everything that can change its numbers, and of nothing else.

Host and device are not part of it; they stand in the record.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

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
    "qbench.runner.streamed_grids",
)
"""What the cells of models go through, beside that, of which one block at a time is in memory."""

STREAMED_PROBE_SOURCES = ("qbench.runner.streamed_moves",)
"""What the probes of such models go through beside all that."""

SHARED_SOURCES = ("qbench.runner.meeting", "qbench.runner.rank", "qbench.runner.ranks")
"""What the cells go through, beside that, whose training several processes share."""


@dataclass(frozen=True, slots=True)
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
    return _Identifier().identify(cell)


def identify_all(cells: Iterable[Cell]) -> Iterator[PlannedCell]:
    """Resolve the identities of cells of one suite, in their order; what their keys have in common is there once.

    Raises
    ------
    AssetError
        A model or text is missing.
    """
    return map(_Identifier().identify, cells)


class _Identifier:
    """Makes keys and their hashes; every part that several cells share is made, and written as JSON, once.

    A part is known by the objects it was made from, which are held: to hash the options of a spec for each cell would
    take longer than all else.
    """

    def __init__(self) -> None:
        self._specs: dict[int, tuple[Spec, _Part]] = {}
        self._data: dict[tuple[int, int], tuple[Spec, _Part]] = {}
        self._others: dict[tuple[object, ...], _Part] = {}
        self._points: dict[int, tuple[Cell, str]] = {}

    def identify(self, cell: Cell) -> PlannedCell:
        parts = {
            "identity": _Part(IDENTITY, str(IDENTITY)),
            "model": self._of_spec(cell.model),
            "data": self._of_data(cell.model, cell.seed),
            "metrics": self._of_metrics(cell.metrics),
            "seed": _Part(cell.seed, str(cell.seed)),
        }
        points = {str(point.axes()["method"]): self._id_of(point) for point in cell.points}
        if cell.method is not None:
            parts["method"] = self._of_spec(cell.method)
        if cell.probe is not None:
            parts |= {"probe": self._of_spec(cell.probe), "points": _Part.of(points)}
        if cell.trajectory:
            parts["trajectory"] = _Part(cell.trajectory, str(cell.trajectory))
        parts["runner"] = self._of_runner(cell)
        if cell.quantizer is not None:
            parts |= {"quantizer": self._of_spec(cell.quantizer), "bits": _Part(cell.bits, str(cell.bits))}
        # As json.dumps(key, sort_keys=True, separators=(",", ":")) has it.
        canonical = "{" + ",".join([f'"{name}":{part.text}' for name, part in sorted(parts.items())]) + "}"
        key = {name: part.value for name, part in parts.items()}
        return PlannedCell(cell, key, hashlib.sha256(canonical.encode()).hexdigest(), points)

    def _id_of(self, point: Cell) -> str:
        if id(point) not in self._points:
            self._points[id(point)] = point, self.identify(point).cell_id
        return self._points[id(point)][1]

    def _of_spec(self, spec: Spec) -> _Part:
        if id(spec) not in self._specs:
            self._specs[id(spec)] = spec, _Part.of(_describe(spec))
        return self._specs[id(spec)][1]

    def _of_data(self, model: Spec, seed: int) -> _Part:
        if (id(model), seed) not in self._data:
            self._data[id(model), seed] = model, _Part.of(_fingerprint(model, seed))
        return self._data[id(model), seed][1]

    def _of_metrics(self, metrics: tuple[str, ...]) -> _Part:
        if ("metrics", metrics) not in self._others:
            self._others["metrics", metrics] = _Part.of(list(metrics))
        return self._others["metrics", metrics]

    def _of_runner(self, cell: Cell) -> _Part:
        ways = id(cell.model), id(cell.method), cell.is_probe, cell.trajectory > 0  # both are held by `_of_spec`
        if ways not in self._others:
            sources: tuple[str, ...] = RUNNER_SOURCES
            sources += PROBE_SOURCES if cell.is_probe else ()
            sources += TRAJECTORY_SOURCES if cell.trajectory else ()
            sources += STREAMED_SOURCES if cell.is_streamed else ()
            sources += STREAMED_PROBE_SOURCES if cell.is_streamed and cell.is_probe else ()
            sources += SHARED_SOURCES if cell.is_shared else ()
            self._others[ways] = self._of_sources(tuple(sorted(set(sources))))
        return self._others[ways]

    def _of_sources(self, sources: tuple[str, ...]) -> _Part:
        if sources not in self._others:
            self._others[sources] = _Part.of({name: source_sha256(name) for name in sources})
        return self._others[sources]


class _Part(NamedTuple):
    """A part of a key, and its canonical JSON."""

    value: Any
    text: str

    @classmethod
    def of(cls, value: Any) -> _Part:
        return cls(value, json.dumps(value, sort_keys=True, separators=(",", ":")))


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
