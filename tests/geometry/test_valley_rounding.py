"""Rounding methods, as they run on networks, on landscapes where the right answer is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qbench.geometry import landscape_theory as theory
from qbench.geometry.landscape_cases import CASES, Setting
from qbench.geometry.valley import Valley

Solve = Callable[..., Any]
MakeValley = Callable[..., Valley]

IN_ORDER = {"act_order": False}
SECOND_ORDER = [("gptq", IN_ORDER), ("gptq", {}), ("adaround", {}), ("qubo", {})]
COMPATIBLE = theory.compatible_step(1.0, 64)
SEEDS = range(6)

# Of 256 directions, by step in compatible ones: mean |z_F| and f of rounding to nearest, GPTQ, the rounding that lowers
# e^T H e by single flips, and the same with the true normal metric. From an implementation of its own in float64.
TABLE: dict[float, dict[str, tuple[float, float]]] = {
    0.4: {"rtn": (0.711, 0.002), "gptq": (0.786, 0.000), "qubo": (0.822, 0.000), "normal": (0.622, 0.004)},
    0.5: {"rtn": (0.835, 0.003), "gptq": (0.867, 0.004), "qubo": (0.984, 0.039), "normal": (0.626, 0.006)},
    0.6: {"rtn": (0.821, 0.004), "gptq": (1.013, 0.038), "qubo": (1.097, 0.098), "normal": (0.649, 0.008)},
    0.7: {"rtn": (0.906, 0.005), "gptq": (1.176, 0.177), "qubo": (1.196, 0.197), "normal": (0.648, 0.009)},
    0.9: {"rtn": (1.138, 0.157), "gptq": (1.514, 0.515), "qubo": (1.543, 0.544), "normal": (0.675, 0.017)},
    1.2: {"rtn": (1.400, 0.415), "gptq": (1.773, 0.776), "qubo": (1.992, 0.994), "normal": (0.780, 0.035)},
    1.5: {"rtn": (1.698, 0.717), "gptq": (2.288, 1.292), "qubo": (2.350, 1.353), "normal": (0.825, 0.042)},
}


def gptq_by_hand(setting: Setting, hessian: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """Round one of two weights to an integer, move the other by its least-squares answer, and round that."""
    damped = hessian + 0.01 * np.trace(hessian) / 2 * np.eye(2)
    weights, second = setting.start.copy(), 1 - first
    codes = np.round(weights)
    weights[second] -= damped[first, second] / damped[second, second] * (codes[first] - weights[first])
    codes[second] = np.round(weights[second])
    return codes


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reverse", [False, True])
def test_gptq_is_what_comes_out_by_hand(name: str, reverse: bool, solve: Solve, valley: MakeValley) -> None:
    found = solve(valley(name, reverse=reverse), 1.0, "gptq", **IN_ORDER)
    setting = CASES[name][0]()
    by_hand = gptq_by_hand(setting, solve(valley(name), 1.0, "rtn").landscape.metric("hessian").numpy(), int(reverse))
    assert found.end.tolist() == (by_hand[::-1] if reverse else by_hand).tolist()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("method", "options"), [("rtn", {}), *SECOND_ORDER], ids=str)
def test_in_all_cases_all_roundings_step_over_the_wall(
    name: str, method: str, options: dict[str, Any], solve: Solve, valley: MakeValley
) -> None:
    found = solve(valley(name), 1.0, method, **options)
    expected = {"valley_a": [11.0, -6.0], "valley_b": [1.0, 0.0], "valley_c": [5.0, 2.0]}[name]
    assert found.end.tolist() == expected
    loss = {"valley_a": 0.0627, "valley_b": 0.107, "valley_c": 0.186}[name]
    assert found.end_parts.loss == pytest.approx(loss, rel=5e-3)
    assert found.end_parts.wall > 5 * CASES[name][1]


@pytest.mark.parametrize(("method", "options"), SECOND_ORDER, ids=str)
def test_with_the_true_metric_the_same_methods_stay_inside(
    method: str, options: dict[str, Any], solve: Solve, valley: MakeValley
) -> None:
    nearest = solve(valley("river_valley"), 0.9 * COMPATIBLE, "rtn")
    found = solve(valley("river_valley", metric="normal"), 0.9 * COMPATIBLE, method, **options)
    assert nearest.end_parts.normal_distance > 1
    assert found.end_parts.normal_distance < 0.8


@pytest.mark.parametrize("name", CASES)
def test_a_metric_of_the_case_s_own_corners(name: str, solve: Solve, valley: MakeValley) -> None:
    # With two weights the binary problem can be solved by listing all corners.
    found = solve(valley(name, metric="normal"), 1.0, "qubo")
    metric, start = found.landscape.metric("normal"), found.landscape.start
    corners = [start.floor() + torch.tensor(code) for code in itertools.product((0.0, 1.0), repeat=2)]
    errors = {tuple(one.tolist()): float((one - start) @ metric @ (one - start)) for one in corners}
    assert errors[tuple(found.end.tolist())] == pytest.approx(min(errors.values()))


@pytest.mark.parametrize("share", TABLE)
def test_rounding_in_many_dimensions(share: float, solve: Solve, valley: MakeValley) -> None:
    plain, oracle = valley("river_valley"), valley("river_valley", metric="normal")
    asked = {
        "rtn": (plain, "rtn", {}),
        "gptq": (plain, "gptq", IN_ORDER),
        "qubo": (plain, "qubo", {}),
        "normal": (oracle, "qubo", {}),
    }
    for name, (model, method, options) in asked.items():
        ends = [solve(model, share * COMPATIBLE, method, seed, **options).end_parts for seed in SEEDS]
        distance, loss = TABLE[share][name]
        # One weight of 256 at another level, of one seed in six, moves a mean by less.
        assert np.mean([end.normal_distance for end in ends]) == pytest.approx(distance, abs=1.5e-3), name
        assert np.mean([end.loss for end in ends]) == pytest.approx(loss, abs=1.5e-3), name


def test_second_order_rounding_has_twice_the_squared_error(solve: Solve, valley: MakeValley) -> None:
    step = 0.9 * COMPATIBLE

    def error(method: str, options: dict[str, Any]) -> float:
        ends = [solve(valley("river_valley"), step, method, seed, **options) for seed in SEEDS]
        return float(np.mean([float((one.end - one.landscape.start).square().mean()) / step**2 for one in ends]))

    assert error("rtn", {}) == pytest.approx(1 / 12, rel=0.05)
    for method, options in SECOND_ORDER:
        assert 1.3 / 12 < error(method, options) < 2.4 / 12


@pytest.mark.parametrize("visible", [0, 64])
def test_rounding_to_nearest_leaves_the_basin_at_the_exit_step(visible: int, solve: Solve, valley: MakeValley) -> None:
    expected = theory.exit_step(1.0, 0.6, 64)
    model = valley("river_valley", visible=visible)
    shares = np.linspace(0.85, 1.15, 7)
    squares = [
        np.mean([solve(model, share * expected, "rtn", seed).end_parts.normal_distance ** 2 for seed in range(24)])
        for share in shares
    ]
    # The square of the distance is a straight line in the square of the step, about which the seeds scatter.
    slope, constant = np.polyfit(shares**2, squares, 1)
    assert math.sqrt((1 - constant) / slope) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("method", "options"), [("gptq", IN_ORDER), ("qubo", {})], ids=str)
def test_where_the_hessian_sees_the_walled_directions_alone_scale_does_not_matter(
    method: str, options: dict[str, Any], solve: Solve, valley: MakeValley
) -> None:
    for share in (0.5, 0.9, 1.2, 1.5):
        for seed in range(3):
            without = solve(valley("river_valley", visible=0), share * COMPATIBLE, method, seed, **options)
            assert without.end_parts.normal_distance < 0.9
            if share >= 0.7:  # other directions that are seen better take what could be put right
                beside = solve(valley("river_valley"), share * COMPATIBLE, method, seed, **options)
                assert beside.end_parts.normal_distance > 1.1
