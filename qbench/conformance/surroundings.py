"""What a check sets in the process for a while, and puts back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _set_gradients(value: bool) -> None:
    torch.set_grad_enabled(value)


def _set_device(value: torch.device) -> None:
    # None is what it was before anyone set it; a device that was set costs time with every call.
    torch.set_default_device(None if value.type == "cpu" else value)


def _set_cudnn(value: tuple[bool, bool]) -> None:
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = value


# How a setting of the process is read, and set again.
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "gradient mode": (torch.is_grad_enabled, _set_gradients),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default device": (torch.get_default_device, _set_device),
    "number of threads": (torch.get_num_threads, torch.set_num_threads),
    "deterministic flag": (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    "precision of matrix products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "cuDNN flags": (lambda: (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark), _set_cudnn),
}


@contextmanager
def settings_kept() -> Iterator[list[str]]:
    """Put torch's settings of the process back in the end; those that had changed are named in what was yielded."""
    changed: list[str] = []
    before = {name: read() for name, (read, _) in _SETTINGS.items()}
    try:
        yield changed
    finally:
        for name, (read, write) in _SETTINGS.items():
            if read() != before[name]:
                changed.append(name)
                write(before[name])
