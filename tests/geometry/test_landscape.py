"""The function and its derivatives: against a formula written down again, autograd and differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qbench.geometry.landscape import Landscape
from qbench.geometry.landscape_cases import CASES, Setting, random_valley

PLAIN: dict[str, Any] = {"offset": 0.5, "curvature": 0.3, "flatness": 0.02, "rho": 1.2, "wall": 0.7}
FORMS: list[dict[str, Any]] = [
    PLAIN,
    {**PLAIN, "slope": 0.05},
    {**PLAIN, "curve": 0.8, "slope": 0.1},
    {**PLAIN, "visible": 0},
    {**PLAIN, "visible": 3, "flat": 4},
    {**PLAIN, "offset": 0.0},
]

each_form = pytest.mark.parametrize("form", FORMS, ids=str)
distances = st.floats(0.0, 4.0)
seeds = st.integers(0, 50)


def drawn(form: dict[str, Any], seed: int = 0) -> Landscape:
    sizes = {"dimension": 7, "visible": 2, "flat": 3}
    return Landscape(random_valley(**{**sizes, **form}, seed=seed))


def point(landscape: Landscape, seed: int, distance: float) -> Tensor:
    """Return a point so far from the centre, away from the wall itself, where there is no derivative."""
    direction = np.random.default_rng(seed + 1000).standard_normal(len(landscape.centre))
    weights = landscape.centre + distance * torch.from_numpy(direction / np.linalg.norm(direction))
    away = landscape.parts(weights).normal_distance
    if abs(away - landscape.setting.rho) < 1e-3:
        return point(landscape, seed, distance + 0.1)
    return weights


def written_again(setting: Setting, weights: Tensor) -> float:
    """Return f, with numpy and by its definition."""
    away = weights.numpy() - setting.centre
    visible, flat, river = (basis.T @ away for basis in (setting.visible, setting.flat, setting.river))
    first = float(river[0]) if len(river) else 0.0
    flat = flat - setting.curve / 2 * first**2 * np.eye(len(flat))[0]
    distance = math.sqrt(sum(float(one) ** 2 for one in flat))
    bowl = setting.curvature / 2 * float(visible @ visible) + setting.flatness / 2 * (distance / setting.rho) ** 2
    return bowl + setting.wall * max(0.0, distance - setting.rho) - setting.tilt * flat[0] - setting.slope * first


@each_form
@given(seed=seeds, distance=distances)
def test_the_value_is_that_of_the_definition(form: dict[str, Any], seed: int, distance: float) -> None:
    landscape = drawn(form, seed)
    weights = point(landscape, seed, distance)
    assert float(landscape.value(weights)) == pytest.approx(written_again(landscape.setting, weights), abs=1e-12)


@each_form
@given(seed=seeds, distance=distances)
def test_the_gradient_is_that_of_differences_and_of_autograd(form: dict[str, Any], seed: int, distance: float) -> None:
    landscape = drawn(form, seed)
    weights = point(landscape, seed, distance)
    found, unit, step = landscape.gradient(weights), torch.eye(len(weights), dtype=torch.float64), 1e-6
    differences = [
        (
            written_again(landscape.setting, weights + step * one)
            - written_again(landscape.setting, weights - step * one)
        )
        / (2 * step)
        for one in unit
    ]
    torch.testing.assert_close(found, torch.tensor(differences, dtype=torch.float64), rtol=1e-5, atol=1e-7)
    (by_autograd,) = torch.autograd.grad(landscape.value(leaf := weights.clone().requires_grad_()), leaf)
    torch.testing.assert_close(by_autograd, found, rtol=1e-10, atol=1e-13)


@each_form
@given(seed=seeds, distance=distances)
def test_the_hessian_is_autograd_s(form: dict[str, Any], seed: int, distance: float) -> None:
    landscape = drawn(form, seed)
    weights = point(landscape, seed, distance)
    by_autograd = torch.autograd.functional.hessian(landscape.value, weights)
    torch.testing.assert_close(landscape.hessian(weights), by_autograd, rtol=1e-9, atol=1e-12)


@each_form
def test_on_the_river_all_derivatives_are_finite(form: dict[str, Any]) -> None:
    landscape = drawn(form)
    gradient = torch.autograd.functional.jacobian(landscape.value, landscape.centre)
    torch.testing.assert_close(gradient, landscape.gradient(landscape.centre))
    hessian = torch.autograd.functional.hessian(landscape.value, landscape.centre)
    torch.testing.assert_close(hessian, landscape.hessian(landscape.centre))


@pytest.mark.parametrize("name", CASES)
@given(x=st.floats(-3, 3), y=st.floats(-3, 3))
def test_derivatives_of_the_cases(name: str, x: float, y: float) -> None:
    landscape = Landscape(CASES[name][0]())
    weights = landscape.start + torch.tensor([x, y], dtype=torch.float64)
    if abs(landscape.parts(weights).normal_distance - landscape.setting.rho) < 1e-6:
        return
    assert float(landscape.value(weights)) == pytest.approx(written_again(landscape.setting, weights), abs=1e-12)
    gradient = torch.autograd.functional.jacobian(landscape.value, weights)
    torch.testing.assert_close(landscape.gradient(weights), gradient, rtol=1e-10, atol=1e-13)
    hessian = torch.autograd.functional.hessian(landscape.value, weights)
    torch.testing.assert_close(landscape.hessian(weights), hessian, rtol=1e-9, atol=1e-13)


@each_form
def test_the_basis_is_orthonormal_and_whole(form: dict[str, Any]) -> None:
    landscape = drawn(form)
    basis = torch.cat([landscape.visible, landscape.flat, landscape.river], dim=1)
    torch.testing.assert_close(basis.T @ basis, torch.eye(7, dtype=torch.float64))


def test_weights_start_so_far_from_the_river_as_asked_and_only_in_flat_directions() -> None:
    for offset in (0.0, 0.3, 0.9):
        landscape = drawn({**PLAIN, "offset": offset})
        visible, flat, river = landscape.coordinates(landscape.start)
        assert float(flat.norm()) == pytest.approx(offset, abs=1e-12)
        assert float(visible.norm()) < 1e-12 and float(river.norm()) < 1e-12


@given(seed=seeds, distance=distances)
def test_parts_add_up_to_the_loss(seed: int, distance: float) -> None:
    landscape = drawn(PLAIN, seed)
    parts = landscape.parts(point(landscape, seed, distance))
    flat = 0.02 / 2 * (parts.normal_distance / 1.2) ** 2
    assert parts.visible_loss + parts.wall + flat == pytest.approx(parts.loss)
    assert (parts.wall > 0) == (parts.normal_distance > 1.2)


@given(distance=st.floats(-5, 5))
def test_nothing_falls_or_rises_along_a_bent_river_without_a_slope(distance: float) -> None:
    landscape = drawn({**PLAIN, "curve": 0.8})
    along, into = landscape.river[:, 0], landscape.flat[:, 0]
    on_it = landscape.centre + distance * along + 0.4 * distance**2 * into
    assert float(landscape.value(on_it)) == pytest.approx(0.0, abs=1e-20)
    assert float(landscape.gradient(on_it).norm()) == pytest.approx(0.0, abs=1e-12)
    straight_on = landscape.centre + distance * along
    assert landscape.parts(straight_on).normal_distance == pytest.approx(0.4 * distance**2, abs=1e-12)


def test_float32_weights_are_taken_as_they_are() -> None:
    landscape = drawn(PLAIN)
    single = landscape.start.float()
    assert landscape.value(single).dtype == torch.float64
    assert float(landscape.value(single)) == float(landscape.value(single.double()))


class TestMetric:
    """What second-order methods are shown."""

    @each_form
    def test_hessian(self, form: dict[str, Any]) -> None:
        landscape = drawn({**form, "curve": 0.0})
        torch.testing.assert_close(
            landscape.metric("hessian"), landscape.hessian(landscape.start), rtol=1e-9, atol=1e-12
        )

    def test_a_ridge_that_is_not_there(self) -> None:
        landscape = Landscape(CASES["valley_a"][0]())
        along = landscape.river[:, 0]
        torch.testing.assert_close(
            landscape.metric("hessian"), landscape.hessian(landscape.start) + 1e-6 * torch.outer(along, along)
        )
        assert float(along @ landscape.hessian(landscape.start) @ along) == pytest.approx(0.0, abs=1e-15)

    @given(seed=seeds, distance=st.floats(0.01, 4.0))
    def test_normal_measures_the_way_out_of_the_valley(self, seed: int, distance: float) -> None:
        landscape = drawn(PLAIN, seed)
        away = point(landscape, seed, distance) - landscape.centre
        visible, flat, _ = landscape.coordinates(landscape.centre + away)
        expected = 0.3 * visible.square().sum() + 0.7 / 1.2 * flat.square().sum()
        torch.testing.assert_close(away @ landscape.metric("normal") @ away, expected)


@given(step=st.floats(0.1, 3), seed=seeds)
def test_no_rounding_error_is_longer_than_the_worst(step: float, seed: int) -> None:
    weights = torch.from_numpy(np.random.default_rng(seed).standard_normal((200, 2)) * 9)
    error = step * (weights / step).round() - weights
    for make, _ in CASES.values():
        landscape = Landscape(make())
        seen = float((error @ landscape.flat).norm(dim=1).max())
        assert 0.8 * landscape.worst_error(step) < seen <= landscape.worst_error(step) * (1 + 1e-12)
