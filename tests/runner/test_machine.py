"""What a record says of the machine, and that saying it changes nothing."""

from __future__ import annotations

import errno
import random
import sys

import numpy as np
import pytest
import torch

from qbench.errors import QBenchError
from qbench.runner import machine

BLOCK = 256 << 20


def test_warming_up_draws_nothing_and_leaves_the_gradient_switch_alone() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    machine.warm_up.cache_clear()
    machine.warm_up("cpu")
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.is_grad_enabled()


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark can be reset on Linux only")
def test_a_cell_is_not_charged_for_the_memory_of_those_before_it() -> None:
    machine.reset_peak_memory("cpu")
    start = machine.peak_memory("cpu")
    held = torch.ones(BLOCK // 4)
    high = machine.peak_memory("cpu")
    assert high > start + BLOCK // 2
    del held
    machine.reset_peak_memory("cpu")
    assert machine.peak_memory("cpu") < high - BLOCK // 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "MemoryError"),
        (MemoryError("Unable to allocate 7 PiB\nfor an array"), "Unable to allocate 7 PiB"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation"),
            "CUDA out of memory. Tried to allocate 2.00 GiB.",
        ),
        (
            RuntimeError("[enforce fail at alloc.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
            "can't allocate memory: you",
        ),
        (RuntimeError("std::bad_alloc"), "std::bad_alloc"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), f"[Errno {errno.ENOMEM}] Cannot allocate memory"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), "CUDA error: out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"), "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"),
    ],
)
def test_all_that_runs_out_of_memory_is_known(error: BaseException, said: str) -> None:
    assert machine.memory_shortage(error) == f"{machine.OUT_OF_MEMORY}{said}"


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no luck"), ValueError("std::bad_alloc"), OSError(errno.EIO, "lost"), SystemExit(1)],
)
def test_other_errors_are_no_shortage(error: BaseException) -> None:
    assert machine.memory_shortage(error) is None


def test_torch_says_it_as_it_is_expected(device: torch.device) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15, device=device)
    assert (machine.memory_shortage(caught.value) or "").startswith(machine.OUT_OF_MEMORY)


def test_devices_there_are_and_are_not() -> None:
    assert machine.resolve_device("cpu") == "cpu"
    assert machine.resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(QBenchError, match=r"^--device 'tpu' is not a device \(allowed: auto, cpu, cuda\)$"):
        machine.resolve_device("tpu")
