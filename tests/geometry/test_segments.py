"""Straight lines between points: their ends are the points, and on a bowl they are parabolas."""

from __future__ import annotations

import pytest
import torch

from qbench.geometry.scene import Point, Scene
from qbench.geometry.segments import Segments

from .scenes import bowl, network, normalised, scene_of, with_points

PROBE = Segments(name="segments", samples=5)


def test_on_a_bowl_every_segment_is_a_parabola() -> None:
    task, hessian, lowest = bowl()
    scene = scene_of(task)
    generator = torch.Generator().manual_seed(3)
    scene.points = {
        label: Point({"0": scene.full["0"] + torch.randn(2, 4, generator=generator)}) for label in ("rtn", "other")
    }
    found = PROBE.measure(scene)

    def excess(vector: torch.Tensor) -> float:
        start = scene.vector(scene.full)
        return 0.5 * float(
            (vector - lowest) @ hessian @ (vector - lowest) - (start - lowest) @ hessian @ (start - lowest)
        )

    w, a, b = (scene.vector(x) for x in (scene.full, *(scene.points[label].weights for label in ("rtn", "other"))))
    assert set(found.traces) == {"t", "fp->rtn", "fp->other", "rtn->other"}
    assert found.traces["t"] == [0, 0.25, 0.5, 0.75, 1]
    for label, start, end in (("fp->rtn", w, a), ("fp->other", w, b), ("rtn->other", a, b)):
        wanted = [excess((1 - t) * start + t * end) for t in found.traces["t"]]
        assert found.traces[label] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert found.metrics["rtn/distance"] == pytest.approx(float((a - w).norm()))
    cosine = float(torch.nn.functional.cosine_similarity(a - w, b - w, dim=0))
    assert found.metrics["other/cosine_to_first"] == pytest.approx(cosine, abs=1e-5)
    assert found.metrics["rtn/cosine_to_first"] == pytest.approx(1)


@pytest.mark.parametrize("recalibrates", [False, True])
def test_ends_are_what_is_measured_at_the_points(recalibrates: bool) -> None:
    task = normalised()
    scene = scene_of(task, bits=2, calibration=[task.data.images], recalibrates=recalibrates)
    scene.points = {
        "rtn": Point(scene.rounded()),
        "ste_qat[steps=1]": Point(scene.moved(scene.rounding_error(), -0.7), {"1.running_var": torch.full((5,), 2.0)}),
    }
    found = PROBE.measure(scene)
    for label in scene.points:
        excess, se = scene.excess_of(label)
        assert found.traces[f"fp->{label}"][0] == 0
        assert found.traces[f"fp->{label}"][-1] == found.metrics[f"{label}/excess"] == excess
        assert found.metrics[f"{label}/se"] == se > 0
    across = found.traces["rtn->ste_qat[steps=1]"]
    assert [across[0], across[-1]] == [found.metrics["rtn/excess"], found.metrics["ste_qat[steps=1]/excess"]]
    # The ends are taken from the points: a path that runs close to them must come close to their losses.
    close = scene.excess_at(scene.between(scene.points["rtn"], scene.points["ste_qat[steps=1]"], 1e-5))[0]
    assert close == pytest.approx(across[0], rel=1e-2)


def test_one_point_has_one_segment() -> None:
    scene: Scene = with_points(scene_of(network()), rtn=1.0)
    assert set(PROBE.measure(scene).traces) == {"t", "fp->rtn"}
