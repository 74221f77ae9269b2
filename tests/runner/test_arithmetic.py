"""Ways to compute that a run has not taken."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.runner.arithmetic import others

CAPABILITIES = st.sampled_from(["AVX512", "AVX2", "DEFAULT", "VSX", "SVE256"])


@given(CAPABILITIES, st.integers(1, 64), st.sets(st.tuples(CAPABILITIES, st.integers(1, 64)), max_size=4))
def test_no_way_was_taken_and_none_comes_twice(native: str, cores: int, taken: set[tuple[str, int]]) -> None:
    ways = others(native, cores, taken)
    grounds = [(way.capability, way.threads) for way in ways]
    assert len(set(grounds)) == len(grounds) and not set(grounds) & taken
    assert all((way.environment == {}) == (way.capability == native) for way in ways)
    # The nearest come first: noise is measured by what differs least.
    apart = [min(((c != name) + (t != count) for name, count in taken), default=0) for c, t in grounds]
    assert apart == sorted(apart)


@given(CAPABILITIES, st.integers(1, 64), st.integers(1, 64))
def test_there_is_always_another_number_of_threads(native: str, cores: int, threads: int) -> None:
    first = others(native, cores, {(native, threads)})[0]
    assert first.capability == native and first.threads != threads


def test_instructions_are_never_wider_than_the_machine_has() -> None:
    assert {way.capability for way in others("AVX2", 4, ())} == {"AVX2", "DEFAULT"}
    assert {way.capability for way in others("DEFAULT", 4, ())} == {"DEFAULT"}
    assert {way.capability for way in others("SVE256", 4, ())} == {"SVE256", "DEFAULT"}


@pytest.mark.slow
def test_the_libraries_do_as_they_are_told() -> None:
    program = (
        "import torch; print(torch.backends.cpu.get_cpu_capability()); torch.manual_seed(0);"
        "print(torch.randn(257, 511).softmax(1).double().sum().item().hex())"
    )

    def run(environment: dict[str, str]) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    native, total = run({})
    ways = {way.capability: way.environment for way in others(native, 1, {(native, 1)}) if way.environment}
    for capability, environment in ways.items():
        said, other = run(environment)
        assert said == capability
        assert other != total, "the order of a sum has not changed"
        assert float.fromhex(other) == pytest.approx(float.fromhex(total), rel=1e-3)
