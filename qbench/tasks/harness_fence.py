"""A fence around libraries that measure for us: what they do to the process does not outlast their call."""

from __future__ import annotations

import io
import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import numpy as np
import torch


@contextmanager
def fenced() -> Iterator[None]:
    """Put back, in the end, what lm-eval, datasets and transformers could change for the cells that follow.

    That is: the generators of random numbers of Python, numpy and torch (all CUDA devices that are in use among them),
    torch's settings of the process, the environment, filters of warnings, and lm-eval's log level. Its progress bars,
    which cannot be switched off and would run through ours, are not shown.
    """
    settings, generators, environment = _settings(), _generators(), dict(os.environ)
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        _put_settings(settings)
        _put_generators(generators)


def _generators() -> tuple[Any, ...]:
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), on_cuda


def _put_generators(states: tuple[Any, ...]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    if states[3] is not None:
        torch.cuda.set_rng_state_all(states[3])


def _settings() -> dict[str, Any]:
    return {
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
    }


def _put_settings(found: dict[str, Any]) -> None:
    torch.set_grad_enabled(found["gradients"])
    torch.set_default_dtype(found["dtype"])
    if torch.get_num_threads() != found["threads"]:
        torch.set_num_threads(found["threads"])
    torch.use_deterministic_algorithms(found["deterministic"], warn_only=found["only warns"])
    if torch.get_float32_matmul_precision() != found["precision"]:
        torch.set_float32_matmul_precision(found["precision"])
    cudnn = torch.backends.cudnn
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = found["cudnn"]
