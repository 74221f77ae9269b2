"""The embedded model with little data, loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from qbench.tasks.causal_lm import ZooLM

if TYPE_CHECKING:
    from qbench.tasks.language import LanguageTask


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Run on one thread: the tensors are so small that a second one only waits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_spec() -> ZooLM:
    """Return the smallest model with options that make everything quick."""
    return ZooLM(name="llama-1m", evaluation_windows=8, calibration_windows=8, passages=2, choices=4)


@pytest.fixture(scope="session")
def small_task(small_spec: ZooLM) -> LanguageTask:
    """Return the loaded task of training seed 0."""
    return small_spec.load(0, "cpu")
