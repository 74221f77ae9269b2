"""What a library that measures does to the process is put back: nothing of it reaches the next cell."""

from __future__ import annotations

import logging
import os
import random
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from qbench.tasks.harness_fence import fenced

if TYPE_CHECKING:
    from qbench.tasks.language import LanguageTask


def state() -> dict[str, Any]:
    """Return all that could leak, read by other means than the fence's where there are others."""
    import datasets
    import transformers

    return {
        "random": random.Random.getstate(random._inst),  # type: ignore[attr-defined]
        "numpy": np.random.get_state(legacy=False)["state"]["key"].tolist(),
        "torch": torch.default_generator.get_state().tolist(),
        "gradients": torch.tensor(1.0, requires_grad=True).mul(2).requires_grad,
        "dtype": torch.empty(0).dtype,
        "threads": torch.get_num_threads(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
        "environment": dict(os.environ),
        "warnings": list(map(str, warnings.filters)),
        "datasets": (
            datasets.logging.get_verbosity(),
            datasets.is_caching_enabled(),
            datasets.is_progress_bar_enabled(),
        ),
        "transformers": transformers.logging.get_verbosity(),
        "root logger": (logging.getLogger().level, len(logging.getLogger().handlers)),
        "lm-eval": logging.getLogger("lm_eval").level,
    }


def vandalise() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2 if torch.get_num_threads() == 1 else 1)
    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    os.environ["QBENCH_TEST_LEAK"] = "1"
    os.environ.pop("PATH")
    warnings.simplefilter("ignore")
    logging.getLogger("lm_eval").setLevel(logging.DEBUG)


@pytest.mark.parametrize("raises", [False, True])
def test_everything_is_put_back(raises: bool) -> None:
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    before = state()
    try:
        with fenced():
            vandalise()
            assert state() != before
            if raises:
                raise KeyError("a library")
    except KeyError:
        assert raises
    after = state()
    assert {name for name in before if before[name] != after[name]} == set()


def test_measuring_leaves_nothing_behind(small_task: LanguageTask) -> None:
    metrics = ("loss", "bits_per_byte", "next_sentence")
    small_task.evaluate(small_task.model, metrics)  # what an import sets, and keeps, is set
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    before = state()
    first = small_task.evaluate(small_task.model, metrics)
    after = state()
    assert {name for name in before if before[name] != after[name]} == set()
    random.seed(8)
    np.random.seed(8)
    torch.manual_seed(8)
    assert small_task.evaluate(small_task.model, metrics) == first, "nor does it depend on what was before"


@pytest.mark.gpu
def test_generators_of_cuda_devices_are_put_back() -> None:
    torch.zeros(1, device="cuda")
    before = torch.cuda.get_rng_state_all()
    with fenced():
        torch.cuda.manual_seed_all(1)
        torch.rand(3, device="cuda")
    assert all(map(torch.equal, before, torch.cuda.get_rng_state_all()))
