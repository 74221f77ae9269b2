"""A plan on a Ray cluster: what `run` gives the executor, and what it tells of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qbench.cli.cluster import DEFAULT_CPUS, gpus_per_cell

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from qbench.cli.executing import Way
    from qbench.runner.planning import Plan
    from qbench.runner.ray_executor import RayExecutor
    from qbench.store.folder import RunFolder


@dataclass(frozen=True)
class Cluster:
    """The cluster that a run is for.

    Attributes
    ----------
    address : str or None
        Where it is; None for one that is started on this machine.
    cpus, gpus : int or None, float or None
        What a cell takes of a node.
    spool : str or None
        Where workers leave records and weights; None where they send them.
    """

    address: str | None = None
    cpus: int | None = None
    gpus: float | None = None
    spool: str | None = None


def check(address: str | None, device: str, gpus: float | None, spool: str | None) -> str | None:
    """Make sure of what can be known before anything is fetched or started, and return the spool for all machines.

    Parameters
    ----------
    address, device, gpus, spool
        As given.

    Raises
    ------
    QBenchError
        One of them is wrong, or they do not go together.
    """
    from qbench.runner.ray_cluster import address_of, check_address, require_ray
    from qbench.runner.spool import shared_place

    require_ray()
    check_address(address_of(address))
    if gpus is not None:
        gpus_per_cell(gpus, device, some=True)
    return None if spool is None else shared_place(spool)


def executor(todo: Plan, way: Way, offline: bool, console: Console, room_is: Callable[[int], None]) -> RayExecutor:
    """Return what executes a plan on a cluster.

    Parameters
    ----------
    todo : Plan
        What is to be done.
    way : Way
        How; with a cluster.
    offline : bool
        Whether no cell asks a hub for anything.
    console : Console
        Where messages go.
    room_is : callable
        Called with how many cells the nodes have room for.
    """
    from qbench.runner.needs import kind_of, needs
    from qbench.runner.ray_executor import RayExecutor

    assert way.cluster is not None
    with console.status("working out what cells need"):
        found = needs([one.cell for one in todo.todo], todo.held, way.device)
    memory = {kind: need.host for kind, need in found.items()}
    return RayExecutor(
        address=way.cluster.address,
        device=way.device,
        cpus=way.cluster.cpus or DEFAULT_CPUS,
        gpus=way.cluster.gpus,
        in_flight=way.jobs,
        offline=offline,
        timeout=way.timeout,
        environment=way.environment,
        memory_of=lambda planned: memory.get(kind_of(planned.cell)),
        spool=way.cluster.spool,
        checkpoint_seconds=way.checkpoint_seconds,
        say=console.print,
        room_is=room_is,
    )


def in_order(todo: Plan, suite: str) -> Plan:
    """Return the plan of a suite whose longest cells begin first; see `longest_first`."""
    from qbench.cli.known_times import KnownTimes
    from qbench.runner.order import longest_first

    return replace(todo, todo=longest_first(todo.todo, KnownTimes.of(todo, suite).both))


def collect(todo: Plan, spool: str, folder: RunFolder, console: Console) -> int:
    """Take into the folder what workers have left on a spool for an earlier run of it; return how many cells that is.

    Parameters
    ----------
    todo : Plan
        Its cells are looked for.
    spool : str
        Where.
    folder : RunFolder
        The run's; the caller holds its lock.
    console : Console
        Where messages go.

    Raises
    ------
    QBenchError
        There is no such file system.
    """
    from qbench.runner.spool import Spool
    from qbench.runner.spool import collect as collect_from

    taken = collect_from(Spool(spool), todo.todo, folder)
    if taken:
        console.print(f"{taken} cells were done meanwhile: their records are taken from {spool}")
    return taken


def forget(todo: Plan, spool: str) -> None:
    """Remove from a spool the checkpoints of trainings that are to begin anew."""
    from qbench.runner.spool import Spool

    there = Spool(spool)
    for one in todo.todo:
        there.forget_checkpoint(one.cell_id)
