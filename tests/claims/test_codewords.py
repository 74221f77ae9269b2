"""C4, C5 and C6: what rounding, second-order rounding and QAT find on one grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from qbench.store.record import LayerRow

MakeBench = Callable[..., Any]
T = [index / 20 for index in range(21)]


def layer(error: float) -> list[LayerRow]:
    return [LayerRow(name="up", shape=(2, 2), weight_error=0.1, output_error=error, levels=4)]


def reconstructed(
    bench: Any, gptq: Sequence[float], adaround: float = 0.4, error: float = 0.05, qat: float = 0.02
) -> Any:
    """Plant rounding that fails at 3 and 2 bits, GPTQ's excess at 4, 3 and 2, and its layer error (rtn's is .1)."""
    for bits, rtn, of_gptq in zip((4, 3, 2), (0.02, 0.8, 3.0), gptq, strict=True):
        bench.method(bits, "rtn", rtn, layers=layer(0.1))
        bench.method(bits, "gptq", of_gptq, layers=layer(error))
        bench.method(bits, "adaround", adaround if bits < 4 else 0.01, layers=layer(error))
        bench.method(bits, "ste_qat", qat)
    return bench


C4 = {
    "supported": lambda b: reconstructed(b, (0.01, 0.3, 1.5)),
    "refuted": lambda b: reconstructed(b, (0.01, 0.03, 0.04)),
    "inconclusive": lambda b: reconstructed(b, (0.01, 0.1, 0.3)),
    "not judged": lambda b: reconstructed(b, (0.01, 0.3, 1.5)).without("adaround", 2),
}


@pytest.mark.parametrize("verdict", C4)
def test_c4(bench: MakeBench, verdict: str) -> None:
    found = C4[verdict](bench()).verdict("C4")
    assert found.verdict == verdict, found.why


def test_c4_needs_a_failure(bench: MakeBench) -> None:
    planted = bench().method(4, "rtn", 0.0).method(2, "rtn", 0.2)
    assert planted.verdict("C4").verdict == "not applicable"


def test_c4_is_refuted_by_a_gptq_that_fails_first(bench: MakeBench) -> None:
    assert reconstructed(bench(), (0.9, 1.0, 1.5)).verdict("C4").verdict == "refuted"


def test_c4_is_not_refuted_where_qat_fails_too(bench: MakeBench) -> None:
    """GPTQ inside at the only bits at which QAT is inside, at which rounding is inside as well."""
    found = reconstructed(bench(), (0.01, 0.3, 0.4), qat=2.0).method(4, "ste_qat", 0.0).verdict("C4")
    assert found.verdict == "inconclusive", found.why


def test_c4_wants_a_layer_error_below_that_of_rounding(bench: MakeBench) -> None:
    assert reconstructed(bench(), (0.01, 0.3, 1.5), error=0.2).verdict("C4").verdict == "inconclusive"


def wall_at(t: float, end: float) -> list[float]:
    """Return D that is flat up to t, then rises to its end as a straight line."""
    return [max(0.0, (one - t) / (1 - t)) * end for one in T]


def bump(height: float, end: float) -> list[float]:
    return [height * 4 * one * (1 - one) + end * one for one in T]


def segments(
    bench: Any,
    witness: float = 0.03,
    ratio: float = 1.3,
    barrier: float = 0.1,
    to_rounding: Sequence[float] | None = None,
    excess: float = 2.0,
    **qat: Any,
) -> Any:
    """Plant rounding that fails at 2 bits, a codeword of QAT, and the segments between them."""
    bench.method(4, "rtn", 0.01).method(2, "rtn", excess).method(2, "ste_qat", witness, **qat)
    label = next(one.axes["method"] for one in bench.records.values() if str(one.axes["method"]).startswith("ste_qat"))
    metrics = {"rtn/distance": 2.0, "rtn/excess": excess, "rtn/se": 0.01, "rtn/cosine_to_first": 1.0}
    metrics |= {f"{label}/distance": 2.0 * ratio, f"{label}/excess": witness, f"{label}/se": 0.01}
    traces = {
        "t": T,
        "fp->rtn": list(to_rounding or wall_at(0.6, excess)),
        f"fp->{label}": bump(barrier, witness),
        f"rtn->{label}": wall_at(0.4, excess)[::-1],
    }
    return bench.probe(2, "segments", metrics, traces)


C5 = {
    "supported": segments,
    "refuted": lambda b: segments(b, ratio=5.0),
    "inconclusive": lambda b: segments(b, witness=0.4),
    "not applicable": lambda b: segments(b, excess=0.3),
    "not judged": lambda b: segments(b).without("segments"),
}
C6 = {
    "supported": segments,
    "refuted": lambda b: segments(b, barrier=3.0),
    "inconclusive": lambda b: segments(b, barrier=0.8),
    "not applicable": lambda b: segments(b, witness=0.4),
    "not judged": lambda b: segments(b).without("segments"),
}


@pytest.mark.parametrize("verdict", C5)
def test_c5(bench: MakeBench, verdict: str) -> None:
    found = C5[verdict](bench()).verdict("C5")
    assert found.verdict == verdict, found.why


def test_c5_between_two_and_four_distances_is_open(bench: MakeBench) -> None:
    assert segments(bench(), ratio=3.0).verdict("C5").verdict == "inconclusive"


@pytest.mark.parametrize("claim", ["C5", "C6"])
def test_a_codeword_of_a_moving_grid_is_no_witness(bench: MakeBench, claim: str) -> None:
    found = segments(bench(), scale="dynamic").verdict(claim)
    assert found.verdict == "not judged" and "frozen grid" in found.lacks[0]


@pytest.mark.parametrize("verdict", C6)
def test_c6(bench: MakeBench, verdict: str) -> None:
    found = C6[verdict](bench()).verdict("C6")
    assert found.verdict == verdict, found.why


def test_c6_wants_a_convex_rise(bench: MakeBench) -> None:
    concave = [2.0 * t**0.5 for t in T]
    assert segments(bench(), to_rounding=concave).verdict("C6").verdict == "inconclusive"


def test_c6_of_a_wall_at_once(bench: MakeBench) -> None:
    numbers = segments(bench(), to_rounding=[0.0] + [1.0] * 19 + [2.0]).verdict("C6").numbers
    assert numbers["t_exit"].mean == pytest.approx(0.05)


def test_c6_measures_exit_and_barrier(bench: MakeBench) -> None:
    numbers = segments(bench()).verdict("C6").numbers
    # The wall at .6 is first seen at .65, .25 nats high.
    assert 0.6 < numbers["t_exit"].mean < 0.65
    assert numbers["barrier"].mean == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("claim", "planted", "name"),
    [
        ("C4", C4["supported"], "gptq"),
        ("C4", C4["supported"], "adaround"),
        ("C4", C4["supported"], "rtn"),
        ("C5", C5["supported"], "ste_qat"),
        ("C6", C6["supported"], "ste_qat"),
        ("C5", C5["supported"], "rtn"),
    ],
)
def test_a_sham_supports_nothing(bench: MakeBench, claim: str, planted: Callable[[Any], Any], name: str) -> None:
    assert planted(bench()).verdict(claim).verdict == "supported"
    assert planted(bench()).sham(name).verdict(claim).verdict == "not judged"
