"""What is evidence: shams, failures, fallbacks and gaps decide nothing, and are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qbench.claims.catalogue import all_claims, judge
from qbench.claims.evidence import flaw
from qbench.errors import UnknownNameError
from qbench.store.record import Cost, LayerRow

MakeBench = Callable[..., Any]

SHAM = {"qbench.methods.base": "x", "sham.methods": "x"}


def support(bench: MakeBench, **qat: Any) -> Any:
    """Plant what would support C9: QAT that recovers, and a gradient at the latent that does not."""
    made = bench().method(4, "rtn", 0.0).method(2, "rtn", 2.0)
    return made.method(2, "latent_grad", 1.95).method(2, "ste_qat", 0.2, **qat)


def test_what_is_qbenchs_own_is_evidence(bench: MakeBench) -> None:
    made = support(bench)
    assert [flaw(record) for record in made.records.values()] == [None] * len(made.records)
    assert made.verdict("C9").verdict == "supported"


def test_qat_that_is_fine_tuning_by_another_class_is_no_support(bench: MakeBench) -> None:
    found = support(bench, sources=SHAM).verdict("C9")
    assert found.verdict == "not judged" and "not qbench's own ste_qat but of sham.methods" in found.lacks[0]
    heir = {"qbench.methods.ste_qat": "x", **SHAM}  # one that inherits and overrides
    assert support(bench, sources=heir).verdict("C9").verdict == "not judged"


def test_qat_that_is_fine_tuning_under_qbenchs_name_is_refuted_by_what_it_does(bench: MakeBench) -> None:
    """Training at the latent recovers what training at the latent recovers, whatever it is called."""
    made = bench().method(4, "rtn", 0.0).method(2, "rtn", 2.0)
    made.method(2, "latent_grad", 0.6).method(2, "ste_qat", 0.6)
    assert made.verdict("C9").verdict == "refuted"


@pytest.mark.parametrize(
    ("name", "cost", "said"),
    [
        ("ste_qat", Cost(), "ste_qat that was not trained"),
        ("latent_grad", Cost(train_tokens=10), "latent_grad that was not trained"),
        ("gptq", Cost(calibration_tokens=128 * 128, train_tokens=5), "gptq that was trained on 5 tokens"),
        ("gptq", Cost(calibration_tokens=128 * 128 + 1), "gptq that saw 16385 tokens, 16384 are for calibration"),
        ("rtn", Cost(train_steps=1), "rtn that made 1 optimizer steps"),
    ],
)
def test_the_cost_has_to_fit_the_method(bench: MakeBench, name: str, cost: Cost, said: str) -> None:
    made = bench(seeds=(0,)).method(2, name, 0.1, cost=cost)
    assert flaw(made.records[f"m/mse/2b/{name}/s0"]) == said


def test_ptq_that_peeks_at_labels_is_no_support(bench: MakeBench) -> None:
    """A GPTQ that trains on the end task fails at 2 bits with a low layer error, and is left aside for its cost."""

    def layers(error: float) -> list[LayerRow]:
        return [LayerRow(name="up", shape=(2, 2), weight_error=0.1, output_error=error, levels=4)]

    def planted(**gptq: Any) -> Any:
        made = bench().method(4, "rtn", 0.0, layers=layers(0.1)).method(2, "rtn", 3.0, layers=layers(0.1))
        for bits, excess in ((4, 0.0), (2, 1.5)):
            made.method(bits, "adaround", excess, layers=layers(0.05)).method(bits, "ste_qat", 0.01)
            made.method(bits, "gptq", excess, layers=layers(0.05), **gptq)
        return made

    assert planted().verdict("C4").verdict == "supported"
    for sham in ({"cost": Cost(train_tokens=4096)}, {"sources": SHAM}):
        found = planted(**sham).verdict("C4")
        assert found.verdict == "not judged" and "gptq" in found.lacks[0]


def test_lsq_is_never_the_qat_of_a_claim(bench: MakeBench) -> None:
    made = bench().method(4, "rtn", 0.0).method(2, "rtn", 2.0).method(2, "latent_grad", 1.95).method(2, "lsq", 0.1)
    assert made.verdict("C9").verdict == "not judged"


@pytest.mark.parametrize("options", [{"scale": "dynamic"}, {"gradient": "masked"}, {"distillation": 0.5}])
def test_only_qat_of_the_theory_counts(bench: MakeBench, options: dict[str, Any]) -> None:
    assert support(bench, **options).verdict("C9").verdict == "not judged"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "failed", "reason": "out of memory"}, "failed: out of memory"),
        ({"status": "diverged", "reason": "NaN"}, "diverged: NaN"),
        (
            {
                "layers": [
                    LayerRow(name="a", shape=(2, 2), weight_error=1, output_error=1, levels=4, fallback="rounding")
                ]
            },
            "1 layers fell back",
        ),
    ],
)
def test_what_went_wrong_is_named(bench: MakeBench, fields: dict[str, Any], said: str) -> None:
    found = support(bench, **fields).verdict("C9")
    assert found.verdict == "not judged" and found.lacks == (f"ste_qat at 2 bits ({said})",)


def test_one_seed_that_failed_is_no_agreement(bench: MakeBench) -> None:
    made = support(bench)
    made.only(2).method(2, "ste_qat", 0.2, status="failed", reason="killed")
    found = made.verdict("C9")
    assert found.verdict == "inconclusive" and found.lacks == ("ste_qat at 2 bits (failed: killed)",)
    assert found.seeds[0].outcome == "supports" and found.seeds[2].outcome == "not judged"


def test_a_cell_that_is_expected_and_not_there_is_named(bench: MakeBench) -> None:
    made = support(bench).without("latent_grad")
    axes = [{"model": "m", "quantizer": "mse", "bits": 2, "method": "latent_grad", "seed": seed} for seed in range(4)]
    (found,) = judge(made.records.values(), axes, ["C9"])
    assert found.verdict == "not judged" and "latent_grad at 2 bits (not run yet)" in found.lacks
    assert set(found.seeds) == {0, 1, 2, 3}
    skipped = [{**one, "skip": "not here"} for one in axes]
    (found,) = judge(made.records.values(), skipped, ["C9"])
    assert found.lacks == ("latent_grad at 2 bits",) and set(found.seeds) == {0, 1, 2}


def test_batch_norm_is_treated_alike_in_all_arms(bench: MakeBench) -> None:
    normed = {"batch_norm_layers": 9}
    kept = {**normed, "bn": "keep"}
    made = bench().method(4, "rtn", 0.0, facts=kept)
    made.method(2, "rtn", 2.0, facts=kept).method(2, "latent_grad", 1.95, facts=kept)
    made.method(2, "ste_qat", 0.2, facts={**normed, "bn": "update"})
    assert made.verdict("C9").verdict == "not judged"
    made.method(2, "ste_qat", 0.3, steps=81, facts=kept)
    made.method(2, "latent_grad", 1.95, steps=81, facts=kept)
    assert made.verdict("C9").verdict == "supported"


def test_where_statistics_are_estimated_again_those_cells_count(bench: MakeBench) -> None:
    """Rounding fails with the statistics of full precision only: with its own it is inside."""
    normed = {"batch_norm_layers": 9}
    made = bench()
    for bits in (4, 2):
        made.method(bits, "rtn", 2.0, facts={**normed, "bn": "keep"})
        made.method(bits, "rtn", 0.01, bn="recalibrate", facts={**normed, "bn": "recalibrate"})
    found = made.verdict("C9")
    assert found.verdict == "not applicable" and found.numbers["D_rtn"].mean == pytest.approx(0.01)


def test_a_model_that_knows_nothing_is_not_judged(bench: MakeBench) -> None:
    made = support(bench)
    for record in made.records.values():
        record.facts["chance_loss"] = 1.0
    found = made.verdict("C9")
    assert found.verdict == "not judged" and "better than chance" in found.lacks[0]


def test_failing_bits_without_their_cells_are_told(bench: MakeBench) -> None:
    """Rounding fails at 3 bits already; arms are there at 2 only."""
    found = support(bench).method(3, "rtn", 1.0).verdict("C9")
    assert found.verdict == "supported" and found.bits == (2,)
    assert "rounding fails from 3 bits on, where it lacks ste_qat at 3 bits" in found.why


@pytest.mark.parametrize("claim", all_claims())
def test_every_claim_says_what_it_is(claim: str) -> None:
    one = all_claims()[claim]
    assert one.id == claim and one.source in ("abstract", "readers", "ours")
    assert one.title and one.supports and one.refutes and one.needs
    assert one.rule.startswith("Supports: ")


@pytest.mark.parametrize("claim", [name for name in all_claims() if name not in ("C11", "T1", "T2", "T3", "T4")])
def test_rounding_alone_supports_and_refutes_nothing(bench: MakeBench, claim: str) -> None:
    found = bench().method(8, "rtn", 0.0).method(2, "rtn", 2.0).verdict(claim)
    assert found.verdict == "not judged" and found.lacks


def test_a_claim_that_there_is_not(bench: MakeBench) -> None:
    with pytest.raises(UnknownNameError, match="C77"):
        judge([], only=["C77"])


def test_a_record_that_says_two_things_of_its_loss_is_no_evidence(bench: MakeBench) -> None:
    planted = bench().method(2, "rtn", 2.0)
    (record, *_) = (one for one in planted.records.values() if "method" in one.key)
    assert flaw(record) is None
    record.documents[0].loss_sum += 5.0
    assert flaw(record) == "its loss is not that of its documents"
