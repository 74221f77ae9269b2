"""A cluster of Ray: reached, looked at, and left."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qbench.errors import QBenchError
from qbench.runner import node_hours, ray_cell
from qbench.runner.node_hours import Demand, at_once
from qbench.runner.process import worker_environment

_LOOK_SECONDS, _LISTEN_SECONDS = 120.0, 10.0
LOCAL = "local"
"""The address of a cluster that is started on this machine, and ends with the run."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # its coming default, of which it would warn
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what raylets say of workers that died: the run tells of it in its own words
}


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes
    ----------
    node_id : str
        Ray's name for it.
    name : str
        Its own.
    cpus, gpus : float
        What it has for tasks.
    memory : int
        Bytes that it has for tasks.
    """

    node_id: str
    name: str
    cpus: float
    gpus: float
    memory: int

    def cells(self, cpus: float, gpus: float) -> int:
        """Return how many cells that take so much have room on it."""
        return at_once(Demand(cpus, gpus), node_hours.Node(self.cpus, self.gpus, self.memory))


def require_ray() -> None:
    """Make sure that Ray is installed.

    Raises
    ------
    QBenchError
        It is not; the message tells how to install it.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise QBenchError("--executor ray needs the package ray: pip install 'qbench[ray]'") from error


def address_of(given: str | None) -> str:
    """Return the address that an option, or else the environment, gives, or `LOCAL`."""
    return given or os.environ.get("RAY_ADDRESS") or LOCAL


def check_address(address: str) -> None:
    """Make sure that an address is one, without asking whether a cluster is there.

    Raises
    ------
    QBenchError
        It is none, or one of Ray's client.
    """
    if address.startswith("ray://"):
        raise QBenchError(
            f"--address {address}: qbench runs on a node of the cluster (allowed: auto, or host:port of its head node; "
            "from outside, `ray job submit` brings the command there)"
        )
    if address not in (LOCAL, "auto") and not address.rpartition(":")[2].isdecimal():
        raise QBenchError(f"--address {address!r} is no address (allowed: auto, or host:port of a cluster's head node)")


@contextmanager
def connected(address: str | None, cpus: int | None, offline: bool, own: Mapping[str, str]) -> Iterator[None]:
    """Be part of a cluster; on the way out nothing of this run is left there.

    Parameters
    ----------
    address : str or None
        Of a cluster that is running, ``auto`` for the one that this machine is part of. None starts one on this
        machine, unless the environment variable RAY_ADDRESS names another.
    cpus : int or None
        CPUs of a cluster that is started; None for those of the machine.
    offline : bool
        Keep the libraries of the workers from asking a hub.
    own : mapping of str to str
        What the workers' environment gets besides.

    Raises
    ------
    QBenchError
        The cluster cannot be reached.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)  # it reads them when it is imported
    require_ray()
    import ray

    check_address(wanted := address_of(address))
    if wanted != LOCAL:
        _require_listener(wanted)
    # A process that is used again must see all GPUs of its node; see `ray_cell`.
    env = worker_environment(offline, own) | _QUIET | {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
    started: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if wanted == LOCAL else {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(
            address=wanted,
            namespace="qbench",
            runtime_env={"env_vars": env},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **started,
        )
    except Exception as error:  # a plain one where a node does not start in time
        said = str(error).strip().partition("\n")[0]
        raise _unreachable(wanted, said) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray's own would end the run without a word
    try:
        yield
    finally:
        ray.shutdown()  # which ends all tasks of this run, too


def _require_listener(address: str) -> None:
    """Make sure that somebody listens: Ray would try for minutes, and not be interrupted."""
    if address == "auto":
        from ray._private.services import find_gcs_addresses  # there is no public way to ask

        found = sorted(find_gcs_addresses())  # type: ignore[no-untyped-call]
        if not found:
            raise _unreachable(address, "none runs on this machine: `ray start --head` starts one")
        address = found[0]
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _LISTEN_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str, why: str) -> QBenchError:
    # What Ray raises does not say that a token was missing.
    has_token = (Path.home() / ".ray" / "auth_token").exists() and "RAY_AUTH_MODE" not in os.environ
    token = "; if it wants a token: RAY_AUTH_MODE=token in the environment" if has_token else ""
    return QBenchError(f"--address {address}: no cluster of Ray can be reached there ({why}){token}")


def nodes() -> list[Node]:
    """Return the nodes that are alive."""
    import ray

    found = []
    listed: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for one in listed:
        has = one["Resources"]
        if one["Alive"] and has:
            sizes = float(has.get("CPU", 0.0)), float(has.get("GPU", 0.0)), int(has.get("memory", 0))
            found.append(Node(one["NodeID"], one["NodeManagerHostname"], *sizes))
    return found


def look_at(found: list[Node], ground: Mapping[str, str]) -> list[str]:
    """Make sure that nodes have what numbers depend on, and return what is to be said of them.

    Parameters
    ----------
    found : list of Node
        The nodes.
    ground : mapping of str to str
        What they must have; see `same_ground`.

    Raises
    ------
    QBenchError
        A node has other versions, or no qbench.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=1)(ray_cell.look_around)
    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(one.node_id, soft=False)).remote(ground): one
        for one in found
    }
    cpu_names: set[str] = set()
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_SECONDS)
    for ref in done:
        try:
            name, unlike, cpu = ray.get(ref)
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()[-1]
            raise QBenchError(
                f"node {asked[ref].name}: qbench cannot run there ({said}): install the same version on all nodes"
            ) from error
        if unlike:
            raise QBenchError(f"node {name} has {unlike}: install the same versions on all nodes")
        cpu_names.add(cpu)
    if late:
        names = ", ".join(sorted(asked[ref].name for ref in late))
        raise QBenchError(f"node {names} has not answered within {_LOOK_SECONDS:g} s")
    if len(cpu_names) > 1:
        return [f"warning: the nodes' CPUs differ ({', '.join(sorted(cpu_names))}): so may the last digits of results"]
    return []


def device_of(wanted: str, found: list[Node]) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``, by whether a node has GPUs.

    Raises
    ------
    QBenchError
        It is ``cuda``, and no node has any.
    """
    has_gpus = any(one.gpus for one in found)
    if wanted == "cuda" and not has_gpus:
        raise QBenchError("--device cuda: no node of the cluster has a GPU (allowed here: auto, cpu)")
    return wanted if wanted != "auto" else "cuda" if has_gpus else "cpu"
