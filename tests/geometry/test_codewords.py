"""All corners of a small model: those of the worked cases, and of a bowl."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import torch

from qbench.errors import CellError
from qbench.geometry.codewords import Codewords
from qbench.geometry.scene import Findings, Scene
from qbench.quantizers.layout import choose_grid
from qbench.registry import MODELS, QUANTIZERS
from qbench.runner.targets import make_problem
from qbench.suite.cell import Cell

from .scenes import bowl, network, scene_of

PROBE = Codewords(name="codewords")
# Codes, distance, e^T H e / 2, with the gradient, f: worked out in float64 by hand-written formulas.
CASES = {
    "valley_a": [
        ((1, 1), 0.212, 3.5e-5, 2.5e-4, 0.0627),
        ((0, 1), 0.863, 1.9e-4, -3.1e-4, 1.9e-5),
        ((1, 0), 0.863, 1.9e-4, -3.1e-4, 1.9e-5),
        ((0, 0), 1.202, 1.1e-3, -9.1e-5, 2.4e-4),
    ],
    "valley_c": [
        ((1, 0), 0.636, 2.0e-6, -5.9e-5, 0.1863),
        ((0, 0), 0.711, 2.5e-3, 2.5e-3, 0.0025),
        ((1, 1), 0.711, 2.5e-3, 2.5e-3, 0.0025),
        ((0, 1), 0.778, 3.0e-6, 7.7e-5, 3.33e-5),
    ],
}


def measured(name: str) -> Findings:
    model: Any = MODELS.get(name).model_validate({"name": name})
    rule: Any = QUANTIZERS.get("lattice").model_validate({"name": "lattice", "unit": "absolute", "step": 1.0})
    task = model.load(0, "cpu")
    cell = Cell(model, rule, 8, None, 0, ("loss",))
    model = copy.deepcopy(task.model)
    problem = make_problem(task, model, cell, lambda place: choose_grid(place.weight, rule, place.bits))
    return PROBE.measure(Scene(task, problem))


@pytest.mark.parametrize("name", CASES)
def test_the_corners_of_the_worked_cases(name: str) -> None:
    found = measured(name).traces
    rows = {
        (code[0], code[1]): values
        for code, values in zip(
            zip(found["code_0"], found["code_1"], strict=True),
            zip(*(found[key] for key in ("distance", "quadratic", "with_gradient", "loss")), strict=True),
            strict=True,
        )
    }
    assert len(rows) == 4 and found["distance"] == sorted(found["distance"])
    for code, distance, quadratic, with_gradient, loss in CASES[name]:
        assert rows[code][0] == pytest.approx(distance, abs=6e-4)
        assert rows[code][1:3] == pytest.approx((quadratic, with_gradient), rel=0.03, abs=1e-6)
        assert rows[code][3] == pytest.approx(loss, rel=0.03)


def test_on_a_bowl_the_expansion_is_the_excess() -> None:
    task, hessian, lowest = bowl()
    scene = scene_of(task, bits=4)
    found = PROBE.measure(scene).traces
    assert len(found["excess"]) == 2**8 - _clipped(found)
    assert found["with_gradient"] == pytest.approx(found["excess"], rel=1e-3, abs=1e-5)
    nearest = float(scene.vector(scene.rounding_error()).norm())
    assert found["distance"][0] == pytest.approx(nearest, rel=1e-5)
    start = scene.vector(scene.full) - lowest
    full = 0.5 * float(start @ hessian @ start)
    assert found["loss"] == pytest.approx([one + full for one in found["excess"]], rel=1e-4)


def _clipped(found: dict[str, list[float]]) -> int:
    """Return how many of all corners a weight at the end of the range takes away."""
    free = sum(any(found[f"code_{place}"]) for place in range(8))
    return 2**8 - 2**free


def test_all_roundings_are_there_once() -> None:
    task, _, _ = bowl(rows=1, columns=3)
    found = PROBE.measure(scene_of(task, bits=8, rule_options={"convention": "full_range"})).traces
    codes = list(zip(*(found[f"code_{place}"] for place in range(3)), strict=True))
    assert len(codes) == len(set(codes))
    free = [max(column) for column in zip(*codes, strict=True)]
    assert set(codes) == set(product(*[(0.0, 1.0) if one else (0.0,) for one in free]))
    assert sum(free) >= 2  # of the largest weight there may be one level only


def test_more_weights_than_can_be_enumerated() -> None:
    with pytest.raises(CellError, match=r"^codewords: given 36 weights in the target layers \(allowed: at most 12\)$"):
        PROBE.measure(scene_of(network()))


def test_nothing_is_left_in_the_model() -> None:
    task, _, _ = bowl(rows=1, columns=3)
    scene = scene_of(task)
    PROBE.measure(scene)
    assert torch.equal(scene.model[0].weight, task.model[0].weight)  # type: ignore[index]
