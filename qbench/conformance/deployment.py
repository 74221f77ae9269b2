"""Properties of a quantizer in use: stored, trained through, named in a cell, refused, and timed."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import torch

from qbench.conformance.case import Case
from qbench.conformance.contract import BrokenError, Property
from qbench.errors import QBenchError
from qbench.quant.block_grid import dequantize, fake_quantize
from qbench.quant.packed_layer import pack_layer, unpack_layer
from qbench.quant.ste import fake_quantize_ste
from qbench.spec import Spec

_TIMED_SHAPE = (256, 1024)


def packed_and_read_back(case: Case) -> None:
    """Make sure that a stored layer gives back the same codes and weights, to the bit, and its bits are counted."""
    codes, grid = case.codes, case.grid
    try:
        tensors, about = pack_layer(codes, grid)
        read, read_grid = unpack_layer(tensors, json.loads(json.dumps(about)))
    except QBenchError as error:
        raise BrokenError(str(error)) from error
    if not torch.equal(read, codes):
        raise BrokenError(f"{int((read != codes).sum())} codes are others when they are read back")
    if not torch.equal(dequantize(read, read_grid), dequantize(codes, grid)):
        raise BrokenError(f"weights are others when they are read back from scales in {grid.scale_format.name}")
    if grid.stored_bits(*codes.shape) < codes.numel() * torch.tensor(float(grid.levels.count)).log2() - 1e-3:
        raise BrokenError(f"{grid.stored_bits(*codes.shape)} stored bits for {codes.numel()} codes: codes are missing")


def gradient_passes(case: Case) -> None:
    """Make sure that the straight-through gradient is 1, and behind the mask 1 within the levels and 1 or 0 beyond."""
    grid, chance = case.grid, torch.Generator().manual_seed(0)
    gradient = torch.rand(case.weight.shape, generator=chance) + 0.5
    for masked in (False, True):
        weight = case.weight.clone().requires_grad_()
        rounded = fake_quantize_ste(weight, grid, masked=masked)
        if not torch.equal(rounded.detach(), fake_quantize(case.weight, grid)):
            raise BrokenError("the forward pass is not the rounded weight")
        rounded.backward(gradient)
        found = weight.grad
        assert found is not None
        low, high = (
            dequantize(torch.full_like(case.weight, float(end)), grid)
            for end in (grid.levels.quant_min, grid.levels.quant_max)
        )
        # Next to the outermost level a mask may say either.
        margin = (high - low).abs() * 1e-4 + low.abs().maximum(high.abs()) * 1e-6
        inside = (case.weight > low + margin) & (case.weight < high - margin) | (not masked)
        wrong = inside & (found != gradient) | (found != gradient) & (found != 0)
        if wrong.any():
            kind = "masked" if masked else "plain"
            raise BrokenError(
                f"{int(wrong.sum())} weights get another gradient than 1 through the {kind} straight-through estimator"
            )


def options_survive_json(case: Case) -> None:
    """Make sure that options written as JSON and read again are the same."""
    require_round_trip(case.quantizer)


def require_round_trip(spec: Spec) -> None:
    """Make sure that a spec written as JSON and read again is the same.

    Raises
    ------
    BrokenError
        It is not.
    """
    try:
        plain = json.loads(json.dumps(spec.model_dump(mode="json")))
        again: Any = type(spec).model_validate(plain)
    except Exception as error:  # whatever pydantic or a stranger's validator raises
        raise BrokenError(
            f"options cannot be written as JSON and read again: {type(error).__name__}: {_first(error)}"
        ) from error
    changed = [name for name in type(spec).model_fields if getattr(again, name) != getattr(spec, name)]
    if changed:
        one, two = getattr(spec, changed[0]), getattr(again, changed[0])
        raise BrokenError(f"{changed[0]} is {one!r}, and {two!r} when it was written as JSON and read again")


def _first(error: Exception) -> str:
    return str(error).split("\n")[0]


def identity_is_declared(case: Case) -> None:
    """Make sure that the parts of a cell's identity are there: version and sources."""
    require_identity(case.quantizer)


def require_identity(spec: Spec) -> None:
    """Make sure that a spec's class declares what identifies its numbers.

    Raises
    ------
    BrokenError
        `version` is no positive whole number, or a module in `sources` has no file.
    """
    version, sources = type(spec).version, type(spec).sources
    if type(version) is not int or version < 1:
        raise BrokenError(f"version is {version!r} (allowed: a whole number from 1 on)")
    if not isinstance(sources, tuple) or not all(isinstance(name, str) for name in sources):
        raise BrokenError(f"sources is {sources!r} (allowed: a tuple of module names)")
    for name in sources:
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None or found.origin is None or not Path(found.origin).is_file():
            raise BrokenError(f"sources names {name!r}, which is no module with a file")


def refusals_are_reasons(case: Case) -> None:
    """Make sure that `refuses` answers None or a reason, at any bits."""
    for bits in range(1, 9):
        answer = case.quantizer.refuses(bits)
        if answer is not None and not (isinstance(answer, str) and answer.strip()):
            raise BrokenError(f"refuses({bits}) is {answer!r} (allowed: None, or a reason in words)")
    reason = case.quantizer.fixed_scales
    if reason is not None and not (isinstance(reason, str) and reason.strip()):
        raise BrokenError(f"fixed_scales is {reason!r} (allowed: None, or a reason in words)")


def time_it_takes(case: Case) -> str:
    """Return how long it takes to choose a grid, a million weights."""
    columns = _TIMED_SHAPE[1]
    weight = torch.randn(_TIMED_SHAPE, generator=torch.Generator().manual_seed(0))
    importance = torch.ones(1, columns)
    started = time.perf_counter()
    case.again(weight, importance)
    seconds = (time.perf_counter() - started) / weight.numel() * 1e6
    return f"{seconds:.3g} s a million weights ({case.bits} bits, {case.quantizer.granularity}, this machine)"


def _is_first_of_its_kind(case: Case) -> bool:
    return case.is_first


def _is_timed(case: Case) -> bool:
    return case.is_timed


DEPLOYMENT = (
    Property("packed and read back to the bit", packed_and_read_back),
    Property("gradients pass straight through", gradient_passes),
    Property("options survive JSON", options_survive_json, _is_first_of_its_kind),
    Property("version and sources are declared", identity_is_declared, _is_timed),
    Property("refusals are reasons", refusals_are_reasons, _is_timed),
    Property("time", time_it_takes, _is_timed, is_info=True),
)
