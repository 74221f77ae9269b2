"""Cores, memory, disk, and the environment variables that change arithmetic."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qbench.doctor.finding import Finding

GIGABYTE = 1 << 30
_LITTLE_MEMORY, _LITTLE_DISK, _NO_DISK = 2 * GIGABYTE, 2 * GIGABYTE, GIGABYTE // 10

CHANGES_ARITHMETIC = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
_THREADS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")


def cores_and_memory() -> Iterator[Finding]:
    """Say how many processes there is room for."""
    import psutil

    from qbench.runner.local import cores

    yield Finding("ok", "cores", f"{cores()} for this process, {os.cpu_count()} in the machine")
    memory = psutil.virtual_memory()
    said = f"{memory.available / GIGABYTE:.1f} of {memory.total / GIGABYTE:.1f} GB are free"
    if memory.available < _LITTLE_MEMORY:
        yield Finding("warning", "memory", said, "end other programs, or run with --jobs 1")
    else:
        yield Finding("ok", "memory", said)


def folder(name: str, path: Path, cure: str) -> Iterator[Finding]:
    """Say whether files can be made in a folder, or in what it would be made in, and how much room is left.

    Parameters
    ----------
    name : str
        What the folder is for.
    path : Path
        The folder; nothing is left in it, and it is not made.
    cure : str
        How to have another one.
    """
    there = path
    while not (there.exists() or there.is_symlink()) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        yield Finding("broken", name, f"{path}: {there} is no folder", f"move it away, or {cure}")
        return
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield Finding("broken", name, f"{path}: nothing can be written ({error.strerror})", cure)
        return
    free = shutil.disk_usage(there).free
    said = f"{path}{'' if there == path else ' (not made yet)'}: {free / GIGABYTE:.1f} GB are free"
    if free < _LITTLE_DISK:
        yield Finding("broken" if free < _NO_DISK else "warning", name, said, f"make room there, or {cure}")
    else:
        yield Finding("ok", name, said)


def arithmetic() -> Iterator[Finding]:
    """Tell of environment variables that make the same cell give other bytes."""
    given = {name: os.environ[name] for name in CHANGES_ARITHMETIC if os.environ.get(name)}
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    if workspace and workspace not in _DETERMINISTIC_WORKSPACES:
        given["CUBLAS_WORKSPACE_CONFIG"] = workspace
    for name, value in given.items():
        said = f"{name}={value}: numbers differ in their last bits from those of machines without it"
        yield Finding("warning", "arithmetic", said, f"unset {name}")
    threads = [f"{name}={os.environ[name]}" for name in _THREADS if os.environ.get(name)]
    if threads:
        yield Finding("ok", "threads", f"{', '.join(threads)}: a run gives its processes threads of its own")
    if not given:
        yield Finding("ok", "arithmetic", "no environment variable changes it")
