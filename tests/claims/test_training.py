"""C8, C10 and C12: what happens on the way of a training, and what is left at a fine grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.claims.catalogue import judge

MakeBench = Callable[..., Any]

MOMENTS = (0, 1, 2, 4, 8, 16, 32, 64, 72, 80)


def moving(start: float, end: float, steps: Sequence[float] = MOMENTS) -> list[float]:
    """Return a curve that goes from start to end, in equal parts of log step."""
    return [start + (end - start) * math.log1p(step) / math.log1p(steps[-1]) for step in steps]


def traces(
    deployed: Sequence[float],
    latent: Sequence[float],
    train: Sequence[float] | None = None,
    steps: Sequence[float] = MOMENTS,
) -> dict[str, list[float]]:
    small = [0.001] * len(steps)
    return {
        "trajectory/step": list(map(float, steps)),
        "trajectory/deployed": list(deployed),
        "trajectory/deployed_se": small,
        "trajectory/latent": list(latent),
        "trajectory/latent_se": small,
        "trajectory/train": list(deployed if train is None else train),
        "trajectory/train_se": small,
    }


def watched(bench: Any, deployed: Sequence[float], latent: Sequence[float], excess: float = 2.0) -> Any:
    bench.method(4, "rtn", 0.0).method(2, "rtn", excess)
    return bench.method(2, "ste_qat", deployed[-1], traces=traces(deployed, latent))


C8 = {
    "supported": lambda b: watched(b, moving(2, 0.2), moving(0, 0.3)),
    # Ordinary fine-tuning of a model that was not trained to its end: both fall together.
    "refuted": lambda b: watched(b, moving(2, 0.5), moving(0, -1.4)),
    "inconclusive": lambda b: watched(b, moving(2, 1.5), moving(0, 0.3)),
    "not applicable": lambda b: watched(b, moving(0.3, 0.05), moving(0, 0.1), excess=0.3),
    "not judged": lambda b: b.method(4, "rtn", 0.0).method(2, "rtn", 2.0).method(2, "ste_qat", 0.2),
}


@pytest.mark.parametrize("verdict", C8)
def test_c8(bench: MakeBench, verdict: str) -> None:
    found = C8[verdict](bench()).verdict("C8")
    assert found.verdict == verdict, found.why


def test_c8_counts_the_deepest_latent_loss(bench: MakeBench) -> None:
    """A latent loss that fell by a third of the deployed one's fall is no support, though it rose again."""
    latent = [*moving(0, -0.6)[:-1], 0.1]
    assert watched(bench(), moving(2, 0.2), latent).verdict("C8").verdict == "inconclusive"


def test_c8_wants_a_way_that_begins_at_the_rounding(bench: MakeBench) -> None:
    found = watched(bench(), moving(6, 0.2), moving(0, 0.3)).verdict("C8")
    assert found.verdict == "not judged" and "begins at the rounded weights" in found.lacks[0]


def test_c8_reads_the_training_that_ends_best(bench: MakeBench) -> None:
    planted = watched(bench(), moving(2, 0.2), moving(0, 0.3))
    worse = traces(moving(2, 1.8), moving(0, -1.0))
    planted.method(2, "ste_qat", 1.8, learning_rate=0.1, traces=worse)
    assert planted.verdict("C8").verdict == "supported"


PLAIN = {"optimizer": "sgd", "momentum": 0, "schedule": "constant", "clip_norm": None}


def entering(
    bench: Any, entry: Callable[[float], float], steps: int = 200, rates: Sequence[float] = (0.02, 0.05, 0.1, 0.2)
) -> Any:
    """Plant plain SGD whose deployed loss on training batches is inside from step ``entry(rate)`` on."""
    bench.method(4, "rtn", 0.0).method(2, "rtn", 2.0)
    moments = list(range(steps + 1))
    for rate in rates:
        first = entry(rate)
        train = [0.01 if step >= first else 2.0 for step in moments]
        found = traces([2.0] * len(moments), [0.0] * len(moments), train, moments)
        bench.method(2, "ste_qat", 1.0, learning_rate=rate, steps=steps, traces=found, **PLAIN)
    return bench


