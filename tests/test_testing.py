"""`qbench.testing`: what a stranger's own tests call."""

from __future__ import annotations

from typing import Any

import pytest

from qbench.errors import QBenchError
from qbench.methods.problem import Problem
from qbench.methods.rtn import RoundToNearest
from qbench.quant.levels import Levels
from qbench.quant.qparams import QParams
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.base import Quantizer
from qbench.testing import check_method, check_quantizer


class Fragile(Quantizer):
    """Sound at 4 bits, and at no others."""

    share: float = 1.0

    def choose_qparams(self, blocks: Any, grid: Levels) -> QParams:
        if grid.bits != 4:
            raise ValueError("four only")
        largest = blocks.abs().amax(dim=1, keepdim=True) * self.share
        return QParams.from_range(-largest, largest, grid)


class NeedsAShare(Fragile):
    share: float


class Nothing(RoundToNearest):
    def solve(self, problem: Problem) -> Any:
        return None


@pytest.mark.parametrize("given", ["absmax", AbsMax, AbsMax(name="mine", symmetric=False)], ids=str)
def test_a_quantizer_as_name_class_or_instance(given: Any) -> None:
    check_quantizer(given, bits=4)


@pytest.mark.parametrize("given", ["rtn", RoundToNearest, RoundToNearest(name="mine")], ids=str)
def test_a_method_as_name_class_or_instance(given: Any) -> None:
    check_method(given)


def test_bits_choose_what_is_tried() -> None:
    check_quantizer(Fragile, bits=4)
    check_quantizer(Fragile, bits=[4])
    with pytest.raises(AssertionError, match=r"3 bits.*ValueError: four only\s+\(test_testing.py:\d+\)"):
        check_quantizer(Fragile, bits=[3, 4])


def test_a_failure_shows_the_rows_that_failed_and_no_other() -> None:
    with pytest.raises(AssertionError) as caught:
        check_quantizer(Fragile(name="fragile", share=0.2), bits=4)
    first, *rows = str(caught.value).split("\n")
    assert first.startswith("quantizer fragile breaks the contract: constant blocks keep their value, error not above")
    assert rows[0].split() == ["property", "result", "detail"]
    named = [row for row in rows[1:] if not row.startswith(" ")]
    assert len(named) == 2 and all(" failed " in row for row in named)
    assert max(len(row) for row in rows) <= 80


def test_a_method_that_fails() -> None:
    with pytest.raises(AssertionError, match="solve returned NoneType") as caught:
        check_method(Nothing)
    assert str(caught.value).startswith("method Nothing breaks the contract: returns a Solution (")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("abmax", "unknown quantizer 'abmax': did you mean 'absmax'?"),
        ("rtn", "unknown quantizer 'rtn'"),
        (RoundToNearest, "(allowed: a Quantizer, its class, or the name of a quantizer)"),
        (NeedsAShare, "quantizer NeedsAShare: share: Field required (give an instance with its options set)"),
    ],
    ids=str,
)
def test_what_is_no_quantizer(given: Any, told: str) -> None:
    with pytest.raises(QBenchError) as caught:
        check_quantizer(given)
    assert told in str(caught.value)


def test_bits_that_are_refused() -> None:
    with pytest.raises(QBenchError, match=r"quantizer 'absmax': .* 1 bit"):
        check_quantizer("absmax", bits=1)


def test_what_is_no_method() -> None:
    with pytest.raises(QBenchError, match="unknown method 'absmax'"):
        check_method("absmax")
