"""How seeds add up, and what must never change a verdict."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qbench.claims.base import SeedVerdict, combine
from qbench.claims.catalogue import all_claims, judge
from qbench.claims.spread import spread, student
from qbench.store.record import Record

MakeBench = Callable[..., Any]

CLAIM = all_claims()["C7"]
OUTCOMES = ("supports", "refutes", "inconclusive", "not applicable", "not judged")


def of(*outcomes: str) -> Mapping[int, SeedVerdict]:
    return {seed: SeedVerdict(outcome, "so it is") for seed, outcome in enumerate(outcomes)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ("supports supports supports", "supported"),
        ("supports supports refutes", "inconclusive"),
        ("supports refutes refutes", "refuted"),
        ("refutes refutes inconclusive", "refuted"),
        ("refutes supports inconclusive", "inconclusive"),
        ("supports supports not_judged", "inconclusive"),
        ("supports supports supports not_judged", "inconclusive"),
        ("refutes refutes not_judged", "inconclusive"),
        ("supports supports not_applicable", "inconclusive"),
        ("supports not_applicable not_applicable", "inconclusive"),
        ("not_applicable not_applicable not_applicable", "not applicable"),
        ("not_applicable not_applicable not_judged", "not applicable"),
        ("not_applicable not_judged not_judged", "not judged"),
        ("not_judged not_judged not_judged", "not judged"),
        ("supports supports", "inconclusive"),
        ("refutes", "inconclusive"),
        ("refutes refutes", "inconclusive"),
    ],
)
def test_seeds_add_up(outcomes: str, verdict: str) -> None:
    seeds = of(*(one.replace("_", " ") for one in outcomes.split()))
    assert combine(CLAIM, "m", "q", seeds).verdict == verdict


def test_few_seeds_are_told() -> None:
    assert "Too few seeds" in combine(CLAIM, "m", "q", of("supports", "supports")).why
    assert combine(CLAIM, "m", "q", of("supports"), needed=1).verdict == "supported"


outcomes = st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=6)


@given(outcomes, st.data())
def test_a_seed_left_out_never_turns_support_into_refutation(names: list[str], data: st.DataObject) -> None:
    whole = combine(CLAIM, "m", "q", of(*names)).verdict
    left = data.draw(st.integers(0, len(names) - 1))
    seeds = {seed: one for seed, one in of(*names).items() if seed != left}
    if seeds:
        part = combine(CLAIM, "m", "q", seeds).verdict
        assert {whole, part} != {"supported", "refuted"}


@given(outcomes, st.randoms())
def test_seeds_may_change_places(names: list[str], chance: random.Random) -> None:
    swapped = list(names)
    chance.shuffle(swapped)
    assert combine(CLAIM, "m", "q", of(*names)).verdict == combine(CLAIM, "m", "q", of(*swapped)).verdict


def test_intervals_are_those_of_student() -> None:
    found = spread({0: 1.0, 1: 2.0, 2: 3.0})
    assert found.mean == 2 and found.high - found.mean == pytest.approx(4.303 / 3**0.5, rel=1e-4)
    assert spread({0: 1.0}).low is None
    assert spread({0: 1.0, 1: float("inf")}).low is None


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 11, 15, 30, 200])
def test_student_against_scipy(freedom: int) -> None:
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-3)


def planted(bench: MakeBench) -> Any:
    """Return a model with arms of C9 in three seeds, some of them undecided."""
    made = bench().method(4, "rtn", 0.0).method(2, "rtn", 2.0)
    made.method(2, "ste_qat", 0.2).method(2, "latent_grad", 1.95).method(2, "noise_grad", 0.9)
    made.only(1).method(2, "latent_grad", 1.2)
    return made


@settings(max_examples=10)
@given(chance=st.randoms())
def test_the_order_of_records_changes_nothing(bench: MakeBench, chance: random.Random) -> None:
    records = list(planted(bench).records.values())
    first = judge(records)
    chance.shuffle(records)
    assert judge(records) == first


def test_noise_in_documents_is_told_from_a_difference(make_record: Callable[..., Record]) -> None:
    """An excess whose standard error is as large as itself is inside, the same excess without noise is outside."""
    from qbench.claims.subject import subjects

    full = make_record("m/fp/s0", tokens=[100] * 20)
    key = {"method": {"options": {"name": "rtn"}, "sources": {"qbench.methods.rtn": "x"}}}
    noisy = [1.5 if place % 5 == 0 else -0.275 for place in range(20)]
    for excess, regime in ((noisy, "inside"), ([0.08] * 20, "grey")):
        quantized = make_record("m/mse/2b/rtn/s0", excess, tokens=[100] * 20, key=key)
        cell = subjects([full, quantized])[0].rounding(0, 2)
        assert (cell.regime, cell.excess) == (regime, pytest.approx(0.08))


def test_a_grid_without_rounding_is_not_judged(make_record: Callable[..., Record]) -> None:
    records = [make_record(f"m/{name}/s{seed}") for seed in range(3) for name in ("fp", "mse/2b/gptq")]
    found = [one for one in judge(records) if one.claim in ("C3", "C4", "C5", "C7", "C9", "C10", "C12")]
    assert found and {one.verdict for one in found} == {"not judged"}
    assert all("rtn" in " ".join(one.lacks) for one in found)


def test_a_seed_to_which_a_claim_does_not_apply_is_no_objection() -> None:
    verdicts = dict(enumerate([SeedVerdict("supports", "yes")] * 4 + [SeedVerdict("not applicable", "void")]))
    claim = all_claims()["C7"]
    assert combine(claim, "m", "q", verdicts).verdict == "supported"
    assert combine(claim, "m", "q", {seed: verdicts[seed] for seed in (2, 3, 4)}).verdict == "inconclusive"
    assert combine(claim, "m", "q", verdicts | {5: SeedVerdict("inconclusive", "?")}).verdict == "inconclusive"
