"""Training through the quantizer on landscapes: when it is back in the basin, and when it never is."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qbench.geometry import landscape_theory as theory
from qbench.geometry.landscape_cases import CASES, random_valley
from qbench.geometry.valley import Valley

Solve = Callable[..., Any]
MakeValley = Callable[..., Valley]

PLAIN: dict[str, Any] = {"optimizer": "sgd", "momentum": 0, "schedule": "constant", "clip_norm": None}
COMPATIBLE = theory.compatible_step(1.0, 64)
SEEDS = range(6)


def train(solve: Solve, model: Valley, step: float, rate: float, steps: int, seed: int = 0, by: str = "ste_qat") -> Any:
    return solve(model, step, by, seed, steps=steps, learning_rate=rate, **PLAIN)


def first_below(path: Any, tolerance: float) -> int:
    return next(step for step, loss in enumerate(path.losses()) if loss < tolerance)


@pytest.mark.parametrize(
    ("name", "rate", "entry", "loss"),
    [
        ("valley_a", 0.02, 25, 2.38e-4),
        ("valley_a", 0.05, 10, 2.38e-4),
        ("valley_a", 0.1, 5, 2.38e-4),
        ("valley_c", 0.02, 4, 3.33e-5),
        ("valley_c", 0.05, 2, 3.33e-5),
        ("valley_c", 0.1, 1, 3.33e-5),
    ],
)
def test_training_is_back_in_the_basin_after(
    name: str, rate: float, entry: int, loss: float, solve: Solve, valley: MakeValley
) -> None:
    path = train(solve, valley(name), 1.0, rate, 60)
    assert path.entry() == first_below(path, CASES[name][1]) == entry
    assert path.losses()[entry] == pytest.approx(loss, rel=5e-3)
    if name == "valley_c":
        assert max(path.losses()[entry:]) < CASES[name][1], "it stays"
    own = path.landscape.setting
    error, gradient = path.landscape.worst_error(1.0), own.wall + 2 * own.flatness / own.rho**2 + own.tilt
    offset = path.landscape.parts(path.landscape.start).normal_distance
    assert entry <= theory.first_entry_bound(offset, rate, own.rho, own.wall, error, gradient)


def test_the_time_to_entry_is_inverse_to_the_rate(solve: Solve, valley: MakeValley) -> None:
    rates = (0.005, 0.01, 0.02, 0.05, 0.1)
    entries = [train(solve, valley("valley_a"), 1.0, rate, 110).entry() for rate in rates]
    slope, _ = np.polyfit(np.log(rates), np.log(entries), 1)
    assert slope == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_at_the_latent_weights_changes_no_code(name: str, solve: Solve, valley: MakeValley) -> None:
    path = train(solve, valley(name), 1.0, 0.1, 200, by="latent_grad")
    assert all(torch.equal(point, path.deployed[0]) for point in path.deployed)
    assert torch.equal(path.end, solve(valley(name), 1.0, "rtn").end)
    assert path.end_parts.wall > CASES[name][1]


@pytest.mark.parametrize("rate", [0.005, 0.02])
@pytest.mark.parametrize("share", [0.7, 0.8, 0.9])
def test_every_first_entry_is_within_the_bound(share: float, rate: float, solve: Solve, valley: MakeValley) -> None:
    model = valley("river_valley", visible=0, offset=0.8)
    for seed in SEEDS:
        path = train(solve, model, share * COMPATIBLE, rate, 60, seed)
        entry = path.entry()
        assert entry is not None
        until = slice(0, entry + 1)
        errors = [q - w for q, w in zip(path.deployed[until], path.latent[until], strict=True)]
        error = max(float((one @ path.landscape.flat).norm()) for one in errors)
        gradient = max(float(path.landscape.gradient(point).norm()) for point in path.deployed[until])
        bound = theory.first_entry_bound(0.8, rate, 1.0, 1.0, error, gradient)
        assert entry <= bound < math.inf
        # Outside, the gradient at the deployed weights points at the river; that at the latent ones is next to nothing.
        if entry:
            outside, start = path.deployed[0], path.landscape.start
            slope = path.landscape.gradient(outside) @ path.landscape.flat
            away = path.landscape.coordinates(outside)[1]
            assert float(slope @ away / slope.norm() / away.norm()) == pytest.approx(1.0)
            assert float(path.landscape.gradient(outside).norm() / path.landscape.gradient(start).norm()) > 1e4


def in_numpy(share: float, seed: int, steps: int) -> tuple[float, int | None]:
    """Follow the same training in a loop of its own; weights are float32, as those of networks.

    Returns
    -------
    float, int or None
        The last |z_F|, and the first step at which it is within the wall.
    """
    numbers = {"offset": 0.6, "curvature": 0.02, "flatness": 1e-4, "rho": 1.0, "wall": 1.0}
    own = random_valley(256, 64, 64, seed, **numbers)
    weights, step, entry, distance = own.start.astype(np.float32), np.float32(share * COMPATIBLE), None, math.nan
    for update in range(steps + 1):
        away = (np.rint(weights / step) * step).astype(np.float64) - own.centre
        flat = own.flat.T @ away
        distance = float(np.linalg.norm(flat))
        if entry is None and distance <= 1:
            entry = update
        slope = 0.02 * own.visible @ (own.visible.T @ away)
        slope += own.flat @ ((1e-4 + (1 / distance if distance > 1 else 0)) * flat)
        if update < steps:
            weights = weights - np.float32(0.01) * slope.astype(np.float32)
    return distance, entry


# Mean |z_F| and f at the end in float64, and the first entries: the last digits of the weights decide about the two
# means beyond a hundredth, since any code that flips changes all that follows.
TABLE: dict[float, tuple[float, float, float, tuple[int, int]]] = {
    0.4: (0.73, 0.001, 0.02, (0, 0)),
    0.7: (0.91, 0.004, 0.02, (0, 0)),
    0.9: (0.96, 0.007, 0.04, (0, 20)),
    1.2: (0.93, 0.014, 0.04, (10, 53)),
    1.5: (1.09, 0.122, 0.08, (48, 155)),
}


@pytest.mark.parametrize("share", TABLE)
def test_training_in_many_dimensions(share: float, solve: Solve, valley: MakeValley) -> None:
    distance, loss, within, (earliest, latest) = TABLE[share]
    paths = [train(solve, valley("river_valley"), share * COMPATIBLE, 0.01, 300, seed) for seed in SEEDS]
    found = [path.end_parts.normal_distance for path in paths]
    entries = [path.entry() for path in paths]
    assert np.mean(found) == pytest.approx(distance, abs=within)
    assert np.mean([path.end_parts.loss for path in paths]) == pytest.approx(loss, abs=within)
    assert (min(entries), max(entries)) == (earliest, latest)
    again = [in_numpy(share, seed, 300) for seed in SEEDS]
    assert [entry for _, entry in again] == entries
    assert np.mean([one for one, _ in again]) == pytest.approx(np.mean(found), abs=0.005)


def test_the_gradient_at_the_latent_weights_is_no_help_in_many_dimensions(solve: Solve, valley: MakeValley) -> None:
    for share in (0.9, 1.5):
        path = train(solve, valley("river_valley"), share * COMPATIBLE, 0.01, 300, by="latent_grad")
        rounded = solve(valley("river_valley"), share * COMPATIBLE, "rtn")
        assert torch.equal(path.end, rounded.end)


class TestIncompatible:
    """Case B: the lattice is too coarse for the basin, though it has good points in it."""

    def test_full_batches_go_round_in_a_cycle_of_two(self, solve: Solve, valley: MakeValley) -> None:
        path = train(solve, valley("valley_b"), 1.0, 0.01, 2000)
        visits = Counter(tuple(point.tolist()) for point in path.deployed[:-1])
        assert visits == {(1.0, 0.0): 1002, (0.0, 1.0): 998}
        after = path.deployed[5:]
        assert all(not torch.equal(one, other) for one, other in itertools.pairwise(after))
        assert path.entry() is None

    def test_noise_finds_what_the_theorem_does_not_promise(self, solve: Solve, valley: MakeValley) -> None:
        path = train(solve, valley("valley_b", noise=0.3), 1.0, 0.01, 20_000)
        visits = Counter(tuple(point.tolist()) for point in path.deployed[:-1])
        good = (visits[0.0, 0.0] + visits[1.0, 1.0]) / visits.total()
        assert good == pytest.approx(0.91, abs=0.05)
        assert set(visits) == {(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)}
