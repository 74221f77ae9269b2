"""Which way gradients point: on a bowl they are ``H (lowest - q)``, and the null is that of random signs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from qbench.errors import CellError
from qbench.geometry.inward import Inward, _flipped_sums

from .scenes import Landscape, bowl, network, scene_of

PROBE = Inward(name="inward", flips=4000)


def test_on_a_bowl_in_closed_form() -> None:
    task, hessian, lowest = bowl()
    scene = scene_of(task, bits=2)
    found = PROBE.measure(scene).metrics
    w, q = scene.vector(scene.full), scene.vector(scene.rounded())
    back, down, latent = w - q, hessian @ (lowest - q), hessian @ (lowest - w)

    def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(one, other, dim=0))

    assert found["cosine/deployed"] == pytest.approx(cosine(down, back), abs=1e-4)
    assert found["cosine/latent"] == pytest.approx(cosine(latent, back), abs=1e-4)
    assert found["gradient_norm/deployed"] == pytest.approx(float(down.norm()), rel=1e-4)
    assert found["gradient_norm/latent"] == pytest.approx(float(latent.norm()), rel=1e-4)
    assert found["norm_ratio"] == pytest.approx(float(down.norm() / latent.norm()), rel=1e-4)
    assert found["projection"] == pytest.approx(float(down @ back / back.norm()), rel=1e-3)


def test_from_the_lowest_point_of_a_round_bowl_the_gradient_points_straight_back() -> None:
    model = nn.Sequential(nn.Linear(40, 4, bias=False))
    lowest = model[0].weight.detach().clone()
    scene = scene_of(Landscape(model, lambda model: (model[0].weight - lowest).square().sum()))
    found = PROBE.measure(scene).metrics
    assert found["cosine/deployed"] == pytest.approx(1, abs=1e-6)
    assert found["cosine/latent"] == 0 and "norm_ratio" not in found  # there is no gradient to compare with
    back = scene.vector(scene.rounding_error()).double()
    # cos = sum of signs times e_i^2 / |e|^2
    sd = float(back.pow(4).sum().sqrt() / back.square().sum())
    assert found["null/sd"] == pytest.approx(sd, rel=0.05)
    assert abs(found["null/mean"]) < 4 * sd / math.sqrt(4000)
    assert found["null/high"] == pytest.approx(2.33 * sd, rel=0.1)
    assert found["z"] == pytest.approx(1 / sd, rel=0.05)


def test_the_null_is_the_cosine_with_signs_that_are_drawn() -> None:
    terms = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
    sums = _flipped_sums(terms, 500, torch.Generator().manual_seed(0))
    assert set(sums.tolist()) == {a + b + c for a in (-1, 1) for b in (-2, 2) for c in (-4, 4)}


def test_a_network_on_some_of_its_samples() -> None:
    scene = scene_of(network(), bits=2)
    some = Inward(name="inward", samples=9).measure(scene).metrics
    gradient = -scene.vector(scene.gradient(scene.rounded(), 9))
    back = -scene.vector(scene.rounding_error())
    assert some["projection"] == pytest.approx(float(gradient @ back / back.norm()), rel=1e-4)
    everything = Inward(name="inward").measure(scene).metrics
    assert everything["gradient_norm/latent"] != pytest.approx(some["gradient_norm/latent"], rel=1e-3)
    assert Inward(name="inward", samples=9).measure(scene_of(network(), bits=2)).metrics == some


def test_without_an_error_there_is_no_way_back() -> None:
    task, _, _ = bowl()
    task.model[0].weight.data.zero_()
    with pytest.raises(CellError, match="no error to look along"):
        PROBE.measure(scene_of(task))
