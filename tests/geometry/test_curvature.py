"""The expansion at full precision: exact on a bowl, closed form in softmax regression, shared between cells."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qbench.geometry.curvature import Curvature
from qbench.geometry.scene import Findings, Point, Scene

from .scenes import bowl, language, network, normalised, regression, scene_of, with_points


def curvature(**options: Any) -> Curvature:
    return Curvature(name="curvature", **options)


def test_on_a_bowl_the_expansion_is_the_excess() -> None:
    task, hessian, _ = bowl()
    scene = with_points(scene_of(task), rtn=1.0, far=-3.0)
    found = curvature(top=3, iterations=8).measure(scene)
    values, vectors = torch.linalg.eigh(hessian.double())
    assert found.traces["eigenvalues"] == pytest.approx(values.flip(0)[:3].tolist(), rel=1e-5)
    for label in ("rtn", "far"):
        own = {key.partition("/")[2]: value for key, value in found.metrics.items() if key.startswith(f"{label}/")}
        error = scene.vector(scene.points[label].weights) - scene.vector(scene.full)
        assert own["linear"] + own["hessian"] == pytest.approx(own["excess"], rel=1e-3)
        assert own["hessian"] == pytest.approx(0.5 * float(error @ hessian @ error), rel=1e-4)
        assert own["gauss_newton"] == pytest.approx(own["hessian"], rel=1e-6)  # no logits: the Hessian
        assert own["subset_excess"] == pytest.approx(own["excess"], rel=1e-5) and own["se"] == 0
        assert own["distance"] == pytest.approx(float(error.norm()), rel=1e-6)
        share = (vectors[:, -3:].T @ error.double()).square().sum() / error.double().square().sum()
        assert own["top_share"] == pytest.approx(float(share), rel=1e-4)
        in_steps = scene.weights(error)["0"] / scene.problem.layers[0].grid.scale
        assert own["step_rms"] == pytest.approx(float(in_steps.square().mean().sqrt()), rel=1e-5)
    assert found.metrics["null/top_share"] == 3 / 8


def test_in_softmax_regression_both_matrices_are_the_same_and_the_expansion_holds_for_a_short_error() -> None:
    scene = with_points(scene_of(regression(), bits=8), rtn=1.0)
    found = curvature(samples=33, top=4, iterations=18).measure(scene).metrics
    assert found["rtn/gauss_newton"] == pytest.approx(found["rtn/hessian"], rel=1e-3)
    assert found["rtn/linear"] + found["rtn/hessian"] == pytest.approx(found["rtn/subset_excess"], abs=2e-6)
    assert found["rtn/subset_excess"] == pytest.approx(found["rtn/excess"], abs=1e-6)
    assert found["gradient_norm"] == pytest.approx(float(scene.gradient(scene.full)["0"].norm()), rel=1e-4)


def test_derivatives_and_what_they_foretell_are_of_the_same_samples() -> None:
    scene = with_points(scene_of(network(), bits=8), rtn=1.0)
    found = curvature(samples=9, top=2, iterations=6).measure(scene).metrics
    assert found["rtn/linear"] + found["rtn/hessian"] == pytest.approx(found["rtn/subset_excess"], abs=1e-5)
    assert abs(found["rtn/subset_excess"] - found["rtn/excess"]) > 1e-4


def test_the_top_space_is_that_of_the_gauss_newton_matrix() -> None:
    scene = with_points(scene_of(network()), rtn=1.0)
    from .test_derivatives import gauss_newton_of

    values, vectors = torch.linalg.eigh(gauss_newton_of(scene).double())
    probe = curvature(samples=33, top=5, iterations=36)
    found = probe.measure(scene)
    assert found.traces["eigenvalues"] == pytest.approx(values.flip(0)[:5].tolist(), rel=1e-3)
    assert max(found.traces["residuals"]) < 1e-3 * float(values[-1])
    scene.points = {"inside": Point(scene.weights(scene.vector(scene.full) + 0.1 * vectors[:, -3].float()))}
    scene.points |= {"outside": Point(scene.weights(scene.vector(scene.full) + 0.1 * vectors[:, 0].float()))}
    shares = probe.measure(scene).metrics
    assert shares["inside/top_share"] == pytest.approx(1, abs=1e-3)
    assert shares["outside/top_share"] == pytest.approx(0, abs=1e-3)


def test_cells_of_one_model_share_the_space_and_find_what_they_would_alone() -> None:
    memory: dict[Any, Any] = {}
    probe = curvature(samples=33, top=3, iterations=8)

    def measured(bits: int, **options: Any) -> Findings:
        return probe.measure(with_points(scene_of(network(), bits=bits, **options), rtn=1.0))

    first = measured(2, memory=memory)
    kept = {key: id(value) for key, value in memory.items()}
    second = measured(4, memory=memory)
    assert {key: id(value) for key, value in memory.items()} == kept  # nothing was made anew
    assert first == measured(2) and second == measured(4)
    curvature(samples=9, top=3, iterations=8).measure(with_points(scene_of(network(), memory=memory), rtn=1.0))
    assert len(memory) > len(kept)


def test_statistics_of_a_point_are_in_its_excess_and_not_in_the_expansion() -> None:
    task = normalised()
    scene = with_points(scene_of(task), rtn=1.0)
    scene.points["moved"] = Point(scene.points["rtn"].weights, {"1.running_mean": task.model[1].running_mean + 1})
    found = curvature(samples=33, top=2, iterations=4).measure(scene).metrics
    assert found["moved/hessian"] == found["rtn/hessian"] and found["moved/excess"] != found["rtn/excess"]
    assert found["moved/subset_excess"] == pytest.approx(found["moved/excess"], abs=1e-5)


def test_codebooks_have_no_step() -> None:
    scene = with_points(scene_of(network(), quantizer="kmeans", bits=2), rtn=1.0)
    found = curvature(samples=33, top=2, iterations=4).measure(scene).metrics
    assert "rtn/distance" in found and "rtn/step_rms" not in found


def test_a_language_model() -> None:
    scene: Scene = with_points(language(evaluation_windows=2), rtn=1.0, small=0.02)
    found = curvature(samples=2, top=2, iterations=3).measure(scene)
    own = found.metrics
    assert own["small/linear"] + own["small/hessian"] == pytest.approx(own["small/subset_excess"], abs=2e-4)
    assert own["small/hessian"] == pytest.approx(4e-4 * own["rtn/hessian"], rel=1e-3)
    assert 0 < own["rtn/top_share"] < 1 and found.traces["eigenvalues"][0] > 0
