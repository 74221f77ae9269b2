"""The machine a cell runs on: threads, determinism, memory, and what the record says of them."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import platform
import random
import resource
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import qbench
from qbench.errors import QBenchError
from qbench.runner.cpu import cpu_name
from qbench.runner.local import check_device
from qbench.runner.process import ALLOCATOR

OUT_OF_MEMORY = "out of memory: "
"""How the reason of a cell begins that had not the memory it asked for."""

_SHORTAGE_WORDS = ("std::bad_alloc", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


def settle(threads: int) -> None:
    """Make the numbers of this process repeatable, whatever ran in it before.

    Parameters
    ----------
    threads : int
        Threads of torch's operators; the last bits of sums depend on it.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)
    # It would also fill every fresh tensor with NaN, a pass over memory that only shows reads of unwritten values.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    # What a plugin of an earlier cell may have left otherwise.
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


def seed_everything(seed: int) -> None:
    """Seed every generator of the process that a method may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@cache
def warm_up(device: str) -> None:
    """Have torch load what it loads at its first training step, so that no method's seconds hold it."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        layer = torch.nn.Linear(4, 4, device=device)
        layer(torch.ones(2, 4, device=device)).sum().backward()
        torch.optim.AdamW(layer.parameters(), fused=True).step()
        torch.linalg.cholesky_ex(torch.eye(4, device=device))


def reset_peak_memory(device: str) -> None:
    """Start a new measurement of `peak_memory`, after giving back what earlier cells freed."""
    _trim_heap()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass  # not allowed in some containers: the peak is then that of the process so far


def _trim_heap() -> None:
    # The allocator is told to keep what is freed (see ALLOCATOR): a cell would be charged for those before it.
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:
            pass  # another C library than glibc


def memory_shortage(error: BaseException) -> str | None:
    """Return in one line that memory ran out, where that is what an error says; otherwise None.

    The allocators have no exception in common: Python and NumPy raise a MemoryError, torch on a GPU an error of its
    own, and torch on a CPU, cuBLAS and the C++ library a RuntimeError that is known by its text alone.
    """
    first = str(error).partition("\n")[0]
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in first:
        first = first.rpartition("DefaultCPUAllocator: ")[2]  # before it stands a line of torch's source
    elif isinstance(error, OSError):
        if error.errno != errno.ENOMEM:
            return None
    elif not isinstance(error, MemoryError | torch.OutOfMemoryError) and not (
        isinstance(error, RuntimeError) and any(word in first for word in _SHORTAGE_WORDS)
    ):
        return None
    return f"{OUT_OF_MEMORY}{first or type(error).__name__}"


def release_memory(device: str) -> None:
    """Give back to the system, and to other processes on the device, what nothing in this process refers to."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    _trim_heap()


def peak_memory(device: str) -> int:
    """Return the most memory in use since `reset_peak_memory`, in bytes: resident on a CPU, allocated on a GPU."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe(device: str) -> dict[str, Any]:
    """Return what can change numbers without being part of a cell's identity."""
    return {
        "qbench": qbench.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in ("torch", "transformers", "lm-eval", "datasets", "numpy")},
        "device": device,
        "device_name": torch.cuda.get_device_name() if device.startswith("cuda") else cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "allocator": "pinned" if all(os.environ.get(key) for key in ALLOCATOR) else "default",
    }


def resolve_device(wanted: str) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``, and `wanted` otherwise.

    Raises
    ------
    QBenchError
        `wanted` is none of the three, or it is ``cuda`` and torch finds no such device.
    """
    check_device(wanted)
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise QBenchError("--device cuda: torch finds no CUDA device (allowed here: auto, cpu)")
    return wanted if wanted != "auto" else "cuda" if available else "cpu"


@cache  # a search through all installed packages
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
