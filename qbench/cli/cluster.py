"""Options of `run` and `plan` about machines beyond this one: the executor, the cluster, and the share of a cell."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from qbench.errors import QBenchError, UnknownNameError

EXECUTORS = ("local", "ray")

ExecutorOption = Annotated[
    str, typer.Option("--executor", help="local: processes on this machine; ray: the nodes of a Ray cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Of a Ray cluster that is running, or 'auto'  [default: one on this machine]",
        show_default=False,
    ),
]
CpusOption = Annotated[
    int | None,
    typer.Option("--cpus-per-cell", min=1, help="CPUs of a node that a cell takes  [default: 1]", show_default=False),
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-cell",
        min=0,
        help="GPUs of a node that a cell takes; 0.5: two cells share one  [default: 1, or 0 without GPUs]",
        show_default=False,
    ),
]
SpoolOption = Annotated[
    str | None,
    typer.Option(
        "--spool",
        help="Shared folder or URL (s3://...) in which workers leave records and weights  [default: they send them]",
        show_default=False,
    ),
]
LEAST_GPU = 0.0001
"""The smallest part of a GPU that Ray knows."""

DEFAULT_CPUS = 1
"""CPUs that a cell takes, unless ``--cpus-per-cell`` says otherwise."""


def check(
    executor: str,
    address: str | None = None,
    cpus: int | None = None,
    gpus: float | None = None,
    spool: str | None = None,
) -> None:
    """Make sure that the options about machines go together.

    Parameters
    ----------
    executor, address, cpus, gpus, spool : str, str or None, int or None, float or None, str or None
        As given; None where an option was left out.

    Raises
    ------
    UnknownNameError
        There is no such executor.
    QBenchError
        An option of the other executor was given, or a share that no node has.
    """
    if executor not in EXECUTORS:
        raise UnknownNameError("--executor", executor, EXECUTORS)
    given = {"--address": address, "--cpus-per-cell": cpus, "--gpus-per-cell": gpus, "--spool": spool}
    alien = [option for option, value in given.items() if value is not None]
    if executor != "ray" and alien:
        raise QBenchError(f"{' and '.join(alien)}: for --executor ray only (this is --executor {executor})")
    if gpus is not None and (not math.isfinite(gpus) or (gpus > 1 and gpus != int(gpus)) or 0 < gpus < LEAST_GPU):
        raise QBenchError(f"--gpus-per-cell {gpus:g} (allowed: a part of one GPU, such as 0.5, or a whole number)")


def gpus_per_cell(given: float | None, device: str, *, some: bool) -> float:
    """Return the GPUs of a node that a cell takes.

    Parameters
    ----------
    given : float or None
        By ``--gpus-per-cell``.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    some : bool
        Whether the machines have a GPU: where they have none, ``auto`` is the CPU.

    Raises
    ------
    QBenchError
        What was given is not what the device needs.
    """
    if device == "cpu" and given:
        raise QBenchError(f"--gpus-per-cell {given:g}: cells take no GPU with --device cpu (allowed: auto, cuda)")
    if device == "cuda" and given == 0:
        raise QBenchError("--gpus-per-cell 0: cells take a GPU with --device cuda (allowed: auto, cpu)")
    if given is not None:
        return given
    return 1.0 if device == "cuda" or (device == "auto" and some) else 0.0
