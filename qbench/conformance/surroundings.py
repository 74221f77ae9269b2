"""What a check sets in the process for a while, and puts back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of torch, numpy and Python for a while; afterwards they go on as before."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # numpy takes no more
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@contextmanager
def watching_chance(seed: int) -> Iterator[list[str]]:
    """Seed the generators as `seeded` does; in the end, name in what was yielded those that were drawn from."""
    drawn: list[str] = []
    with seeded(seed):
        before = _states()
        yield drawn
        drawn += [name for name, state in _states().items() if state != before[name]]


def _states() -> dict[str, object]:
    of_numpy = [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state(legacy=True)]
    return {"torch": torch.get_rng_state().tolist(), "numpy": of_numpy, "random": random.getstate()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Work in one thread for a while: on matrices this small, waking others takes longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make a type the default for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
