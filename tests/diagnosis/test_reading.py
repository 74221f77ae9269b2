"""A record of the probe `margin` is read as it was written, and unsound ones are not read at all."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from qbench.claims.regimes import Basin
from qbench.diagnosis.depth import depth
from qbench.diagnosis.reading import read, readings
from qbench.store.record import Cost, Record

Make = Callable[..., Record]


def test_depths_are_means_over_draws(margin_record: Make) -> None:
    found = read(margin_record(3, [0.1, 0.4], [0.05, 0.07]), Basin(0.05))
    assert found.matched.mean == pytest.approx((depth(0.1, 0.05) + depth(0.4, 0.05)) / 2)
    assert found.second_order.mean == pytest.approx((depth(0.05, 0.05) + depth(0.07, 0.05)) / 2)
    # Two draws: their standard error is half of what they differ by.
    assert found.matched.sd == pytest.approx((depth(0.4, 0.05) - depth(0.1, 0.05)) / 2)


def test_chance_is_that_of_draws_and_of_the_sample(margin_record: Make) -> None:
    def sd(draws: list[float], se: float) -> float:
        return read(margin_record(3, draws, se=se), Basin(0.05)).matched.sd

    assert sd([0.2], 0.0) == sd([0.2, 0.2], 0.0) == 0.0
    assert sd([0.2], 0.05) == pytest.approx(0.05 / 0.25)  # d depth / d excess is 1 / (t + D)
    assert sd([0.1, 0.3], 0.05) == pytest.approx(math.hypot(sd([0.1, 0.3], 0.0), sd([0.2], 0.05)))
    assert sd([-0.1], 0.05) == pytest.approx(1.0)  # what is gained by chance is no excess


def test_the_rest_of_a_record(margin_record: Make) -> None:
    record = margin_record(3, [0.1], options={"bn": "recalibrate"}, seed=2, cost=Cost(evaluation_seconds=7.0))
    found = read(record, Basin(0.05))
    assert found.place == ("llama-1m", "mse", "recalibrate", 2)
    assert (found.bits, found.tokens, found.passes, found.seconds) == (3, 4096.0, 5.0, 7.0)
    assert found.layers == {"up": (400.0, 0.08), "down": (600.0, 0.12)}
    assert found.sqnr_db == pytest.approx(20.0)


def test_readings_are_by_place_and_falling_bits(record: Make, margin_record: Make) -> None:
    records = [
        margin_record(bits, [0.1], seed=seed, quantizer=quantizer)
        for bits in (2, 8, 4)
        for seed in (1, 0)
        for quantizer in ("nf", "mse")
    ]
    found = readings([*records, record("fp"), record("fp", seed=1), record("rtn", 4, 0.1)])
    assert [(one.quantizer, one.seed, one.bits) for one in found] == [
        (quantizer, seed, bits) for quantizer in ("mse", "nf") for seed in (0, 1) for bits in (8, 4, 2)
    ]


def test_the_basin_is_that_of_the_model_in_full_precision(record: Make, margin_record: Make) -> None:
    full = record("fp").loss
    assert full is not None
    (found,) = readings([record("fp", facts={"chance_loss": 9.0}), margin_record(3, [0.1])])
    assert found.basin.headroom == pytest.approx(9.0 - full)
    (image,) = readings([record("fp", facts={"chance_loss": 9.0, "chance_accuracy": 0.1}), margin_record(3, [0.1])])
    assert image.basin.tolerance != found.basin.tolerance


def test_what_is_not_sound_is_not_read(record: Make, margin_record: Make) -> None:
    sound, full = margin_record(3, [0.1]), record("fp")
    assert len(readings([full, sound])) == 1
    assert readings([sound]) == []
    assert readings([record("fp", seed=1), sound]) == []
    assert readings([record("fp", facts={"chance_loss": 2.5}), sound]) == []
    assert readings([full, margin_record(3, [0.1], status="failed", metrics={})]) == []
    foreign = margin_record(3, [0.1])
    foreign.key["probe"]["sources"] = {"sham.probes": "x"}
    assert readings([full, foreign]) == []
    assert len(readings([record("fp", facts={}), sound])) == 1  # no chance loss: nothing is known against it
