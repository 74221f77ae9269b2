"""How long a run takes on many machines: arithmetic on what cells take and on what machines have, nothing else.

A cell that fits k times on a node takes 1/k of it while it runs. With n nodes a run ends no sooner than

    max(sum of seconds / k / n, longest chain full precision -> cell -> probe)

which is what is told: cells that share a node badly, and the end of a run where some nodes are idle, make it longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from qbench.runner.identity import PlannedCell

_SLACK = 1e-9  # 0.1 GPU fits ten times on one, whatever floating point says


@dataclass(frozen=True)
class Node:
    """Machines of one kind.

    Attributes
    ----------
    cpus, gpus : float
        Of each.
    memory : int
        Bytes of each.
    count : int
        How many there are.
    """

    cpus: float
    gpus: float
    memory: int
    count: int = 1


@dataclass(frozen=True)
class Demand:
    """What a cell takes of a node while it runs.

    Attributes
    ----------
    cpus, gpus : float
        Parts of a GPU are allowed.
    memory : int or None
        Bytes; None where nothing is known, and nothing is set aside.
    """

    cpus: float
    gpus: float = 0.0
    memory: int | None = None


@dataclass(frozen=True)
class Work:
    """What is known of a cell.

    Attributes
    ----------
    cell_id : str
        Its identity.
    seconds : float or None
        How long it takes; None where nothing is known.
    demand : Demand
        What it takes.
    after : tuple of str
        Cells that it waits for; those that are not to be run count for nothing.
    """

    cell_id: str
    seconds: float | None
    demand: Demand
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hours:
    """What a run takes on nodes of some kinds.

    Attributes
    ----------
    node_seconds : float
        Of a node as a whole, over all cells: the same for any number of such nodes.
    chain : float
        Seconds of the longest chain of cells that wait for one another; a single cell is one too.
    most, least : int
        Cells at a time on a node that has only the smallest, or only the largest; 0 where no cell is known to fit.
    misfits : tuple of str
        Cells that no node has room for; not counted above.
    unknown : tuple of str
        Cells of which no time is known; not counted above.
    """

    node_seconds: float
    chain: float
    most: int
    least: int
    misfits: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def wall_seconds(self, count: int) -> float:
        """Return how long so many nodes take at least: ``max(node_seconds / count, chain)``."""
        return max(self.node_seconds / count, self.chain)


@dataclass
class _Chains:
    """The longest way to the end of each cell."""

    works: Mapping[str, Work]
    found: dict[str, float] = field(default_factory=dict)

    def seconds(self, cell_id: str) -> float:
        """Return the seconds from the start of the run to the end of a cell, where nothing but gates holds it up."""
        if cell_id not in self.found:
            work = self.works[cell_id]
            before = [self.seconds(one) for one in work.after if one in self.works]
            self.found[cell_id] = (work.seconds or 0.0) + max(before, default=0.0)
        return self.found[cell_id]


def at_once(demand: Demand, node: Node) -> int:
    """Return how many cells that take so much fit on a node: ``min(floor(has / takes))`` over CPUs, GPUs and memory."""
    pairs = [(demand.cpus, node.cpus), (demand.gpus, node.gpus), (float(demand.memory or 0), float(node.memory))]
    return min((math.floor(has / takes + _SLACK) for takes, has in pairs if takes > 0), default=0)


def hours(works: Sequence[Work], nodes: Sequence[Node]) -> Hours:
    """Return what a run takes.

    Parameters
    ----------
    works : sequence of Work
        All cells that are to be run.
    nodes : sequence of Node
        All machines; of several kinds, a cell's share of a node is that of the average one: it fits
        ``sum(count * at_once) / sum(count)`` times.
    """
    count = sum(node.count for node in nodes)
    room = {demand: [at_once(demand, node) for node in nodes] for demand in {work.demand for work in works}}
    fits = {
        demand: sum(node.count * cells for node, cells in zip(nodes, each, strict=True)) / count
        for demand, each in room.items()
    }
    kept = [work for work in works if fits[work.demand] > 0]
    chains = _Chains({work.cell_id: work for work in kept})
    held = {max(room[work.demand]) for work in kept}
    return Hours(
        node_seconds=sum((work.seconds or 0.0) / fits[work.demand] for work in kept),
        chain=max((chains.seconds(work.cell_id) for work in kept), default=0.0),
        most=max(held, default=0),
        least=min(held, default=0),
        misfits=tuple(work.cell_id for work in works if not fits[work.demand]),
        unknown=tuple(work.cell_id for work in kept if work.seconds is None),
    )


def works_of(
    todo: Sequence[PlannedCell],
    seconds: Callable[[PlannedCell], float | None],
    demand: Callable[[PlannedCell], Demand],
) -> list[Work]:
    """Return what is known of the cells of a plan; each waits for its row's full precision, a probe for its points.

    Parameters
    ----------
    todo : sequence of PlannedCell
        The cells to run.
    seconds, demand : callable
        What is known of each.
    """
    rows = {(one.cell.model, one.cell.seed): one.cell_id for one in todo if one.cell.is_fp}
    found = []
    for one in todo:
        row = rows.get((one.cell.model, one.cell.seed))
        first = () if one.cell.is_fp or row is None else (row,)
        found.append(Work(one.cell_id, seconds(one), demand(one), first + tuple(one.points.values())))
    return found
