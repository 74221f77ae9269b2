"""The numbers of the three cases, corner by corner, and of what is drawn at random."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from qbench.geometry.landscape import Landscape
from qbench.geometry.landscape_cases import CASES, Setting, random_valley

# By corner of the unit cell: distance, quadratic form of the metric, the same with the gradient, z_F, f.
# Worked out by hand from the cases' definitions, with the fractions and normals as they stand there.
TABLES: dict[str, dict[tuple[int, int], tuple[float, float, float, float, float]]] = {
    "valley_a": {
        (1, 1): (0.212, 3.52e-5, 2.51e-4, 0.862, 0.0627),
        (0, 1): (0.863, 1.92e-4, -3.11e-4, 0.155, 1.88e-5),
        (1, 0): (0.863, 1.92e-4, -3.11e-4, 0.155, 1.88e-5),
        (0, 0): (1.20, 1.13e-3, -9.19e-5, -0.552, 2.38e-4),
    },
    "valley_b": {
        (1, 0): (0.665, 2.21e-5, 2.50e-5, 0.707, 0.107),
        (0, 1): (0.750, 2.81e-5, 2.49e-5, -0.707, 0.107),
        (0, 0): (0.708, 2.50e-3, 2.50e-3, 0.0, 2.50e-3),
        (1, 1): (0.708, 2.50e-3, 2.50e-3, 0.0, 2.50e-3),
    },
    "valley_c": {
        (1, 0): (0.636, 2.02e-6, -5.88e-5, 1.09, 0.186),
        (0, 0): (0.711, 2.50e-3, 2.51e-3, 0.379, 2.46e-3),
        (1, 1): (0.711, 2.50e-3, 2.51e-3, 0.379, 2.46e-3),
        (0, 1): (0.778, 3.02e-6, 7.74e-5, -0.328, 3.33e-5),
    },
}


def corner(landscape: Landscape, code: tuple[int, int]) -> Tensor:
    return landscape.start.floor() + torch.tensor(code, dtype=torch.float64)


@pytest.mark.parametrize(("name", "code"), [(name, code) for name in TABLES for code in TABLES[name]], ids=str)
def test_corners(name: str, code: tuple[int, int]) -> None:
    landscape = Landscape(CASES[name][0]())
    there = corner(landscape, code)
    error = there - landscape.start
    quadratic = float(error @ landscape.metric("hessian") @ error) / 2
    found = (
        float(error.norm()),
        quadratic,
        quadratic + float(landscape.gradient(landscape.start) @ error),
        float(landscape.coordinates(there)[1]),
        float(landscape.value(there)),
    )
    for one, expected in zip(found, TABLES[name][code], strict=True):
        assert one == pytest.approx(expected, rel=5e-3, abs=1e-12)


def test_what_makes_case_a_hard() -> None:
    landscape, table = Landscape(CASES["valley_a"][0]()), TABLES["valley_a"]
    # Nearest and Hessian agree on the only corner outside, which the gradient would have told from the others.
    assert min(table, key=lambda code: table[code][0]) == min(table, key=lambda code: table[code][1]) == (1, 1)
    assert min(table, key=lambda code: table[code][2]) != (1, 1)
    assert [code for code in table if table[code][4] > 0.01] == [(1, 1)]
    assert landscape.worst_error(1.0) == pytest.approx(math.sqrt(0.5)) and math.sqrt(0.5) < landscape.setting.rho


def test_what_makes_case_c_hard() -> None:
    landscape, table = Landscape(CASES["valley_c"][0]()), TABLES["valley_c"]
    for column in (0, 1, 2):
        assert min(table, key=lambda code: table[code][column]) == (1, 0)
    assert [code for code in table if table[code][4] > 0.02] == [(1, 0)]
    # In the basin the function is its own Taylor polynomial of second order, which knows no wall.
    gradient, hessian = landscape.gradient(landscape.start), landscape.hessian(landscape.start)
    for code in table:
        error = corner(landscape, code) - landscape.start
        polynomial = float(landscape.value(landscape.start) + gradient @ error + error @ hessian @ error / 2)
        inside = landscape.parts(corner(landscape, code)).wall == 0
        assert (float(landscape.value(corner(landscape, code))) == pytest.approx(polynomial, abs=1e-12)) == inside
    assert landscape.worst_error(1.0) < landscape.setting.rho


def test_what_makes_case_b_hopeless() -> None:
    landscape, table = Landscape(CASES["valley_b"][0]()), TABLES["valley_b"]
    assert landscape.worst_error(1.0) == pytest.approx(math.sqrt(0.5))
    assert landscape.worst_error(1.0) > landscape.setting.rho
    assert [code for code in table if table[code][4] > 0.01] == [(1, 0), (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_full_precision_weights_lie_in_the_basin(name: str) -> None:
    make, tolerance = CASES[name]
    landscape = Landscape(make())
    assert landscape.parts(landscape.start).wall == 0
    assert abs(float(landscape.value(landscape.start))) < tolerance / 10


def test_in_reverse_order_the_function_is_the_same() -> None:
    for make, _ in CASES.values():
        one, other = Landscape(make()), Landscape(make().reversed())
        for code in itertools.product((-1, 0, 1, 2), repeat=2):
            there = corner(one, code)
            assert float(other.value(there.flip(0))) == pytest.approx(float(one.value(there)), rel=1e-12)


def random_setting(seed: int = 0, **options: float) -> Setting:
    numbers = {"offset": 0.6, "curvature": 0.02, "flatness": 1e-4, "rho": 1.0, "wall": 1.0}
    return random_valley(12, 3, 4, seed, **{**numbers, **options})


def test_a_seed_draws_the_same_again() -> None:
    one, other = random_setting(3), random_setting(3)
    assert all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Setting))
    assert not np.allclose(one.centre, random_setting(4).centre)


class TestHash:
    """What tells landscapes apart in a cell's identity."""

    def test_every_number_counts(self) -> None:
        setting = random_setting()
        for field in fields(Setting):
            value = getattr(setting, field.name)
            changed = value + 1e-3 if isinstance(value, float) else np.where(value == value.max(), 9.0, value)
            assert replace(setting, **{field.name: changed}).sha256() != setting.sha256(), field.name

    def test_last_digits_of_a_factorization_do_not(self) -> None:
        setting = random_setting()
        other = replace(setting, flat=setting.flat * (1 + 1e-13), visible=setting.visible + 0.0)
        assert other.sha256() == setting.sha256()

    def test_cases_and_seeds_differ(self) -> None:
        settings = [make() for make, _ in CASES.values()] + [random_setting(seed) for seed in range(3)]
        settings.append(CASES["valley_c"][0]().reversed())
        assert len({setting.sha256() for setting in settings}) == len(settings)
