"""The Ray executor: cells as tasks on the nodes of a cluster."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qbench import atomic
from qbench.errors import QBenchError
from qbench.runner import ray_cell, ray_cluster, same_ground, worker
from qbench.runner.identity import PlannedCell
from qbench.runner.local import record_of, told
from qbench.runner.process import Ending
from qbench.runner.queue import Group, Queue, group_of
from qbench.runner.spool import Spool
from qbench.spec import Spec
from qbench.store.record import Record
from qbench.tasks.cached_files import Shared, files_of

_LOOK_SECONDS = 1.0
_COUNT_SECONDS = 5.0  # a cluster grows and shrinks: its nodes are counted this often
_ALONE_SECONDS = 600.0
_MOST_LOSSES = 10
_POINTS = 64


@dataclass(frozen=True)
class RayExecutor:
    """The nodes of a Ray cluster.

    Attributes
    ----------
    address : str or None
        Of the cluster; see `ray_cluster.connected`.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    cpus, gpus : int, float or None
        What a cell takes of a node; by default a GPU where it runs on one.
    in_flight : int or None
        Cells that are handed out at a time; by default as many as the nodes have room for. More than that lets a
        cluster see that it should grow.
    offline : bool
        Keep the libraries from asking a hub.
    timeout : float or None
        Seconds that a cell may take.
    environment : mapping of str to str
        What the workers' environment gets besides.
    memory_of : callable
        The bytes of a node's memory that a cell takes; None where that is not known.
    spool : str or None
        Where workers leave records and weights; None where they send them.
    checkpoint_seconds : float
        How much time goes by from one checkpoint of a training to the next, on a spool that is a folder; 0 is never.
    say : callable
        Called with what is to be told of the nodes.
    room_is : callable
        Called with how many cells the nodes have room for, whenever they are counted.
    execute : callable
        What runs on a node; see `ray_cell.run_cell`.
    """

    address: str | None = None
    device: str = "auto"
    cpus: int = 1
    gpus: float | None = None
    in_flight: int | None = None
    offline: bool = True
    timeout: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_of: Callable[[PlannedCell], int | None] = lambda _: None
    spool: str | None = None
    checkpoint_seconds: float = 0.0
    say: Callable[[str], None] = lambda _: None
    room_is: Callable[[int], None] = lambda _: None
    execute: Callable[..., Any] = ray_cell.run_cell

    def run(
        self,
        cells: Iterable[PlannedCell | None],
        suite: str,
        weights_path: Callable[[str], Path],
        begun: Callable[[PlannedCell], None] = lambda _: None,
    ) -> Generator[Record]:
        """Execute cells and yield each record as soon as it is there; see `LocalExecutor.run`.

        A cell whose node is lost is handed out again, as often as that happens within reason. A cell whose process
        died is tried once more with twice the memory; where its process dies again, its record says so. A cell that
        takes too long is ended, and not tried again.

        Parameters
        ----------
        cells, suite, weights_path, begun
            As for `LocalExecutor.run`.

        Raises
        ------
        UnwritableError
            The disk is full, say: no cell can be kept.
        QBenchError
            The cluster cannot be reached, or a node is not as it has to be.
        """
        queue = iter(cells)
        first = next(queue, None)
        if first is None:
            return  # nothing to run starts nothing
        started = None if self.in_flight is None else self.in_flight * self.cpus
        with ray_cluster.connected(self.address, started, self.offline, self.environment):
            yield from _Run(self, queue, first, suite, weights_path, begun).records()


@dataclass
class _Flight:
    """A cell that is handed out."""

    planned: PlannedCell
    memory: int
    began: bool = False
    deadline: float | None = None


class _Run:
    """One run on a cluster that is connected."""

    def __init__(
        self,
        executor: RayExecutor,
        queue: Iterable[PlannedCell | None],
        first: PlannedCell,
        suite: str,
        weights_path: Callable[[str], Path],
        begun: Callable[[PlannedCell], None],
    ) -> None:
        import ray

        self._executor, self._queue, self._suite = executor, queue, suite
        self._weights_path, self._begun = weights_path, begun
        found = ray_cluster.nodes()
        wanted = "cpu" if executor.device == "auto" and executor.gpus == 0 else executor.device
        device = ray_cluster.device_of(wanted, found)
        self._gpus = executor.gpus if executor.gpus is not None else float(device == "cuda")
        ground = same_ground.here()
        for line in ray_cluster.look_at(found, ground):
            executor.say(line)
        self._orders = ray_cell.Orders(
            suite, device, executor.cpus, ground, executor.spool, executor.checkpoint_seconds
        )
        self._is_here = ray_cluster.address_of(executor.address) == ray_cluster.LOCAL
        self._task = ray.remote(num_returns="streaming", max_retries=0, max_calls=0)(executor.execute)
        self._spool = None if executor.spool is None else Spool(executor.spool)
        self._flights: dict[Any, _Flight] = {}
        self._again = deque([first])
        self._died: dict[str, int] = {}
        self._losses: dict[str, int] = {}
        self._points: OrderedDict[str, Any] = OrderedDict()
        self._files: dict[Spec, dict[str, Shared]] = {}
        self._counted, self._room, self._largest = 0.0, 0, 0
        self._alone_since: float | None = None
        self._count()
        if self._room == 0:
            takes, option = f"{executor.cpus} CPU{'s' * (executor.cpus != 1)}", "--cpus-per-cell"
            if self._gpus:
                takes += f" and {self._gpus:g} GPU{'s' * (self._gpus != 1)}"
                option += ", --gpus-per-cell"
            raise QBenchError(f"a cell takes {takes}, and no node of the cluster has that ({option})")

    def records(self) -> Generator[Record]:
        """Yield what the cells come to."""
        import ray

        freed: Group | None = None
        while True:
            if time.monotonic() - self._counted > _COUNT_SECONDS:
                self._count()
            while len(self._flights) < self._room and (planned := self._next(freed)) is not None:
                freed = None
                try:
                    self._hand_out(planned)
                except Exception as error:  # a class that a plugin makes inside a function, say
                    yield told(planned, self._suite, "failed", worker.in_words(error))
            if not self._flights and (self._room or not self._cells_are_left()):
                return
            if not self._room:
                self._wait_for_nodes()
            if not self._flights:
                time.sleep(_LOOK_SECONDS)
                continue
            # Without a pause where none says anything: deadlines, and nodes that join, are looked at.
            ready, _ = ray.wait(list(self._flights), num_returns=1, timeout=_LOOK_SECONDS)
            for one in ready:
                flight = self._flights[one]
                found = self._listen(one, flight)
                if found is not None:
                    freed = group_of(flight.planned)
                    yield found
            for one, flight in list(self._flights.items()):
                if flight.deadline is not None and time.monotonic() >= flight.deadline:
                    del self._flights[one]
                    ray.cancel(one, force=True)
                    yield record_of(flight.planned, self._suite, "late", "", self._executor.timeout)

    def _cells_are_left(self) -> bool:
        if not self._again:
            planned = next(iter(self._queue), None)
            if planned is not None:
                self._again.append(planned)
        return bool(self._again)

    def _wait_for_nodes(self) -> None:
        """Tell once that all nodes are lost, and end the run when that has been so for long."""
        now = time.monotonic()
        self._counted = 0.0  # they are looked for all the time
        if self._alone_since is None:
            self._alone_since = now
            self._executor.say(f"no node of the cluster has room for a cell: waiting up to {_ALONE_SECONDS:g} s")
        if now - self._alone_since > _ALONE_SECONDS:
            raise QBenchError(
                f"no node of the cluster has had room for a cell for {_ALONE_SECONDS:g} s: what has ended is kept, and "
                "the same command goes on from there"
            )

    def _next(self, freed: Group | None) -> PlannedCell | None:
        if self._again:
            return self._again.popleft()
        if isinstance(self._queue, Queue):
            self._queue.prefer(freed)  # whose model a worker has loaded that is free now
        return next(iter(self._queue), None)

    def _hand_out(self, planned: PlannedCell) -> None:
        packed = worker.pack(planned)
        needs = self._executor.memory_of(planned)
        memory = 0 if needs is None else min(needs << self._died.get(planned.cell_id, 0), self._largest)
        task = self._task.options(num_cpus=self._executor.cpus, num_gpus=self._gpus, memory=memory or None)
        points = {label: self._point(cell_id) for label, cell_id in planned.points.items()}
        self._flights[task.remote(self._orders, packed, points, self._shared(planned))] = _Flight(planned, memory)

    def _listen(self, one: Any, flight: _Flight) -> Record | None:
        """Take in what a task says; return the record where it has ended for good."""
        import ray

        planned = flight.planned
        try:
            ending, said, weights = ray.get(next(one))
        except StopIteration:
            ending, said, weights = "died", "", None
        except (ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError, ray.exceptions.OwnerDiedError) as error:
            ending, said, weights = "lost", worker.in_words(error), None
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            ending, said, weights = "died", "", None
        except ray.exceptions.RayTaskError as error:
            ending, said, weights = "failed", worker.in_words(error.cause or error), None
        if ending == "begun":
            flight.began = True
            if self._executor.timeout is not None:
                flight.deadline = time.monotonic() + self._executor.timeout
            self._begun(planned)
            return None
        del self._flights[one]
        if ending == "lost" and self._lost(planned):
            return None
        if ending == "died" and not self._died.get(planned.cell_id):
            self._died[planned.cell_id] = 1
            self._again.append(planned)
            return None
        if ending == "spooled":
            assert self._spool is not None
            self._spool.weights(planned.cell_id, self._weights_path(planned.cell_id))
            ending, said = "record", self._spool.record(planned.cell_id)
            self._spool.forget_checkpoint(planned.cell_id)
        elif weights is not None:
            atomic.write_pieces(self._weights_path(planned.cell_id), (memoryview(weights),))
        if ending == "lost":
            said = f"its nodes were lost {_MOST_LOSSES} times ({said})"
        kind: Ending = "failed" if ending == "lost" else ending
        return record_of(planned, self._suite, kind, said, self._executor.timeout)

    def _lost(self, planned: PlannedCell) -> bool:
        """Have a cell handed out again that was lost through no fault of its own; False where that is hopeless."""
        self._losses[planned.cell_id] = self._losses.get(planned.cell_id, 0) + 1
        for cell_id in planned.points.values():
            self._points.pop(cell_id, None)  # maybe it is this that is lost: it is there in the folder
        self._files.pop(planned.cell.model, None)
        if self._losses[planned.cell_id] >= _MOST_LOSSES:
            return False
        self._again.append(planned)
        self._counted = 0.0
        return True

    def _count(self) -> None:
        import ray

        found = ray_cluster.nodes()
        rooms = {one.node_id: one.cells(self._executor.cpus, self._gpus) for one in found}
        room = sum(rooms.values())
        self._room = room if self._executor.in_flight is None or not room else self._executor.in_flight
        if room:
            self._alone_since = None
            self._executor.room_is(min(room, self._room))
        self._largest = max((one.memory for one in found if rooms[one.node_id]), default=0)
        self._counted = time.monotonic()
        for one, flight in list(self._flights.items()):
            if not flight.began and 0 < self._largest < flight.memory:
                del self._flights[one]  # the node that had so much is lost, and it would wait for it for ever
                ray.cancel(one, force=True)
                self._again.append(flight.planned)

    def _point(self, cell_id: str) -> Any:
        """Return the shared object of stored weights; the last few are kept, since probes read the same ones."""
        import ray

        if cell_id not in self._points:
            self._points[cell_id] = ray.put(self._weights_path(cell_id).read_bytes())
            while len(self._points) > _POINTS:
                self._points.popitem(last=False)
        self._points.move_to_end(cell_id)
        return self._points[cell_id]

    def _shared(self, planned: PlannedCell) -> dict[str, Shared]:
        """Return the shared objects of what a model's task reads; nothing where the only node is this machine."""
        import ray

        if self._is_here:
            return {}
        model = planned.cell.model
        if model not in self._files:
            self._files[model] = {
                name: Shared(atomic.sha256_file(path), ray.put(path.read_bytes()))
                for name, path in files_of(model).items()
            }
        return self._files[model]
