"""What a plan costs on the nodes of a cluster: what cells take, node-hours, and how long so many nodes need."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qbench.cli import cluster
from qbench.cli.known_times import KnownTimes
from qbench.cli.progress import roughly
from qbench.errors import QBenchError

if TYPE_CHECKING:
    from qbench.runner.needs import Kind, Need
    from qbench.runner.node_hours import Hours, Node
    from qbench.runner.planning import Plan
    from qbench.runner.ray_cluster import Node as RayNode

COUNTS = (1, 4, 16)
"""Of how many nodes it is told how long they take, unless ``--nodes`` says otherwise."""

_MOST_LABELS = 2


@dataclass(frozen=True)
class NodePlan:
    """What a plan costs on nodes.

    Attributes
    ----------
    needs : dict of Kind to Need
        Memory of the cells.
    cells : dict of Kind to int
        How many there are of each kind.
    cpus, gpus : int, float
        What a cell takes of a node.
    nodes : sequence of Node
        The machines.
    of_cluster : bool
        Whether they are those of a cluster that is running.
    counts : sequence of int
        For how many of them it is told.
    hours : Hours
        What the plan takes.
    times : dict of str to int
        Of how many cells the time is known by ``stored`` cells, by ``published`` ones, by those of the same method on
        other models (``alike``), or not at all (``unknown``).
    published : str
        The file of the published ones.
    labels : dict of str to str
        Of cells, by their ids.
    """

    needs: dict[Kind, Need]
    cells: dict[Kind, int]
    cpus: int
    gpus: float
    nodes: Sequence[Node]
    of_cluster: bool
    counts: Sequence[int]
    hours: Hours
    times: dict[str, int]
    published: str
    labels: dict[str, str]

    def lines(self) -> Iterator[str]:
        """Yield what is to be told, a line a thing."""
        hours = self.hours
        if not self.labels:
            return
        share = f"{self.cpus} CPU" + ("s" if self.cpus > 1 else "") + (f", {self.gpus:g} GPU" if self.gpus else "")
        yield f"a cell takes {share}, and memory by its kind:"
        yield from self._memory()
        for node in self.nodes:
            yield f"{self._called(node)}: {self._at_once(node)}"
        if self.times["unknown"] < len(self.labels):
            yield self._told_times()
            yield f"{hours.node_seconds / 3600:.2g} node-hours: " + ", ".join(map(self._wall, self.counts))
        if hours.unknown:
            yield f"no time is known of {self._some(hours.unknown)}: not counted"
        if hours.misfits:
            yield f"no node has room for {self._some(hours.misfits)}: not counted"

    def to_json(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {
            "cells": [
                {
                    **kind._asdict(),
                    "cells": self.cells[kind],
                    "cpus": self.cpus,
                    "gpus": self.gpus,
                    "memory_bytes": need.host,
                    "gpu_memory_bytes": need.device,
                    "memory_known_by": need.source,
                    "unknown_because": need.reason,
                }
                for kind, need in self.needs.items()
            ],
            "nodes": [
                {"count": one.count, "cpus": one.cpus, "gpus": one.gpus, "memory_bytes": one.memory}
                for one in self.nodes
            ],
            "cells_at_once": {"most": self.hours.most, "least": self.hours.least},
            "node_hours": self.hours.node_seconds / 3600,
            "longest_chain_seconds": self.hours.chain,
            "wall_seconds": {str(count): self.hours.wall_seconds(count) for count in self.counts},
            "times_known_by": self.times,
            "time_unknown": [self.labels[one] for one in self.hours.unknown],
            "no_room": [self.labels[one] for one in self.hours.misfits],
        }

    def _memory(self) -> Iterator[str]:
        groups: dict[tuple[str, str], list[str]] = {}
        for kind, need in self.needs.items():
            of_gpu = f", {_bytes(need.device)} of GPU memory" if need.device else ""
            size = "unknown" if need.host is None else f"{_bytes(need.host)}{of_gpu} ({need.source})"
            said = f": {need.reason}" if need.host is None and need.reason else ""
            name = f"{kind.method}{' with trajectory' if kind.watched else ''}"
            groups.setdefault((f"{size}  {kind.model}", said), []).append(name)
        for (head, said), names in groups.items():
            yield f"  {head}: {', '.join(names)}{said}"

    def _called(self, node: Node) -> str:
        if not self.of_cluster:
            from qbench.runner.own_node import FOR_OBJECTS

            return f"nodes like this machine, {_shape(node)} without the {FOR_OBJECTS:.0%} that Ray keeps for objects"
        return f"{node.count} node{'s' if node.count > 1 else ''} of the cluster, {_shape(node)}"

    def _at_once(self, node: Node) -> str:
        from qbench.runner.node_hours import Demand, at_once

        found = {at_once(Demand(self.cpus, self.gpus, need.host), node) for need in self.needs.values()}
        least, most = min(found), max(found)
        if not most:
            return "no room for a cell"
        return f"{most if least == most else f'{least} to {most}'} cell{'s' if most > 1 else ''} at a time"

    def _told_times(self) -> str:
        known = {
            "stored": "stored cells",
            "published": f"published records ({self.published})",
            "alike": "the same method on other models",
        }
        parts = [f"{self.times[source]} by {words}" for source, words in known.items() if self.times[source]]
        return f"times are known of {sum(self.times[source] for source in known)} cells: {', '.join(parts)}"

    def _wall(self, count: int) -> str:
        seconds = self.hours.wall_seconds(count)
        chained = " (the longest chain of cells)" if seconds == self.hours.chain else ""
        return f"{count} node{'s' if count > 1 else ''} at least {roughly(seconds)}{chained}"

    def _some(self, ids: Sequence[str]) -> str:
        rest = len(ids) - _MOST_LABELS
        named = ", ".join(self.labels[one] for one in ids[:_MOST_LABELS])
        return f"{len(ids)} cell{'s' if len(ids) > 1 else ''} ({named}{f' and {rest} others' if rest > 0 else ''})"


def node_plan(
    plan: Plan, suite: str, address: str | None, cpus: int | None, gpus: float | None, count: int | None
) -> NodePlan:
    """Return what a plan costs on a cluster.

    Parameters
    ----------
    plan : Plan
        What is to be done.
    suite : str
        Its name: where nothing is stored, its published records tell how long cells take.
    address : str or None
        Of a running cluster, whose nodes are counted; None for nodes like this machine.
    cpus, gpus : int or None, float or None
        As given; see `qbench.cli.cluster`.
    count : int or None
        Nodes like this machine.

    Raises
    ------
    QBenchError
        The cluster cannot be reached, or Ray is not installed.
    """
    from qbench.runner.durations import kind_of as timed_by
    from qbench.runner.needs import kind_of, needs
    from qbench.runner.node_hours import Demand, hours, works_of

    where = address or os.environ.get("RAY_ADDRESS")
    nodes, counts = _machines(where, count)
    each = cluster.gpus_per_cell(gpus, "auto", some=any(node.gpus for node in nodes))
    taken = cpus or cluster.DEFAULT_CPUS
    found = needs([one.cell for one in plan.todo], plan.held, "cuda" if each else "cpu")
    times = KnownTimes.of(plan, suite)
    timed = {one.cell_id: timed_by(one.cell) for one in plan.todo}
    kinds = {one.cell_id: kind_of(one.cell) for one in plan.todo}
    seconds = {kind: times.seconds(kind) for kind in set(timed.values())}
    ways = {kind: times.way(kind) for kind in seconds}
    demands = {kind: Demand(taken, each, need.host) for kind, need in found.items()}
    works = works_of(plan.todo, lambda one: seconds[timed[one.cell_id]], lambda one: demands[kinds[one.cell_id]])
    known = Counter(ways[kind] for kind in timed.values())
    return NodePlan(
        needs=found,
        cells=Counter(kinds.values()),
        cpus=taken,
        gpus=each,
        nodes=nodes,
        of_cluster=where is not None,
        counts=counts,
        hours=hours(works, nodes),
        times={way: known[way] for way in ("stored", "published", "alike", "unknown")},
        published=str(times.file),
        labels={one.cell_id: one.cell.label() for one in plan.todo},
    )


def _machines(where: str | None, count: int | None) -> tuple[list[Node], Sequence[int]]:
    """Return the machines, and for how many of them it is to be told how long they take."""
    if where is None:
        from qbench.runner.own_node import own_node

        return [own_node()], COUNTS if count is None else [count]
    if count is not None:
        raise QBenchError(f"--nodes {count}: the cluster at {where} has its own nodes (leave one of the two out)")
    from qbench.runner.ray_cluster import connected, nodes

    with connected(where, None, True, {}):
        found = by_kind(nodes())
    if not found:
        raise QBenchError(f"the cluster at {where} has no nodes")
    return found, [sum(node.count for node in found)]


def by_kind(nodes: Iterable[RayNode]) -> list[Node]:
    """Return the nodes of a cluster by their kinds, the most frequent first.

    Parameters
    ----------
    nodes : iterable of RayNode
        Alike are those with the same CPUs and GPUs, and as many whole GB; of these the least memory counts.
    """
    from qbench.runner.node_hours import Node

    kinds: dict[tuple[float, float, int], list[int]] = {}
    for one in nodes:
        kinds.setdefault((one.cpus, one.gpus, one.memory // 10**9), []).append(one.memory)
    found = [Node(cpus, gpus, min(sizes), len(sizes)) for (cpus, gpus, _), sizes in kinds.items()]
    return sorted(found, key=lambda node: -node.count)


def _shape(node: Node) -> str:
    gpus = f", {node.gpus:g} GPU{'s' if node.gpus > 1 else ''}" if node.gpus else ""
    return f"{node.cpus:g} CPU{'s' if node.cpus != 1 else ''}{gpus} and {_bytes(node.memory)}"


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
