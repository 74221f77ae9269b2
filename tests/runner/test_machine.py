"""What a record says of the machine, and that saying it changes nothing."""

from __future__ import annotations

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


def test_devices_there_are_and_are_not() -> None:
    assert machine.resolve_device("cpu") == "cpu"
    assert machine.resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(QBenchError, match=r"^--device 'tpu' is not a device \(allowed: auto, cpu, cuda\)$"):
        machine.resolve_device("tpu")