def with_witness(bench: Any) -> Any:
    """Plant a codeword inside that another optimizer found in 20 steps."""
    bench.method(2, "ste_qat", 0.02, steps=20)
    metrics = {"rtn/distance": 1.0, "rtn/excess": 2.0, "rtn/se": 0.0}
    label = next(one.axes["method"] for one in bench.records.values() if one.axes["method"] == "ste_qat[steps=20]")
    metrics |= {f"{label}/distance": 1.0, f"{label}/excess": 0.02, f"{label}/se": 0.0}
    return bench.probe(2, "segments", metrics, {"t": [0.0, 1.0]})


C10 = {
    "supported": lambda b: entering(b, lambda rate: round(2 / rate)),
    "refuted": lambda b: with_witness(entering(b, lambda _: math.inf)),
    "inconclusive": lambda b: entering(b, lambda _: 40),
    "not judged": lambda b: entering(b, lambda rate: 2 / rate, rates=(0.1, 0.2)),
}


@pytest.mark.parametrize("verdict", C10)
def test_c10(bench: MakeBench, verdict: str) -> None:
    found = C10[verdict](bench()).verdict("C10")
    assert found.verdict == verdict, found.why


def test_c10_is_not_applicable_where_nothing_fails(bench: MakeBench) -> None:
    assert bench().method(2, "rtn", 0.01).verdict("C10").verdict == "not applicable"


def test_c10_measures_the_slope(bench: MakeBench) -> None:
    found = entering(bench(), lambda rate: round(0.5 * rate**-1.5), rates=(0.02, 0.04, 0.08, 0.16)).verdict("C10")
    assert found.numbers["slope"].mean == pytest.approx(-1.5, abs=0.05) and found.verdict == "inconclusive"


def test_c10_never_in_refutes_only_with_a_way_in_and_time_to_find_it(bench: MakeBench) -> None:
    assert entering(bench(), lambda _: math.inf).verdict("C10").verdict == "inconclusive"
    hasty = with_witness(entering(bench(), lambda _: math.inf, steps=150)).verdict("C10")
    assert hasty.verdict == "inconclusive" and "fewer than ten times" in hasty.why


def test_c10_takes_no_other_optimizer(bench: MakeBench) -> None:
    planted = entering(bench(), lambda rate: 2 / rate)
    for record in planted.records.values():
        if record.key.get("method", {}).get("options", {}).get("optimizer") == "sgd":
            record.key["method"]["options"]["momentum"] = 0.9
    assert planted.verdict("C10").verdict == "not judged"


def gaps(bench: Any, beyond: Sequence[float], failing: float = 2.0) -> Any:
    """Plant what QAT gains beyond fine-tuning and rounding at 8, 4, 3 and 2 bits."""
    for bits, rtn, gain in zip((8, 4, 3, 2), (0.0, 0.02, 0.3, failing), beyond, strict=True):
        bench.method(bits, "rtn", rtn)
        bench.method(bits, "ft_then_ptq", 0.9 * rtn + max(gain, 0))
        bench.method(bits, "ste_qat", 0.9 * rtn + max(gain, 0) - gain)
    return bench


C12 = {
    "supported": lambda b: gaps(b, (0.0, 0.01, 0.2, 1.5)),
    "refuted": lambda b: gaps(b, (0.8, 0.8, 0.8, 1.5)),
    "inconclusive": lambda b: gaps(b, (0.04, 0.01, 0.2, 1.5)),
    "not applicable": lambda b: gaps(b, (0.0, 0.01, 0.1, 0.2), failing=0.3),
    "not judged": lambda b: gaps(b, (0.0, 0.01, 0.2, 1.5)).without("ft_then_ptq", 8),
}


@pytest.mark.parametrize("verdict", C12)
def test_c12(bench: MakeBench, verdict: str) -> None:
    found = C12[verdict](bench()).verdict("C12")
    assert found.verdict == verdict, found.why


