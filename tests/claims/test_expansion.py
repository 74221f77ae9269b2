"""C3 and C13, on curvature with planted derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

MakeBench = Callable[..., Any]


def point(name: str, excess: float, predicted: float, rms: float = 0.289, share: float = 0.1) -> dict[str, float]:
    return {
        f"{name}/excess": excess,
        f"{name}/se": 0.01,
        f"{name}/subset_excess": excess,
        f"{name}/linear": 0.25 * predicted,
        f"{name}/hessian": 0.75 * predicted,
        f"{name}/gauss_newton": 0.75 * predicted,
        f"{name}/distance": 1.0,
        f"{name}/top_share": share,
        f"{name}/step_rms": rms,
    }


def expanded(bench: Any, at_failure: float, inside: float, excess: float = 2.0) -> Any:
    """Plant rounding with D = 2 at 2 bits and .02 at 4, and how many times the expansion underestimates it."""
    bench.method(4, "rtn", 0.02).method(2, "rtn", excess)
    bench.probe(2, "curvature", point("rtn", excess, excess / at_failure))
    return bench.probe(4, "curvature", point("rtn", 0.02, 0.02 / inside))


C3 = {
    "supported": lambda b: expanded(b, 5, 1.1),
    "refuted": lambda b: expanded(b, 1.2, 1.0),
    "inconclusive": lambda b: expanded(b, 5, 4),
    "not applicable": lambda b: expanded(b, 5, 1.1, excess=0.3),
    "not judged": lambda b: expanded(b, 5, 1.1).without("curvature", 4),
}


@pytest.mark.parametrize("verdict", C3)
def test_c3(bench: MakeBench, verdict: str) -> None:
    found = C3[verdict](bench()).verdict("C3")
    assert found.verdict == verdict, found.why


def test_c3_tells_numbers_where_grey(bench: MakeBench) -> None:
    found = C3["not applicable"](bench()).verdict("C3")
    assert "is grey" in found.why and "tau_f = 0.5" in found.why
    assert found.numbers["U_fail"].mean == pytest.approx(5) and found.bits == (2,)


@pytest.mark.parametrize(("predicted", "outcome"), [(-0.1, "inconclusive"), (0.0, "inconclusive")])
def test_c3_where_the_expansion_predicts_no_rise(bench: MakeBench, predicted: float, outcome: str) -> None:
    planted = expanded(bench(), 5, 1.1).probe(2, "curvature", point("rtn", 2.0, predicted))
    assert planted.verdict("C3").verdict == outcome
    # Inside, a negative prediction tells nothing that a failure could be compared with.
    planted.probe(4, "curvature", point("rtn", -0.02, predicted))
    assert planted.verdict("C3").verdict == "inconclusive"


def second_order(bench: Any, rms: float, share: float, top: float = 0.01) -> Any:
    for bits in (4, 2):
        metrics = point("rtn", 0.1, 0.1)
        for name in ("gptq", "adaround"):
            bench.method(bits, name, 0.1)
            metrics |= point(name, 0.1, 0.1, rms, share)
        bench.probe(bits, "curvature", metrics | {"null/top_share": top})
    return bench


C13 = {
    "supported": lambda b: second_order(b, 0.42, 0.05),
    "refuted": lambda b: second_order(b, 0.29, 0.101),
    "inconclusive": lambda b: second_order(b, 0.42, 0.2),
    "not applicable": lambda b: second_order(b, 0.42, 0.05, top=1.0),
    "not judged": lambda b: second_order(b, 0.42, 0.05).without("gptq", 2),
}


@pytest.mark.parametrize("verdict", C13)
def test_c13(bench: MakeBench, verdict: str) -> None:
    found = C13[verdict](bench()).verdict("C13")
    assert found.verdict == verdict, found.why


def test_c13_must_hold_at_all_bits(bench: MakeBench) -> None:
    planted = second_order(bench(), 0.42, 0.05)
    planted.probe(
        4,
        "curvature",
        {"null/top_share": 0.01}
        | point("rtn", 0, 0)
        | point("gptq", 0, 0, 0.42, 0.2)
        | point("adaround", 0, 0, 0.42, 0.05),
    )
    assert planted.verdict("C13").verdict == "inconclusive"


@pytest.mark.parametrize(
    ("at_failure", "inside", "verdict"),
    [
        (3.1, 1.5, "supported"),
        (2.9, 1.0, "inconclusive"),
        (3.1, 1.6, "inconclusive"),
        (1.6, 1.0, "inconclusive"),
        (1.4, 1.0, "refuted"),
    ],
)
def test_c3_turns_at_its_thresholds(bench: MakeBench, at_failure: float, inside: float, verdict: str) -> None:
    assert expanded(bench(), at_failure, inside).verdict("C3").verdict == verdict


@pytest.mark.parametrize(
    ("rms", "share", "top", "verdict"),
    [
        (0.37, 0.09, 0.01, "supported"),
        (0.35, 0.09, 0.01, "inconclusive"),
        (0.51, 0.09, 0.01, "inconclusive"),
        (0.289 * 1.04, 0.1 * 0.96, 0.01, "refuted"),
        (0.289 * 1.06, 0.1, 0.01, "inconclusive"),
        (0.289, 0.1 * 1.06, 0.01, "inconclusive"),
        (0.37, 0.09, 0.49, "supported"),
        (0.37, 0.09, 0.5, "not applicable"),
    ],
)
def test_c13_turns_at_its_thresholds(bench: MakeBench, rms: float, share: float, top: float, verdict: str) -> None:
    assert second_order(bench(), rms, share, top).verdict("C13").verdict == verdict


def test_c3_is_not_about_batch_norms_that_are_estimated_again(bench: MakeBench) -> None:
    planted = bench()
    for width, excess in ((4, 0.02), (2, 2.0)):
        planted.method(width, "rtn", excess, bn="recalibrate", facts={"batch_norm_layers": 3, "bn": "recalibrate"})
        planted.probe(width, "curvature", point("rtn[bn=recalibrate]", excess, excess / 5))
    for record in planted.records.values():
        if record.is_probe:
            record.key["probe"]["options"]["bn"] = "recalibrate"
            record.facts |= {"batch_norm_layers": 3}
    found = planted.verdict("C3")
    assert found.verdict == "not applicable" and "derivatives keep those of w_fp" in found.why
