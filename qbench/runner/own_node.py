"""A node like this machine, told without Ray: what a cluster that is started here would have for cells."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from qbench.runner.local import cores
from qbench.runner.node_hours import Node

FOR_OBJECTS = 0.3
"""The part of a node's memory that Ray keeps for objects, unless it is told otherwise, and gives no task."""

_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of Linux control groups, in versions 2 and 1


def own_node() -> Node:
    """Return this machine: the cores that this process may use, its GPUs, and its memory but for `FOR_OBJECTS`."""
    memory = min([psutil.virtual_memory().total, *_limits()])
    return Node(cores(), _gpus(), int(memory * (1 - FOR_OBJECTS)))


def _gpus(drivers: Path = Path("/proc/driver/nvidia/gpus")) -> int:
    """Return how many GPUs there are that this process may see; asking torch would load it."""
    there = len(list(drivers.iterdir())) if drivers.is_dir() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return there if visible is None else min(there, sum(bool(one.strip()) for one in visible.split(",")))


def _limits(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    found = []
    for name in _LIMITS:
        try:
            found.append(int((root / name).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return found
