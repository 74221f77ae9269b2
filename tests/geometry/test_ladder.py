"""The ladder of steps: its first rung is the cell's grid, and on a bowl its excesses are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from qbench.errors import DivergedError
from qbench.geometry.ladder import Ladder
from qbench.geometry.scene import Losses, Weights
from qbench.registry import PROBES, QUANTIZERS

from .scenes import Landscape, bowl, network, scene_of


def ladder(**options: object) -> Ladder:
    return Ladder(name="ladder", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rule", [{"convention": "narrow_range"}, {"convention": "larger_side"}, {"symmetric": False}], ids=str
)
def test_the_first_rung_is_rounding_on_the_grid_where_nothing_is_clipped(rule: dict[str, object]) -> None:
    scene = scene_of(network(), bits=4, rule_options=rule)
    found = ladder(factors=2, draws=2).measure(scene).traces
    excess, se = scene.excess(scene.rounded())
    assert found["rtn/excess"][0] == pytest.approx(excess, rel=1e-5) and excess != 0
    assert found["rtn/se"][0] == pytest.approx(se, rel=1e-5)
    assert found["factor"] == [1, 1.25]


def test_levels_with_a_real_zero_point_stay_where_they_are() -> None:
    scene = scene_of(network(), bits=4, quantizer="hqq")
    found = ladder(factors=2, draws=2).measure(scene).traces
    clipped = sum(
        int(((scene.full[layer.name] - scene.rounded()[layer.name]).abs() > 0.5001 * layer.grid.scale).sum())
        for layer in scene.problem.layers
    )
    assert clipped == 0
    assert found["rtn/excess"][0] == pytest.approx(scene.excess(scene.rounded())[0], rel=1e-4)


def test_no_rung_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(network(), bits=2, quantizer="percentile", rule_options={"q": 60})
    seen: list[Weights] = []
    losses = scene.losses

    def look(weights: Weights) -> Losses:
        seen.append(weights)
        return losses(weights)

    monkeypatch.setattr(scene, "losses", look)
    monkeypatch.setattr(scene, "excess", lambda weights: look(weights).excess(losses(scene.full)))
    ladder(factors=3, ratio=2, draws=2).measure(scene)
    rounded = [weights for weights in seen if weights is not scene.full][::3]
    for layer in scene.problem.layers:
        weight, step = scene.full[layer.name], layer.grid.scale
        assert (weight / step > 1.5).any()  # two bits end at -2 and 1
        for factor, weights in zip((1, 2, 4), rounded, strict=True):
            whole = weights[layer.name] / (factor * step)
            torch.testing.assert_close(whole, whole.round())
            assert ((weights[layer.name] - weight).abs() <= 0.5001 * factor * step).all()


def test_on_a_bowl_noise_costs_what_its_variance_says() -> None:
    task, hessian, lowest = bowl(rows=4, columns=8)
    task.model[0].weight.data = lowest.view(4, 8)
    scene = scene_of(task, bits=6, rule_options={"granularity": "per_tensor"})
    found = ladder(factors=3, ratio=2, draws=400).measure(scene).traces
    step = float(scene.problem.layers[0].grid.scale)
    for k, factor in enumerate((1, 2, 4)):
        # E[e^T H e] / 2 with independent errors of variance step^2 / 12
        assert found["noise/excess"][k] == pytest.approx((factor * step) ** 2 / 24 * float(hessian.trace()), rel=0.05)
        assert found["step"][k] == pytest.approx(factor * step, rel=1e-6)
        # One draw grows with the step: on a bowl from its lowest point all is a power of two.
        assert found["noise/spread"][k] == pytest.approx(factor**2 * found["noise/spread"][0], rel=1e-3)
    assert found["noise/se"] == [0, 0, 0]


def test_the_step_is_a_mean_of_squares_over_weights_and_then_layers() -> None:
    scene = scene_of(network(), bits=4)
    squares = [float((layer.grid.scale**2).mean()) for layer in scene.problem.layers]
    found = ladder(factors=2, draws=2, ratio=3).measure(scene).traces["step"]
    assert found == pytest.approx([math.sqrt(sum(squares) / 2), 3 * math.sqrt(sum(squares) / 2)])


def exploding(start: float) -> Landscape:
    """Return a loss that is beyond float32 for weights far away."""
    model = nn.Sequential(nn.Linear(8, 1, bias=False))
    model[0].weight.data = torch.linspace(-1, 1, 8)[None] * start
    return Landscape(model, lambda model: (20 * model[0].weight.square().mean()).exp())


def test_it_ends_below_a_rung_whose_loss_is_not_finite() -> None:
    found = ladder(factors=30, draws=2, ratio=1.5).measure(scene_of(exploding(1.0), bits=3)).traces
    assert 2 < len(found["factor"]) < 30
    assert all(math.isfinite(value) for trace in found.values() for value in trace)
    assert len({len(trace) for trace in found.values()}) == 1
    with pytest.raises(DivergedError, match="first rung"):
        ladder(draws=2).measure(scene_of(exploding(100.0), bits=3))


def test_the_same_again() -> None:
    probe = ladder(factors=3, draws=2)
    assert probe.measure(scene_of(network())) == probe.measure(scene_of(network()))


def test_grids_without_integers_have_no_ladder() -> None:
    refused = {
        name: ladder().refuses_grid(QUANTIZERS.get(name).model_construct(name=name)) for name in QUANTIZERS.names()
    }
    integers = {"absmax", "mse", "percentile", "hessian_mse", "hqq"}
    assert integers <= {name for name, reason in refused.items() if reason is None}
    assert refused["nf"] == "ladder rounds to all integers, and nf has other levels"
    assert {"kmeans", "mxfp4", "nvfp4", "fp", "pot"} <= {name for name, reason in refused.items() if reason}


def test_it_is_registered() -> None:
    assert PROBES.get("ladder") is Ladder