def test_c12_control_rounds_and_does_not_reconstruct(bench: MakeBench) -> None:
    """Fine-tuning and GPTQ is not the control, even where it is better than fine-tuning and rounding."""
    planted = gaps(bench(), (0.0, 0.01, 0.2, 1.5)).method(2, "ft_then_ptq", 0.1, ptq="gptq")
    assert planted.verdict("C12").verdict == "supported"
    kept = gaps(bench(), (0.0, 0.01, 0.2, 1.5)).method(2, "ft_then_ptq", 0.1, grid="given").verdict("C12")
    # QAT's D at 2 bits is 1.8: on the better of two grids the control is ahead.
    assert kept.numbers["gap_2"].mean == pytest.approx(0.1 - 1.8) and kept.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("claim", "planted", "name"),
    [
        ("C8", C8["supported"], "ste_qat"),
        ("C10", C10["supported"], "ste_qat"),
        ("C12", C12["supported"], "ste_qat"),
        ("C12", C12["supported"], "ft_then_ptq"),
    ],
)
def test_a_sham_supports_nothing(bench: MakeBench, claim: str, planted: Callable[[Any], Any], name: str) -> None:
    assert planted(bench()).verdict(claim).verdict == "supported"
    assert planted(bench()).sham(name).verdict(claim).verdict == "not judged"


@given(st.integers(0, 2), st.permutations([0, 1, 2]))
def test_a_seed_left_out_or_swapped_refutes_nothing_that_is_supported(
    bench: MakeBench, left: int, order: list[int]
) -> None:
    planted = gaps(bench(), (0.0, 0.01, 0.2, 1.5))
    planted.only(1).method(2, "ste_qat", 1.7).method(2, "ft_then_ptq", 3.4)
    records = list(planted.records.values())
    assert judge(records, only=["C12"])[0].verdict == "supported"
    kept = [one for one in records if one.axes["seed"] != left]
    assert judge(kept, only=["C12"])[0].verdict == "inconclusive"
    swapped = [
        one.model_copy(update={"axes": {**one.axes, "seed": order[int(one.axes["seed"] or 0)]}}) for one in records
    ]
    assert judge(swapped, only=["C12"])[0].verdict == "supported"


@pytest.mark.parametrize(
    ("deployed", "latent", "verdict"),
    [
        (0.95, 0.1, "supported"),  # falls by .525 of D = 2
        (1.05, 0.1, "inconclusive"),
        (1.0 - 0.1, -0.09, "supported"),  # 1.1, and a latent fall of .09, below a tenth
        (1.0 - 0.1, -0.13, "inconclusive"),
        (1.0, -0.45, "inconclusive"),  # below half the fall of 1
        (1.0, -0.55, "refuted"),
        (1.0, -1.9, "refuted"),
        (1.0, -2.1, "inconclusive"),
    ],
)
def test_c8_turns_at_its_thresholds(bench: MakeBench, deployed: float, latent: float, verdict: str) -> None:
    assert watched(bench(), moving(2, deployed), moving(0, latent)).verdict("C8").verdict == verdict


@pytest.mark.parametrize(("start", "verdict"), [(1.6, "supported"), (2.4, "supported"), (1.4, "not judged")])
def test_c8_turns_at_a_quarter_off_the_rounding(bench: MakeBench, start: float, verdict: str) -> None:
    assert watched(bench(), moving(start, 0.1), moving(0, 0.3)).verdict("C8").verdict == verdict


def test_c8_of_falls_that_do_not_go_together(bench: MakeBench) -> None:
    """A latent loss that falls as far, but when the deployed one is down already, is no ordinary fine-tuning."""
    deployed = [2.0, 1.0, 0.9, 1.1, 0.9, 1.1, 0.9, 1.0, 0.9, 1.0]
    assert watched(bench(), deployed, moving(0, -0.9)).verdict("C8").verdict == "inconclusive"


@pytest.mark.parametrize(("power", "verdict"), [(-0.75, "supported"), (-1.25, "supported"), (-0.65, "inconclusive")])
def test_c10_turns_at_its_slopes(bench: MakeBench, power: float, verdict: str) -> None:
    found = entering(bench(), lambda rate: round(4 * rate**power), rates=(0.02, 0.04, 0.08, 0.16), steps=600)
    assert found.verdict("C10").verdict == verdict


def test_c10_leaves_entries_at_once_aside(bench: MakeBench) -> None:
    """At large rates the first step enters: the law is that of the others."""
    rates = (0.02, 0.04, 0.08, 0.5, 1.0)
    found = entering(bench(), lambda rate: max(1, round(0.5 / rate)), rates=rates).verdict("C10")
    assert found.numbers["slope"].mean == pytest.approx(-1, abs=0.1) and found.verdict == "supported"
