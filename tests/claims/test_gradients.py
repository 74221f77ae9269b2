"""C7, C9 and C9b: where gradients lead, and what training by them recovers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

MakeBench = Callable[..., Any]

RATES = (1e-4, 1e-3)


def inward(bench: Any, deployed: float, latent: float, ratio: float, fine: float = 0.001, excess: float = 2.0) -> Any:
    bench.method(8, "rtn", 0.0).method(2, "rtn", excess)
    for bits, cosine in ((8, fine), (2, deployed)):
        metrics = {
            "cosine/deployed": cosine,
            "cosine/latent": latent,
            "null/high": 0.003,
            "norm_ratio": ratio,
            "z": 9.0,
        }
        bench.probe(bits, "inward", metrics)
    return bench


C7 = {
    "supported": lambda b: inward(b, 0.2, 0.01, 40),
    "refuted": lambda b: inward(b, 0.01, 0.02, 40),
    "inconclusive": lambda b: inward(b, 0.2, 0.01, 3),
    "not applicable": lambda b: inward(b, 0.2, 0.01, 40, excess=0.2),
    "not judged": lambda b: inward(b, 0.2, 0.01, 40).without("inward", 8),
}


@pytest.mark.parametrize("verdict", C7)
def test_c7(bench: MakeBench, verdict: str) -> None:
    found = C7[verdict](bench()).verdict("C7")
    assert found.verdict == verdict, found.why


@pytest.mark.parametrize(
    ("planted", "verdict"),
    [
        ((-0.2, -0.3, 40), "refuted"),  # outward, even if the latent's is more so
        ((0.0029, 0.0, 40), "inconclusive"),  # not beyond the null
        ((0.2, -0.15, 40), "inconclusive"),  # the latent's is of the same size
        ((0.2, 0.01, 40, 0.2), "inconclusive"),  # inward at 8 bits as well: nothing to do with the wall
    ],
)
def test_c7_details(bench: MakeBench, planted: tuple[float, ...], verdict: str) -> None:
    assert inward(bench(), *planted).verdict("C7").verdict == verdict


def test_c7_has_no_null_in_few_dimensions(bench: MakeBench) -> None:
    planted = inward(bench(), 0.2, 0.01, 40)
    for record in planted.records.values():
        record.facts["parameters"] = 2
    assert planted.verdict("C7").verdict == "not applicable"


def arms(bench: Any, qat: float, latent: float, noise: float | None = None, excess: float = 2.0) -> Any:
    """Plant arms by what they recover of rounding's excess; the second of two rates is the better."""
    bench.method(4, "rtn", 0.0).method(2, "rtn", excess)
    for name, gain in (("ste_qat", qat), ("latent_grad", latent), ("noise_grad", noise)):
        if gain is not None:
            for rate, lost in zip(RATES, (0.3, 0.0), strict=True):
                bench.method(2, name, excess * (1 - gain) + lost, learning_rate=rate)
    return bench


C9 = {
    "supported": lambda b: arms(b, 0.9, 0.1),
    "refuted": lambda b: arms(b, 0.9, 0.8),
    "inconclusive": lambda b: arms(b, 0.9, 0.4),
    "not applicable": lambda b: arms(b, 0.9, 0.1, excess=0.3),
    "not judged": lambda b: arms(b, 0.9, 0.1).without("latent_grad"),
}
C9B = {
    "supported": lambda b: arms(b, 0.9, 0.1, 0.6),
    "refuted": lambda b: arms(b, 0.9, 0.1, 0.12),
    "inconclusive": lambda b: arms(b, 0.9, 0.1, 0.3),
    "not applicable": lambda b: arms(b, 0.9, 0.1, 0.6, excess=0.3),
    "not judged": lambda b: arms(b, 0.9, 0.1),
}


@pytest.mark.parametrize("verdict", C9)
def test_c9(bench: MakeBench, verdict: str) -> None:
    found = C9[verdict](bench()).verdict("C9")
    assert found.verdict == verdict, found.why


@pytest.mark.parametrize("verdict", C9B)
def test_c9b(bench: MakeBench, verdict: str) -> None:
    found = C9B[verdict](bench()).verdict("C9b")
    assert found.verdict == verdict, found.why


def test_c9_reads_the_best_of_the_rates_that_both_arms_have(bench: MakeBench) -> None:
    """A rate that only one arm was run with decides nothing, for better or worse."""
    planted = arms(bench(), 0.9, 0.1).method(2, "latent_grad", 0.1, learning_rate=0.1)
    found = planted.verdict("C9")
    assert found.verdict == "supported"
    assert found.numbers["G_latent"].mean == pytest.approx(0.1) and found.numbers["G_qat"].mean == pytest.approx(0.9)
    assert planted.method(2, "ste_qat", 0.2, learning_rate=0.1).verdict("C9").verdict == "refuted"


