"""What is left of a model, between a guess and full precision."""

from __future__ import annotations

import math

import pytest

from qbench.store.recovery import recovery


def test_full_precision_is_one_and_a_guess_is_nothing() -> None:
    assert recovery(2.9, 2.9, 6.9) == 1
    assert recovery(6.9, 2.9, 6.9) == 0
    assert recovery(8.9, 2.9, 6.9) == pytest.approx(-0.5)
    assert recovery(0.55, 0.95, 0.15) == pytest.approx(0.5), "accuracies, the same formula"


@pytest.mark.parametrize("given", [(None, 1, 2), (1, None, 2), (1, 1, None), (math.nan, 1, 2), (1, 2, 2)])
def test_what_cannot_be_told_is_not(given: tuple[float | None, ...]) -> None:
    assert recovery(*given) is None
