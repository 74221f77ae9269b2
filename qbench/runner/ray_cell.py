"""One cell as a task of Ray: what runs on a node."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qbench.errors import QBenchError, UnwritableError
from qbench.runner import same_ground, worker
from qbench.runner.cpu import cpu_name
from qbench.runner.identity import PlannedCell, identify
from qbench.runner.spool import Spool
from qbench.runner.why import key_changes
from qbench.suite.plugins import Plugin
from qbench.tasks import cached_files


@dataclass(frozen=True)
class Orders:
    """What all cells of a run have in common.

    Attributes
    ----------
    suite : str
        For the records.
    device : str
        ``cpu`` or ``cuda``.
    threads : int
        Threads of torch's operators.
    ground : dict of str to str
        What every node must have; see `same_ground`.
    spool : str or None
        Where records and weights are left; None where they are sent to the run.
    checkpoint_seconds : float
        How much time goes by from one checkpoint of a training to the next, on a spool that is a folder; 0 is never.
    """

    suite: str
    device: str
    threads: int
    ground: Mapping[str, str] = field(default_factory=dict)
    spool: str | None = None
    checkpoint_seconds: float = 0.0


Packed = tuple[bytes, tuple[Plugin, ...]]
"""A cell as `worker.pack` gives it."""


def run_cell(
    orders: Orders, packed: Packed, points: Mapping[str, Any], files: Mapping[str, cached_files.Shared]
) -> Iterator[tuple[str, str, Any]]:
    """Execute a cell, and tell how it goes.

    Parameters
    ----------
    orders : Orders
        Of the run.
    packed : tuple
        The cell, as `worker.pack` gives it.
    points : dict of str to ObjectRef
        The packed weights that a probe reads, by the label of the method.
    files : dict of str to Shared
        What the model's task reads from the cache folder, by path in it.

    Yields
    ------
    tuple of (str, str, object)
        First ``begun`` with the node's name. Then how it ended, what is to be said of it, and its packed weights as an
        array of bytes, or None; see `worker.serve`. ``spooled`` says that its record is on the spool, ``lost`` that
        something it was to read is gone from the cluster.
    """
    with tempfile.TemporaryDirectory(prefix="qbench-") as scratch:
        yield from _run_cell(Path(scratch), orders, packed, points, files)


def _run_cell(
    scratch: Path, orders: Orders, packed: Packed, points: Mapping[str, Any], files: Mapping[str, cached_files.Shared]
) -> Iterator[tuple[str, str, Any]]:
    import ray

    node = platform.node()
    given = {label: scratch / f"point-{index}.safetensors" for index, label in enumerate(points)}
    try:
        _prepare(orders)
    except Exception as error:  # of a GPU that is broken, say: it would fail one cell after the other
        yield "unable", f"node {node}: {worker.in_words(error)}", None
        return
    try:
        for name, shared in files.items():
            cached_files.bring(name, shared, ray.get)
        for label, path in given.items():
            path.write_bytes(ray.get(points[label]))
        planned = worker.unpack(*packed)
        _require_same_key(planned)
    except QBenchError as error:
        yield "unable", f"node {node}: {worker.in_words(error)}", None
        return
    except ray.exceptions.ObjectLostError as error:
        yield "lost", worker.in_words(error), None
        return
    except OSError as error:
        yield "unwritable", f"node {node}: {worker.in_words(error)}", None
        return
    except Exception as error:  # of a plugin, as it is unpacked
        yield "failed", worker.in_words(error), None
        return
    yield "begun", node, None
    weights = scratch / f"{planned.cell_id}.safetensors"
    ending, said = worker.answer(
        lambda: worker.work(planned, orders.suite, weights, given, _checkpoint(orders, planned))
    )
    whole = weights if ending == "record" and weights.exists() else None
    if ending != "record" or orders.spool is None:
        yield ending, said, None if whole is None else _array(whole)
        return
    try:
        Spool(orders.spool).keep(planned.cell_id, said, whole)
    except UnwritableError as error:
        yield "unwritable", f"node {node}: {worker.in_words(error)}", None
        return
    yield "spooled", planned.cell_id, None


def look_around(ground: Mapping[str, str]) -> tuple[str, str, str]:
    """Return this node's name, what it has otherwise than `ground`, and the name of its CPU."""
    return platform.node(), same_ground.differences(ground, same_ground.here()), cpu_name()


_ready_for: list[tuple[Orders, str]] = []


def _prepare(orders: Orders) -> None:
    """Make this process ready for cells of a run on the GPU it has now, unless it is."""
    import ray

    device = orders.device
    gpus = ",".join(map(str, ray.get_gpu_ids()))
    if _ready_for == [(orders, gpus)]:
        return
    if unlike := same_ground.differences(orders.ground, same_ground.here()):
        raise QBenchError(f"it has {unlike}: install the same versions on all nodes")
    if device == "cuda" and gpus:
        import torch

        # All GPUs of a node are to be seen (a process is used again, with another one), and one is the present one.
        torch.cuda.set_device(int(gpus.partition(",")[0]))
    worker.prepare(device, orders.threads)
    _ready_for[:] = [(orders, gpus)]


def _require_same_key(planned: PlannedCell) -> None:
    """Make sure that this node would read the same weights and data, and run the same code."""
    here = identify(planned.cell)
    if here.cell_id == planned.cell_id:
        return
    parts = ", ".join(str(part) for part in key_changes(planned.key, here.key))
    raise QBenchError(f"what {planned.cell.label()} is made of is otherwise there than here ({parts})")


def _checkpoint(orders: Orders, planned: PlannedCell) -> tuple[Path, float] | None:
    path = None if orders.spool is None else Spool(orders.spool).checkpoint_path(planned.cell_id)
    return None if path is None else (path, orders.checkpoint_seconds)


def _array(path: Path) -> Any:
    import numpy as np

    return np.fromfile(path, dtype=np.uint8)  # which Ray hands over without copying it
