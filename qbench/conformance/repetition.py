"""Properties of a quantizer that is asked again: later, in other surroundings, about a part of the weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qbench.conformance.case import Case
from qbench.conformance.contract import BrokenError, MissingError, Property, UnableError
from qbench.conformance.evaluation_data import quantizer_sees_none
from qbench.conformance.surroundings import default_dtype, seeded
from qbench.quant.block_grid import BlockGrid, fake_quantize, quantize

# Sums may be taken in another order on another device, in another type or beside other rows.
_RELATIVE = 1e-5
_ERROR_ON_DEVICE = 1.05
_FEW_CODES = 1e-3


def _parts(grid: BlockGrid) -> dict[str, Tensor]:
    parts = {"scale": grid.scale, "zero point": grid.zero_point}
    return parts if grid.table is None else {**parts, "table": grid.table}


def _require_same(one: BlockGrid, again: BlockGrid, when: str, *, exactly: bool) -> None:
    for name, part in _parts(one).items():
        other = _parts(again)[name].to(part.device)
        if part.dtype != other.dtype:
            raise BrokenError(f"a {name} of type {other.dtype} {when} (allowed: {part.dtype})")
        if not (torch.equal(part, other) if exactly else torch.allclose(part, other, rtol=_RELATIVE, atol=0.0)):
            apart = (part - other).abs()
            place = tuple((apart == apart.max()).nonzero()[0].tolist())
            raise BrokenError(f"a {name} of {float(part[place]):.7g}, and of {float(other[place]):.7g} {when}")


def _steady(case: Case) -> BlockGrid:
    """Return the grid that is given each time."""
    first, *others = case.answers
    for other in others:
        if not all(torch.equal(part, _parts(other)[name]) for name, part in _parts(first).items()):
            raise MissingError("needs a quantizer that gives the same grid each time")
    return first


def same_when_asked_twice(case: Case) -> None:
    """Make sure that the same weights get the same grid, to the bit."""
    _require_same(*case.answers[:2], "when it was asked again about the same weights", exactly=True)


def no_chance_from_outside(case: Case) -> None:
    """Make sure that global generators change nothing and stay: no run may depend on what ran before it."""
    first, second, other = case.answers
    if case.drawn:
        seen = f"it drew from {case.drawn[0]}'s global generator"
        raise BrokenError(f"{seen} (allowed: one of its own, with a fixed seed)")
    if not all(torch.equal(part, _parts(second)[name]) for name, part in _parts(first).items()):
        raise MissingError("needs a quantizer that gives the same grid when it is asked twice")
    _require_same(first, other, "after the global generators were seeded anew", exactly=True)


def blocks_on_their_own(case: Case) -> None:
    """Make sure that a block's parameters are its own: every second row alone, backwards, gets the same ones."""
    if case.quantizer.shares_scale_unit:
        raise UnableError("its scales share a unit, and say so")
    grid, rows = _steady(case), len(case.weight)
    own = grid.scale if grid.table is None else grid.table
    if len(own) == 1 or rows == 1:
        raise UnableError("all rows share their parameters")
    height = grid.block_rows
    if height == 1:
        part, places = case.weight[::2].flip(0), torch.arange(0, rows, 2).flip(0)
    else:
        part, places = case.weight[: height * 2], torch.arange(0, 2)
    with seeded(1):
        found = case.again(part)
    for name, whole in _parts(grid).items():
        expected, other = whole[places], _parts(found)[name]
        if not torch.allclose(expected, other, rtol=_RELATIVE, atol=0.0):
            row = int((~torch.isclose(expected, other, rtol=_RELATIVE, atol=0.0)).any(dim=1).nonzero()[0])
            raise BrokenError(
                f"row {int(places[row]) * height} has another {name} beside other rows (allowed where "
                "shares_scale_unit is set)"
            )


def default_dtype_changes_nothing(case: Case) -> None:
    """Make sure that the grid is the same, and in float32, where torch's default type is float64."""
    steady = _steady(case)
    with default_dtype(torch.float64), seeded(1):
        again = case.again()
    _require_same(steady, again, "where float64 is the default type", exactly=False)


def same_on_cuda(case: Case) -> None:
    """Make sure that a CUDA device gives the same grid but for the order of sums, and nearly the same codes.

    Where a search comes out elsewhere by such a difference, the grid is compared by its squared error.
    """
    if not torch.cuda.is_available():
        raise UnableError("no CUDA device")
    weight = case.weight.cuda()
    steady = _steady(case)
    with seeded(1):
        again = case.again(weight)
    if again.scale.device.type != "cuda":
        raise BrokenError(f"scales on {again.scale.device} for weights on {weight.device}")
    try:
        _require_same(steady, again, "on a CUDA device", exactly=False)
    except BrokenError:
        found = float((fake_quantize(weight, again).cpu() - case.weight).square().sum())
        own = float((case.quantized - case.weight).square().sum())
        if not own / _ERROR_ON_DEVICE <= found <= own * _ERROR_ON_DEVICE:
            raise
    on_device = replace(
        case.grid, scale=case.grid.scale.cuda(), zero_point=case.grid.zero_point.cuda(), table=_on_cuda(case.grid.table)
    )
    share = float((quantize(weight, on_device).cpu() != case.codes).float().mean())
    if share > _FEW_CODES:
        raise BrokenError(f"{share:.2%} of the codes differ on a CUDA device (allowed: {_FEW_CODES:.2%})")


def _on_cuda(table: Tensor | None) -> Tensor | None:
    return None if table is None else table.cuda()


def _is_repeated(case: Case) -> bool:
    return case.is_repeated


REPETITION = (
    Property("the same when asked twice", same_when_asked_twice, _is_repeated),
    Property("no chance from outside", no_chance_from_outside, _is_repeated),
    Property("each block on its own", blocks_on_their_own, _is_repeated),
    Property("the default dtype changes nothing", default_dtype_changes_nothing, _is_repeated),
    Property("does not see evaluation data", quantizer_sees_none, _is_repeated),
    Property("CPU and CUDA agree", same_on_cuda, _is_repeated),
)
