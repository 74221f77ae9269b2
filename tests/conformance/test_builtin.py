"""Everything that qbench brings goes through the same door as a stranger's."""

from __future__ import annotations

from typing import Any

import pytest

from qbench.conformance import methods, quantizers
from qbench.conformance.contract import Report
from qbench.conformance.subjects import Subject
from qbench.conformance.text import render
from qbench.methods.base import Method
from qbench.quantizers.base import Quantizer
from qbench.registry import METHODS, QUANTIZERS

# Options under which a quantizer has other levels or another rule than by default.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "absmax": [{"symmetric": False}, {"convention": "narrow_range"}, {"convention": "larger_side"}],
    "mse": [{"symmetric": False, "p": 2.4, "candidates": 20}],
    "percentile": [{"symmetric": False}],
    "fp": [{"range": "mse"}],
    "nf": [{"range": "mse"}],
    "ternary": [{"range": "absmax"}],
    "mx": [{"format": "e5m2"}],
}
# Budgets that are long for a test, cut: the contract asks nothing of how good the result is.
SHORT: dict[str, dict[str, Any]] = {
    "hessian_mse": {"candidates": 20},
    "mse": {"candidates": 20},
    "adaround": {"iterations": 20},
    "brecq": {"iterations": 20},
    "lsq": {"steps": 10},
    **{name: {"steps": 10} for name in ("ste_qat", "latent_grad", "noise_grad", "random_grad", "ft_then_ptq")},
}

QUANTIZER_CASES = [
    (name, options) for name in QUANTIZERS.names() for options in [SHORT.get(name, {}), *VARIANTS.get(name, [])]
]


def require(report: Report) -> None:
    assert not report.failed, "\n" + render(report)


def test_variants_are_of_names_there_are() -> None:
    assert VARIANTS.keys() <= set(QUANTIZERS.names())
    assert SHORT.keys() <= {*METHODS.names(), *QUANTIZERS.names()}


@pytest.mark.parametrize(("name", "options"), QUANTIZER_CASES, ids=str)
def test_quantizers_keep_the_contract(name: str, options: dict[str, Any]) -> None:
    quantizer = Subject("quantizer", name).make(options)
    assert isinstance(quantizer, Quantizer)
    allowed = [bits for bits in range(1, 9) if quantizer.refuses(bits) is None]
    # `qbench check` tries them all; here those at the ends and in the middle.
    require(quantizers.check(quantizer, sorted({allowed[0], 3, 4, allowed[-1]} & set(allowed))))


@pytest.mark.parametrize("name", METHODS.names())
def test_methods_keep_the_contract(name: str) -> None:
    method = Subject("method", name).make(SHORT.get(name))
    assert isinstance(method, Method)
    require(methods.check(method))
