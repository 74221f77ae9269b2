"""How probes and trajectories meet a cell: the weights they read, and what they must not leave unsaid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qbench.errors import CellError, DivergedError
from qbench.geometry.base import Probe
from qbench.geometry.scene import Findings, Point, Scene
from qbench.geometry.trajectory import Trajectory
from qbench.methods.base import Deployment
from qbench.methods.problem import Problem
from qbench.runner.packed_file import read_packed
from qbench.suite.cell import Cell


def measure(
    cell: Cell, task: Any, problem: Problem, points: Mapping[str, Path], memory: dict[Any, Any] | None = None
) -> Findings:
    """Run a probe.

    Parameters
    ----------
    cell : Cell
        A probe's.
    task : Task
        Loaded.
    problem : Problem
        A copy of the full-precision model with the cell's grids; the probe's to change.
    points : mapping of str to Path
        The packed weights that it reads, by the label of the method.
    memory : dict, optional
        What probes of the same loaded task keep for one another.

    Raises
    ------
    CellError
        The inputs of layers are quantized too, or a point has folded batch norms: the weights alone do not say what
        such a model computes.
    """
    assert isinstance(cell.probe, Probe)
    require_weights_alone(cell, problem)
    read = {label: _point(label, path, problem) for label, path in points.items()}
    recalibrates = cell.probe.bn == "recalibrate"
    scene = Scene(task, problem, read, recalibrates=recalibrates, memory=memory)
    return cell.probe.measure(scene)


def require_weights_alone(cell: Cell, problem: Problem) -> None:
    """Raise CellError where the inputs of a probe's layers are quantized too."""
    if cell.probe is not None and any(layer.activations is not None for layer in problem.layers):
        raise CellError(f"{cell.probe.name} moves weights alone, and {cell.axes()['quantizer']} quantizes inputs too")


def require_finite(found: Findings) -> None:
    """Raise DivergedError where a number that a probe found is NaN or infinite."""
    for name, value in found.metrics.items():
        if not math.isfinite(value):
            raise DivergedError(f"the probe found {value} for {name}")
    for name, curve in found.traces.items():
        if not all(math.isfinite(value) for value in curve):
            raise DivergedError(f"the probe found a value that is not finite in {name}")


def trajectory(cell: Cell, task: Any, own: Problem, watched: Problem, memory: dict[Any, Any]) -> Trajectory | None:
    """Return who measures the weights while the cell's method trains them; None where that is not asked for.

    Parameters
    ----------
    cell : Cell
        A method's.
    task : Task
        Loaded.
    own : Problem
        A copy of the full-precision model to measure in.
    watched : Problem
        What the method is given.
    memory : dict
        What is kept of the full-precision model while its task is loaded.

    Raises
    ------
    CellError
        The inputs of layers are quantized too: the weights alone do not say what such a model computes.
    """
    if not cell.trajectory:
        return None
    steps: int = getattr(cell.method, "steps", 0)
    assert isinstance(cell.method, Deployment)
    if any(layer.activations is not None for layer in own.layers):
        raise CellError(f"trajectory: given {cell.trajectory}, and inputs are quantized (allowed: 0)")
    # Folded batch norms make another full-precision model of it.
    kept = {} if cell.method.bn == "fold" else memory
    scene = Scene(task, own, recalibrates=cell.method.bn == "recalibrate", memory=kept)
    return Trajectory(scene, watched.model, steps, cell.trajectory)


def _point(label: str, path: Path, problem: Problem) -> Point:
    packed = read_packed(path)
    if packed.folded:
        raise CellError(f"{label} has folded batch norms: its weights are those of another network")
    weights = {}
    for layer in problem.layers:
        if layer.name not in packed.layers:
            raise CellError(f"{label} has no codes of layer {layer.name!r}")
        weights[layer.name] = packed.layers[layer.name].weight().to(layer.weight.device).float()
    device = next(iter(weights.values())).device
    return Point(weights, {name: value.to(device) for name, value in packed.statistics.items()})
