"""The contract of quantizers and methods, for the tests of a package that brings one.

The same properties as ``qbench check`` tries; see `qbench.conformance`.

Examples
--------
A package's own test file, run by pytest::

    import pytest
    from qbench.testing import check_method, check_quantizer

    from my_package import Clip, Nudge

    def test_clip() -> None:
        check_quantizer(Clip)

    @pytest.mark.parametrize("share", [0.9, 0.99])
    def test_clip_at_4_bits(share: float) -> None:
        check_quantizer(Clip(name="clip", share=share), bits=4)

    def test_nudge() -> None:
        check_method("nudge")  # by the name it is registered under
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qbench.conformance.contract import Report
    from qbench.methods.base import Method
    from qbench.quantizers.base import Quantizer

__all__ = ["check_method", "check_quantizer"]


def check_quantizer(quantizer: Quantizer | type[Quantizer] | str, *, bits: int | Sequence[int] | None = None) -> None:
    """Make sure that a quantizer keeps the contract.

    Parameters
    ----------
    quantizer : Quantizer, its class, or a registered name
        A class or a name is checked with its default options.
    bits : int or sequence of int, optional
        Bits to be tried; all from 1 to 8 that it does not refuse when left out.

    Raises
    ------
    AssertionError
        It breaks a property: the message has a row for each, with what was seen and what is allowed.
    QBenchError
        There is no such quantizer, or it refuses all of the bits.
    """
    from qbench.conformance.quantizers import check
    from qbench.conformance.subjects import quantizer_of

    _require(check(quantizer_of(quantizer), [bits] if isinstance(bits, int) else None if bits is None else [*bits]))


def check_method(method: Method | type[Method] | str) -> None:
    """Make sure that a method keeps the contract.

    Parameters
    ----------
    method : Method, its class, or a registered name
        A class or a name is checked with its default options.

    Raises
    ------
    AssertionError
        It breaks a property: the message has a row for each, with what was seen and what is allowed.
    QBenchError
        There is no such method.
    """
    from qbench.conformance.methods import check
    from qbench.conformance.subjects import method_of

    _require(check(method_of(method)))


def _require(report: Report) -> None:
    from qbench.conformance.text import table

    if report.failed:
        raise AssertionError(f"{report.verdict()}\n{table(report.failed)}")
