"""The contract of a quantizer: which properties it keeps, and on which trials they are tried."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from qbench.conformance.answers import ANSWERS
from qbench.conformance.blame import told
from qbench.conformance.case import Case
from qbench.conformance.contract import Property, Report, Row, judge
from qbench.conformance.deployment import DEPLOYMENT
from qbench.conformance.matrices import matrices
from qbench.conformance.repetition import REPETITION
from qbench.conformance.rounding import ROUNDING
from qbench.conformance.surroundings import one_thread, seeded, settings_kept
from qbench.errors import QBenchError
from qbench.quant.levels import Codebook
from qbench.quantizers.base import Quantizer

PROPERTIES: tuple[Property[Case], ...] = (*ANSWERS, *ROUNDING, *REPETITION, *DEPLOYMENT)
_GRANULARITIES: tuple[Any, ...] = ("per_tensor", "per_channel", {"per_group": 16}, {"per_block": [6, 16]})
_REPEATED = ("gaussian", "outlier rows", "zero blocks")


def check(quantizer: Quantizer, bits: list[int] | None = None) -> Report:
    """Try the contract on a quantizer.

    Parameters
    ----------
    quantizer : Quantizer
        Its own granularity is tried first, then each other one that its options allow.
    bits : list of int, optional
        Bits to be tried; all that it does not refuse when left out.

    Raises
    ------
    QBenchError
        It refuses the bits that were asked for.
    """
    name = quantizer.name
    try:
        asked = list(range(1, 9)) if bits is None else bits
        with settings_kept():
            refused = {number: quantizer.refuses(number) for number in asked}
        allowed = [number for number in asked if refused[number] is None]
    except Exception as error:  # a stranger's code can fail in any way
        return Report("quantizer", name, (Row("raises nothing", "failed", f"refuses: {told(error, type(quantizer))}"),))
    if not allowed and bits is None:
        seen = f"it refuses all bits from 1 to 8: {next(iter(refused.values()))}"
        return Report("quantizer", name, (Row("has a grid", "failed", seen),))
    if not allowed:
        raise QBenchError(f"quantizer {name!r}: {next(iter(refused.values()))}")
    with settings_kept(), one_thread(), seeded(0):
        cases = _cases(quantizer, allowed)
        rows = judge(PROPERTIES, cases, type(quantizer), str)
    listed = ", ".join(dict.fromkeys(str(case.quantizer.granularity) for case in cases))
    tried = f"bits {', '.join(map(str, allowed))}; {listed}; {len(matrices())} matrices"
    return Report("quantizer", name, (Row("tried at", "info", tried), *rows))


def _cases(quantizer: Quantizer, bits: list[int]) -> list[Case]:
    cases: list[Case] = []
    few = sorted({bits[0], bits[len(bits) // 2], bits[-1]})
    ends = sorted({bits[0], bits[-1]})
    for place, one in enumerate(_variants(quantizer, bits[0])):
        for number in ends if place else bits:
            for index, matrix in enumerate(matrices()):
                first = not index and number == bits[0]
                repeated = matrix.name in _REPEATED and number in (ends[:1] if place else few)
                cases.append(
                    Case(one, number, matrix, is_repeated=repeated, is_first=first, is_timed=first and not place)
                )
    return cases


def _variants(quantizer: Quantizer, bits: int) -> list[Quantizer]:
    """Return the quantizer at its own granularity, and at each other that it accepts."""
    found = [quantizer]
    options = quantizer.model_dump(mode="json")
    try:
        with settings_kept():
            is_codebook = isinstance(quantizer.levels(bits), Codebook)
    except Exception:  # the first case says what is wrong
        return found
    for granularity in _GRANULARITIES:
        if is_codebook and isinstance(granularity, dict):
            continue  # one of `choose_grid`'s own limits
        try:
            with settings_kept():
                other = type(quantizer).model_validate({**options, "granularity": granularity})
        except ValidationError:  # a format with one block size says so
            continue
        if other.granularity not in [one.granularity for one in found]:
            found.append(other)
    return found
