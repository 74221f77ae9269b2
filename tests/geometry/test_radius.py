"""Directions as long as the rounding error, layer by layer, and what they cost on a bowl."""

from __future__ import annotations

import pytest
import torch

from qbench.geometry.radius import Radius, _direction

from .scenes import bowl, network, scene_of

KINDS = ("rtn", "flipped", "permuted", "gaussian")


@pytest.mark.parametrize("kind", KINDS)
def test_every_direction_has_the_error_s_norm_in_each_layer(kind: str) -> None:
    scene = scene_of(network())
    error = scene.rounding_error()
    drawn = [_direction(scene, error, kind, draw) for draw in (0, 0, 1)]
    for name, one in error.items():
        assert float(drawn[0][name].norm()) == pytest.approx(float(one.norm()), rel=1e-6)
        assert torch.equal(drawn[0][name], drawn[1][name])
        assert torch.equal(drawn[0][name], drawn[2][name]) == (kind == "rtn")
        same_sizes = torch.equal(drawn[0][name].abs(), one.abs())
        same_values = torch.equal(drawn[0][name].flatten().sort().values, one.flatten().sort().values)
        assert (same_sizes, same_values) == {
            "rtn": (True, True),
            "flipped": (True, False),
            "permuted": (False, True),
            "gaussian": (False, False),
        }[kind]


def test_on_a_bowl_the_cost_grows_with_the_square() -> None:
    task, hessian, lowest = bowl()
    task.model[0].weight.data = lowest.view(2, 4)
    scene = scene_of(task)
    found = Radius(name="radius", draws=3).measure(scene)
    error = scene.vector(scene.rounding_error())
    scales = found.traces["scale"]
    bent = 0.5 * float(error @ hessian @ error)
    assert found.traces["rtn/excess"] == pytest.approx([bent * scale**2 for scale in scales], rel=1e-3)
    for kind in KINDS:
        trace = found.traces[f"{kind}/excess"]
        assert trace == pytest.approx([trace[3] * scale**2 for scale in scales], rel=1e-3)
        assert found.traces[f"{kind}/se"] == [0] * len(scales)
    assert found.metrics["distance"] == pytest.approx(float(error.norm()))


def test_random_directions_cost_on_average_what_the_trace_says() -> None:
    task, hessian, lowest = bowl(rows=1, columns=8)
    task.model[0].weight.data = lowest.view(1, 8)
    scene = scene_of(task)
    found = Radius(name="radius", draws=600, scales=(0.5, 1.0)).measure(scene)
    error = scene.vector(scene.rounding_error())
    isotropic = 0.5 * float(hessian.trace()) * float(error.square().mean())
    signs = 0.5 * float(hessian.diagonal() @ error.square())
    assert found.traces["gaussian/excess"][1] == pytest.approx(isotropic, rel=0.1)
    assert found.traces["flipped/excess"][1] == pytest.approx(signs, rel=0.1)


def test_at_one_the_rounding_error_is_the_rounded_weights_and_draws_are_averaged() -> None:
    scene = scene_of(network(), bits=2)
    found = Radius(name="radius", draws=2).measure(scene).traces
    excess, se = scene.excess(scene.rounded())
    assert found["rtn/excess"][3] == pytest.approx(excess, rel=1e-4)
    assert found["rtn/se"][3] == pytest.approx(se, rel=1e-4)
    each = [
        scene.excess(scene.moved(_direction(scene, scene.rounding_error(), "flipped", draw), 2.5))[0] for draw in (0, 1)
    ]
    assert found["flipped/excess"][5] == pytest.approx(sum(each) / 2, rel=1e-6)
