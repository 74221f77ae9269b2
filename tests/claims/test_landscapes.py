"""C11 and the checks of the theorem, on lattices and landscapes with planted numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

MakeBench = Callable[..., Any]

VALLEY = {"rho": 1.0, "wall": 1.0, "offset": 0.6, "dimension": 256, "flat": 64, "exit_step": 0.346}
PLAIN = {"optimizer": "sgd", "momentum": 0, "schedule": "constant", "clip_norm": None}


def facts(**valley: Any) -> dict[str, Any]:
    return {"tolerance": 0.02, "valley": {**VALLEY, **valley}}


def trajectory(inside_from: float, late: float, steps: int = 100, **valley: Sequence[float]) -> dict[str, list[float]]:
    """Return a training whose deployed loss is inside from a step on, and whose last fifth has a loss of `late`."""
    moments = [float(step) for step in range(steps + 1)]
    deployed = [late if step > 0.8 * steps else 0.0 if step >= inside_from else 0.5 for step in moments]
    names = {"deployed": deployed, "train": deployed, "latent": [0.0] * len(moments)}
    found = {f"trajectory/{name}": values for name, values in names.items()}
    found |= {f"trajectory/{name}_se": [0.0] * len(moments) for name in names}
    found |= {f"trajectory/valley/{name}": list(values) for name, values in valley.items()}
    return {"trajectory/step": moments, **found}


def lattice(bench: MakeBench, step: float, seeds: Sequence[int] = (0, 1, 2), **model: Any) -> Any:
    grid = {"name": "lattice", "granularity": "per_channel", "step": step, "unit": "absolute"}
    return bench("valley", f"lattice[step={step:g}]", seeds, facts(**model), grid)


def family(bench: MakeBench, entries: Sequence[float], late: Sequence[float], rtn: float = 0.5) -> list[Any]:
    """Plant three lattices past failure, and one that is fine enough."""
    found = [lattice(bench, 0.1).method(8, "rtn", 0.0)]
    for place, (entry, excess) in enumerate(zip(entries, late, strict=True)):
        traces = trajectory(entry, excess)
        found.append(
            lattice(bench, 0.2 + 0.1 * place).method(8, "rtn", rtn).method(8, "ste_qat", excess, traces=traces, **PLAIN)
        )
    return found


C11 = {
    "supported": ((5, 30, math.inf), (0.001, 0.05, 0.4)),
    "refuted": ((5, 5, 5), (0.001, 0.001, 0.001)),
    "inconclusive": ((30, 5, math.inf), (0.001, 0.05, 0.4)),
}


@pytest.mark.parametrize("verdict", C11)
def test_c11(bench: MakeBench, verdict: str) -> None:
    first, *others = family(bench, *C11[verdict])
    found = first.verdict("C11", *others)
    assert (found.verdict, found.quantizer) == (verdict, "lattice"), found.why


def test_c11_needs_failures_and_three_of_them(bench: MakeBench) -> None:
    first, *others = family(bench, *C11["supported"], rtn=0.01)
    assert first.verdict("C11", *others).verdict == "not applicable"
    first, *others = family(bench, *C11["supported"])
    found = first.verdict("C11", *others[:2])
    assert found.verdict == "not judged" and "has 2" in found.lacks[0]


def test_c11_compares_the_same_training_on_every_lattice(bench: MakeBench) -> None:
    first, *others = family(bench, *C11["supported"])
    traces = trajectory(1, 0.0)
    others[2].method(8, "ste_qat", 0.0, traces=traces, learning_rate=0.5, **PLAIN)  # a rate that only one was run with
    assert first.verdict("C11", *others).verdict == "supported"


def test_c11_is_about_lattices_alone(bench: MakeBench) -> None:
    from qbench.claims.catalogue import judge

    assert judge(bench().method(2, "rtn", 1.0).records.values(), only=["C11"]) == []


def entering(
    bench: MakeBench,
    entry: Callable[[float], float],
    rates: Sequence[float] = (0.02, 0.05, 0.1),
    error: float = 0.7,
    steps: int = 200,
    seeds: Sequence[int] = (0, 1, 2),
    start: float = 1.1,
    quantizer: str = "lattice",
) -> Any:
    """Plant plain QAT whose deployed weights are within rho from a step on."""
    found = bench("valley", quantizer, seeds, facts(), {"name": "lattice"}).method(8, "rtn", 0.5)
    for rate in rates:
        first = entry(rate)
        away = [0.9 if step >= first else start for step in range(steps + 1)]
        valley = {
            "normal_distance": away,
            "quantization_error": [error] * len(away),
            "gradient_norm": [1.0] * len(away),
            "latent_distance": [0.6] * len(away),
        }
        found.method(
            8, "ste_qat", 0.0, traces=trajectory(first, 0.0, steps, **valley), steps=steps, learning_rate=rate, **PLAIN
        )
    return found


def bound(rate: float, error: float = 0.7) -> float:
    return 0.36 / (rate * (2 * (1 - error) - rate))


T1 = {
    "supported": {"entry": lambda rate: math.floor(bound(rate))},
    "refuted": {"entry": lambda rate: math.ceil(bound(rate)) + 1},
    "not applicable": {"entry": lambda _: 3, "error": 1.2},
    "inconclusive": {"entry": lambda _: math.inf, "steps": 3},
}


@pytest.mark.parametrize("verdict", T1)
def test_t1(bench: MakeBench, verdict: str) -> None:
    found = entering(bench, **T1[verdict]).verdict("T1")
    assert found.verdict == verdict, found.why


def test_t1_is_refuted_by_an_entry_that_never_comes(bench: MakeBench) -> None:
    assert entering(bench, lambda _: math.inf).verdict("T1").verdict == "refuted"


def test_t1_lacks_what_was_not_measured(bench: MakeBench) -> None:
    planted = entering(bench, T1["supported"]["entry"])
    for record in planted.records.values():
        record.traces.pop("trajectory/valley/quantization_error", None)
    found = planted.verdict("T1")
    assert found.verdict == "not judged" and "quantization_error" in found.lacks[0]


T2 = {
    "supported": {"entry": lambda rate: round(0.5 / rate)},
    "refuted": {"entry": lambda _: 10},
    "inconclusive": {"entry": lambda rate: round(2 * rate**-0.8)},
    "not applicable": {"entry": lambda _: 1},
}


@pytest.mark.parametrize("verdict", T2)
def test_t2(bench: MakeBench, verdict: str) -> None:
    found = entering(bench, **T2[verdict]).verdict("T2")
    assert found.verdict == verdict, found.why


def test_t2_on_the_numbers_of_case_a(bench: MakeBench) -> None:
    found = entering(bench, lambda rate: {0.02: 25, 0.05: 10, 0.1: 5}[rate]).verdict("T2")
    assert found.numbers["slope"].mean == pytest.approx(-1)


@pytest.mark.parametrize("claim", ["T1", "T2"])
def test_the_theorem_is_about_a_start_outside(bench: MakeBench, claim: str) -> None:
    assert entering(bench, lambda _: 0, start=0.9).verdict(claim).verdict == "not applicable"


@pytest.mark.parametrize("claim", ["T1", "T2"])
def test_entries_not_judged_without_trainings(bench: MakeBench, claim: str) -> None:
    planted = entering(bench, lambda _: 5)
    for record in planted.records.values():
        if "method" in record.key:
            record.key["method"]["options"]["momentum"] = 0.9
    assert planted.verdict(claim).verdict == "not judged"


def rounded(bench: MakeBench, exit_: float, steps: Sequence[float] = (0.25, 0.3, 0.4, 0.5), **model: Any) -> list[Any]:
    """Plant rounding on lattices, whose distance from the river is proportional to the step and rho at `exit_`."""
    found = []
    for step in steps:
        found.append(lattice(bench, step, **model))
        found[-1].method(8, "rtn", 0.0, metrics={"valley/normal_distance": step / exit_})
        for label, record in found[-1].records.items():
            loss = sum(row.loss_sum for row in record.documents) / sum(row.tokens for row in record.documents)
            record.metrics = ({} if label.split("/")[1] == "fp" else record.metrics) | {"loss/landscape": loss}
    return found


T3 = {"supported": 0.350, "refuted": 0.42, "inconclusive": 0.37}


@pytest.mark.parametrize("verdict", T3)
def test_t3(bench: MakeBench, verdict: str) -> None:
    first, *others = rounded(bench, T3[verdict])
    found = first.verdict("T3", *others)
    assert found.verdict == verdict, found.why
    assert found.numbers["exit_step"].mean == pytest.approx(T3[verdict], rel=1e-6)


def test_t3_is_about_the_mean_square_over_seeds(bench: MakeBench) -> None:
    """Seeds that scatter by 15 % about the prediction support it together; two are too few."""
    planted = [rounded(bench, exit_, seeds=(seed,)) for seed, exit_ in enumerate((0.3, 0.346, 0.41))]
    first, *others = [one for of_seed in planted for one in of_seed]
    found = first.verdict("T3", *others)
    assert found.verdict == "supported", found.why
    assert found.numbers["exit_step_of_a_seed"].per_seed[2] == pytest.approx(0.41)
    first, *others = planted[0] + planted[1]
    assert first.verdict("T3", *others).verdict == "inconclusive"


def test_t3_of_few_dimensions_or_of_one_side(bench: MakeBench) -> None:
    first, *others = rounded(bench, 0.35, dimension=2)
    assert first.verdict("T3", *others).verdict == "not applicable"
    first, *others = rounded(bench, 0.35, steps=(0.1, 0.2))
    assert first.verdict("T3", *others).verdict == "not judged"


def latent(bench: MakeBench, *excesses: float, rtn: float = 0.5) -> Any:
    found = bench("valley", "lattice", facts=facts(), grid={"name": "lattice"}).method(8, "rtn", rtn)
    for place, excess in enumerate(excesses):
        found.method(8, "latent_grad", excess, learning_rate=0.01 * (place + 1))
    return found


T4 = {
    "supported": lambda b: latent(b, 0.5, 0.4995),
    "refuted": lambda b: latent(b, 0.5, 0.3),
    "inconclusive": lambda b: latent(b, 0.5, 0.47),
    "not applicable": lambda b: latent(b, 0.01, rtn=0.01),
    "not judged": latent,
}


@pytest.mark.parametrize("verdict", T4)
def test_t4(bench: MakeBench, verdict: str) -> None:
    found = T4[verdict](bench).verdict("T4")
    assert found.verdict == verdict, found.why


def test_the_theorem_is_judged_on_all_grids_together(bench: MakeBench) -> None:
    """A grid that is too coarse for the theorem does not take from what the finer one shows."""
    fine, coarse = entering(bench, lambda _: 3), entering(bench, lambda _: 3, error=1.2, quantizer="coarse")
    found = fine.verdict("T1", coarse)
    assert (found.verdict, found.quantizer) == ("supported", "all grids")
    late = entering(bench, T1["refuted"]["entry"], quantizer="other")
    assert fine.verdict("T1", coarse, late).verdict == "refuted"


def test_seeds_that_are_one_measurement_are_told(bench: MakeBench) -> None:
    assert "to the last digit" in latent(bench, 0.5).verdict("T4").why
    scattered = latent(bench, 0.5)
    scattered.only(1).method(8, "latent_grad", 0.4999, learning_rate=0.01)
    assert "to the last digit" not in scattered.verdict("T4").why


def test_one_seed_is_enough_where_nothing_is_random(bench: MakeBench) -> None:
    planted = entering(bench, T2["supported"]["entry"], seeds=(0,))
    assert planted.verdict("T2").verdict == "inconclusive"
    for record in planted.records.values():
        record.facts["seeded"] = False
    found = planted.verdict("T2")
    assert found.verdict == "supported" and "nothing is random" in found.why


@pytest.mark.parametrize(
    ("excess", "verdict"),
    [
        (0.4955, "supported"),
        (0.4945, "inconclusive"),
        (0.455, "inconclusive"),
        (0.445, "refuted"),
        (0.56, "inconclusive"),
    ],
)
def test_t4_turns_at_its_thresholds(bench: MakeBench, excess: float, verdict: str) -> None:
    assert latent(bench, excess).verdict("T4").verdict == verdict


@pytest.mark.parametrize(
    ("power", "verdict"),
    [(-0.93, "supported"), (-1.07, "supported"), (-0.75, "inconclusive"), (-1.25, "inconclusive"), (-1.35, "refuted")],
)
def test_t2_turns_at_its_thresholds(bench: MakeBench, power: float, verdict: str) -> None:
    assert entering(bench, lambda rate: round(2 * rate**power), steps=500).verdict("T2").verdict == verdict


def test_t2_counts_entries_from_the_second_step_on(bench: MakeBench) -> None:
    rates = (0.02, 0.04, 0.08, 0.4)
    found = entering(bench, lambda rate: {0.02: 8, 0.04: 4, 0.08: 2, 0.4: 1}[rate], rates).verdict("T2")
    assert (found.verdict, found.numbers["slope"].mean) == ("supported", pytest.approx(-1))