@pytest.mark.parametrize(
    "other", [{"steps": 160}, {"optimizer": "sgd"}, {"schedule": "constant"}, {"clip_norm": None}, {"batch_size": 16}]
)
def test_c9_compares_equal_budgets_only(bench: MakeBench, other: dict[str, Any]) -> None:
    planted = bench().method(4, "rtn", 0.0).method(2, "rtn", 2.0).method(2, "ste_qat", 0.1)
    planted.method(2, "latent_grad", 1.9, **other)
    found = planted.verdict("C9")
    assert found.verdict == "not judged" and "same budget" in found.lacks[0]


def test_c9_has_no_cause_to_tell_where_qat_recovers_nothing(bench: MakeBench) -> None:
    assert arms(bench(), 0.01, 0.01).verdict("C9").verdict == "inconclusive"
    assert arms(bench(), 0.01, 0.01, 0.01).verdict("C9b").verdict == "inconclusive"


def test_c9_tells_of_the_random_control(bench: MakeBench) -> None:
    planted = arms(bench(), 0.9, 0.1)
    for rate in RATES:
        planted.method(2, "random_grad", 1.98, learning_rate=rate)
    found = planted.verdict("C9")
    assert found.numbers["G_random"].mean == pytest.approx(0.01) and "random of the same norm" in found.why


def test_an_arm_that_does_not_move_is_no_training(bench: MakeBench) -> None:
    planted = bench().method(4, "rtn", 0.0).method(2, "rtn", 2.0)
    for name in ("ste_qat", "latent_grad"):
        planted.method(2, name, 2.0, learning_rate=0)
    assert planted.verdict("C9").verdict == "not judged"


@pytest.mark.parametrize(
    ("claim", "planted", "name"),
    [
        ("C7", C7["supported"], "rtn"),
        *(("C9", C9["supported"], name) for name in ("rtn", "ste_qat", "latent_grad")),
        *(("C9b", C9B["supported"], name) for name in ("rtn", "ste_qat", "latent_grad", "noise_grad")),
    ],
)
def test_a_sham_supports_nothing(bench: MakeBench, claim: str, planted: Callable[[Any], Any], name: str) -> None:
    assert planted(bench()).verdict(claim).verdict == "supported"
    assert planted(bench()).sham(name).verdict(claim).verdict == "not judged"


@pytest.mark.parametrize(
    ("latent", "ratio", "verdict"),
    [(0.09, 5.5, "supported"), (0.11, 5.5, "inconclusive"), (0.09, 4.5, "inconclusive"), (-0.11, 5.5, "inconclusive")],
)
def test_c7_turns_at_its_thresholds(bench: MakeBench, latent: float, ratio: float, verdict: str) -> None:
    assert inward(bench(), 0.2, latent, ratio).verdict("C7").verdict == verdict


@pytest.mark.parametrize(("weights", "verdict"), [(99, "not applicable"), (100, "supported")])
def test_c7_turns_at_a_hundred_weights(bench: MakeBench, weights: int, verdict: str) -> None:
    planted = C7["supported"](bench())
    for record in planted.records.values():
        record.facts["parameters"] = weights
    assert planted.verdict("C7").verdict == verdict


@pytest.mark.parametrize(
    ("qat", "latent", "verdict"),
    [
        (0.51, 0.12, "supported"),
        (0.49, 0.12, "inconclusive"),
        (0.8, 0.19, "supported"),
        (0.8, 0.21, "inconclusive"),
        (0.8, 0.63, "inconclusive"),
        (0.8, 0.65, "refuted"),
    ],
)
def test_c9_turns_at_its_thresholds(bench: MakeBench, qat: float, latent: float, verdict: str) -> None:
    assert arms(bench(), qat, latent).verdict("C9").verdict == verdict


@pytest.mark.parametrize(
    ("latent", "noise", "verdict"),
    [
        (0.1, 0.41, "supported"),
        (0.1, 0.39, "inconclusive"),
        (0.4, 0.49, "supported"),
        (0.4, 0.47, "refuted"),
        (0.1, 0.19, "inconclusive"),
        (0.1, 0.17, "refuted"),
    ],
)
def test_c9b_turns_at_its_thresholds(bench: MakeBench, latent: float, noise: float, verdict: str) -> None:
    assert arms(bench(), 0.8, latent, noise).verdict("C9b").verdict == verdict
