"""The schedule of a pretraining."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.tasks.recipe import Schedule


@given(st.integers(20, 5000), st.integers(1, 10), st.floats(0.1, 0.5))
def test_the_learning_rate_rises_stays_and_falls(steps: int, warmup: int, decay: float) -> None:
    recipe = Schedule(steps=steps, batch_size=1, learning_rate=0.003, warmup_steps=warmup, decay_share=decay)
    rates = [recipe.learning_rate_at(step) for step in range(steps)]
    assert all(0 < rate <= 0.003 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[0] == pytest.approx(0.003 / warmup)
    assert set(rates[warmup : recipe.decay_start + 1]) == {0.003}
    fall = rates[recipe.decay_start :]
    assert fall == sorted(fall, reverse=True)
    assert rates[-1] == pytest.approx(0.003 / (steps - recipe.decay_start))


def test_a_schedule_counts_what_it_sees() -> None:
    recipe = Schedule(steps=1000, batch_size=8, learning_rate=1e-3, decay_share=0.25)
    assert (recipe.decay_start, recipe.samples) == (750, 8000)
