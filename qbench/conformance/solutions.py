"""Properties of what a method gives back."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from qbench.conformance.contract import BrokenError, MissingError, Property, UnableError
from qbench.conformance.deployment import require_identity, require_round_trip
from qbench.conformance.evaluation_data import method_sees_none
from qbench.conformance.surroundings import settings_kept
from qbench.conformance.trial import Trial
from qbench.methods.batch_norm import batch_norms, recalibrate
from qbench.methods.problem import Problem, Solution
from qbench.quant.block_grid import BlockGrid
from qbench.quantizers.layout import zero_points_fit

_HINT = " (a grid that it cannot work on is to be refused in refuses_grid)"
_ROUNDING = 1e-3  # an objective is a sum of float32 products


def refuses_with_reasons(trial: Trial) -> None:
    """Make sure that a method takes a grid, or says in words why it does not."""
    answer = trial.refusal
    if answer is not None and not (isinstance(answer, str) and answer.strip()):
        raise BrokenError(f"refuses_grid is {answer!r} (allowed: None, or a reason in words)")


def raises_nothing(trial: Trial) -> None:
    """Make sure that a method solves a problem on each grid that it does not refuse."""
    if trial.outcome.raised is not None:
        raise BrokenError(trial.outcome.raised + (_HINT if trial.kind == "grid" else ""))


def returns_a_solution(trial: Trial) -> None:
    """Make sure that what comes back is a `Solution` of `LayerSolution`."""
    if trial.outcome.raised is not None:
        raise MissingError("needs a solution, and there is none")
    if trial.outcome.wrong_type is not None:
        raise BrokenError(trial.outcome.wrong_type)


def every_layer_once(trial: Trial) -> None:
    """Make sure that every target layer is in the solution, and nothing else."""
    wanted, found = {layer.name for layer in trial.outcome.problem.layers}, set(trial.solution.layers)
    if wanted - found:
        raise BrokenError(f"layer {min(wanted - found)!r} is left out ({len(wanted - found)} of {len(wanted)})")
    if found - wanted:
        raise BrokenError(f"layer {str(min(found - wanted, key=str))!r} is no target layer")


def codes_on_the_grid(trial: Trial) -> None:
    """Make sure that codes are whole numbers of the grid's levels, in the shape and on the device of the weight."""
    for name, weight, given, found in trial.layers():
        codes, levels = found.codes, given.levels
        if codes.shape != weight.shape:
            shapes = f"{tuple(codes.shape)} (allowed: {tuple(weight.shape)})"
            raise BrokenError(f"layer {name!r} has codes of shape {shapes}")
        if codes.device != weight.device:
            raise BrokenError(f"layer {name!r} has codes on {codes.device} (allowed: {weight.device})")
        wrong = ~((codes == codes.round()) & (codes >= levels.quant_min) & (codes <= levels.quant_max))
        if wrong.any():
            allowed = f"whole numbers from {levels.quant_min} to {levels.quant_max}"
            raise BrokenError(f"layer {name!r} has a code of {float(codes[wrong][0]):g} (allowed: {allowed})")


def grids_stay_the_quantizers(trial: Trial) -> None:
    """Make sure that levels and granularity are as given; scales may be learned, and stay positive and storable."""
    for name, _, given, found in trial.layers():
        _compare(name, given, found.grid)


def _compare(name: str, given: BlockGrid, own: BlockGrid) -> None:
    if own.levels != given.levels:
        raise BrokenError(f"layer {name!r} has levels {own.levels} (allowed: {given.levels}, as given)")
    for part in ("scale", "zero_point", "table"):
        one, other = getattr(own, part), getattr(given, part)
        shape, wanted = (None if tensor is None else tuple(tensor.shape) for tensor in (one, other))
        if shape != wanted:
            raise BrokenError(f"layer {name!r} has a {part} of shape {shape} (allowed: {wanted}, as given)")
        if one is not None and not torch.isfinite(one).all():
            raise BrokenError(f"layer {name!r} has a {part} that is not finite")
    sizes = (own.group_size, own.block_rows)
    if sizes != (given.group_size, given.block_rows):
        raise BrokenError(f"layer {name!r} has groups of {sizes[0]} by {sizes[1]} rows (allowed: as given)")
    if not (own.scale > 0).all():
        raise BrokenError(f"layer {name!r} has a scale that is not positive")
    if not zero_points_fit(own.zero_point, own.levels):
        raise BrokenError(f"layer {name!r} has a zero point that is none of its levels'")
    if own.scale_format != given.scale_format or not torch.equal(own.scale_format.round(own.scale), own.scale):
        raise BrokenError(f"layer {name!r} has scales that {given.scale_format.name} cannot hold")


def same_when_solved_again(trial: Trial) -> None:
    """Make sure that the same problem after the same seeding gives the same codes and scales, to the bit."""
    first, second = trial.solution, trial.solve().solution
    if second is None:
        raise BrokenError("it gave a solution the first time, and none the second time")
    for name, one in first.layers.items():
        two = second.layers.get(name)
        if two is None or not _same(one.codes, two.codes) or not _same(one.grid.scale, two.grid.scale):
            raise BrokenError(f"layer {name!r} has another solution when the same problem is solved again")


def _same(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and torch.equal(one.nan_to_num(), two.nan_to_num())


def touches_nothing_else(trial: Trial) -> None:
    """Make sure that calibration data, given grids, and all of the model but its target weights stay as they were."""
    if trial.outcome.touched is not None:
        raise BrokenError(trial.outcome.touched)


def state_is_left(trial: Trial) -> None:
    """Make sure that settings of the process stay, such as the gradient mode, or are put back."""
    changed = trial.outcome.changed_settings
    if changed:
        raise BrokenError(f"it changed the {changed[0]} of the process (allowed: to put it back)")
    with settings_kept() as changed:
        trial.method.refuses_grid(trial.grid_kind.quantizer)
    if changed:
        raise BrokenError(f"refuses_grid changed the {changed[0]} of the process (allowed: to put it back)")


def fallbacks_are_told(trial: Trial) -> None:
    """Make sure that what was done instead of the method is told in words, layer by layer."""
    for name, _, _, found in trial.layers():
        if found.fallback is not None and not (isinstance(found.fallback, str) and found.fallback.strip()):
            raise BrokenError(f"layer {name!r} has the fallback {found.fallback!r} (allowed: None, or words)")


def objective_not_above_rounding(trial: Trial) -> None:
    """Make sure that what a layer says it minimised is not above what rounding to nearest has there."""
    stated = False
    for name, _, _, found in trial.layers():
        if found.objective is None or found.rtn_objective is None:
            continue
        stated = True
        one, other = float(found.objective), float(found.rtn_objective)
        if not one <= other * (1 + _ROUNDING) + 1e-12:
            raise BrokenError(
                f"layer {name!r} has an objective of {one:.4g} (allowed: {other:.4g}, rounding to nearest)"
            )
    if not stated:
        raise UnableError("it states no objective")


def numbers_are_plain(trial: Trial) -> None:
    """Make sure that counts are whole, details finite, traces numbers: what a record can hold."""
    found = trial.solution
    for name in ("calibration_tokens", "train_tokens", "train_steps"):
        value = getattr(found, name)
        if type(value) is not int or value < 0:
            raise BrokenError(f"{name} is {value!r} (allowed: a whole number from 0 on)")
    for name, curve in found.traces.items():
        try:
            [float(value) for value in curve]
        except (TypeError, ValueError) as error:
            raise BrokenError(f"the trace {name!r} holds what is no number") from error
    for layer, _, _, one in trial.layers():
        for name, value in [*one.details.items(), ("objective", one.objective), ("damping", one.damping)]:
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                raise BrokenError(f"layer {layer!r} has the {name} {value!r} (allowed: a finite number)")


def sound(trial: Trial) -> None:
    """Make sure that a problem of its kind is solved as the plain one is, with codes on the grid."""
    tests = (raises_nothing, returns_a_solution, every_layer_once, codes_on_the_grid, grids_stay_the_quantizers)
    for test in tests:
        try:
            if trial.plain is not None:
                test(trial.plain)
        except (BrokenError, UnableError) as error:
            raise MissingError("the plain problem is not solved either") from error
    for test in tests:
        test(trial)


def on_cuda(trial: Trial) -> None:
    """Make sure that the problem is solved on a CUDA device."""
    if not torch.cuda.is_available():
        raise UnableError("no CUDA device")
    sound(trial)


def works_with_batch_norm(trial: Trial) -> None:
    """Make sure that convolutions are solved, and compute with batch norms as they are and with others' statistics."""
    sound(trial)
    problem = trial.problem()
    _deploy(problem, trial.solution)
    _require_finite(problem, "kept")
    recalibrate(problem.model, problem.forward, problem.calibration)
    _require_finite(problem, "recalibrated")


def works_with_folded_batch_norm(trial: Trial) -> None:
    """Make sure that convolutions whose batch norms are folded are solved, and compute."""
    sound(trial)
    problem = trial.problem()
    _deploy(problem, trial.solution)
    _require_finite(problem, "folded")


@torch.no_grad()
def _deploy(problem: Problem, solution: Solution) -> None:
    for layer in problem.layers:
        layer.write(solution.layers[layer.name].weight())
    buffers = dict(problem.model.named_buffers())
    for name, value in solution.statistics.items():
        if name in buffers and buffers[name].shape == value.shape:  # otherwise there is a property that says so
            buffers[name].copy_(value)


@torch.no_grad()
def _require_finite(problem: Problem, how: str) -> None:
    found = problem.forward(problem.model.eval(), problem.calibration[0])
    if not (isinstance(found, Tensor) and torch.isfinite(found).all()):
        raise BrokenError(f"with its codes and batch norms {how} the model gives logits that are not finite")


def statistics_are_of_batch_norms(trial: Trial) -> None:
    """Make sure that statistics are finite ones of batch norms, with variances that are not negative."""
    norms = batch_norms(trial.outcome.problem.model)
    allowed = {
        f"{name}.{buffer}": value for name, norm in norms.items() for buffer, value in norm.named_buffers(recurse=False)
    }
    for name, value in trial.solution.statistics.items():
        if name not in allowed:
            told = ", ".join(sorted(norms)) or "none: the model has no batch norm"
            raise BrokenError(f"it gives statistics {name!r} (allowed: those of {told})")
        if not isinstance(value, Tensor) or value.shape != allowed[name].shape:
            seen = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise BrokenError(f"the statistics {name!r} are {seen} (allowed: a tensor of {tuple(allowed[name].shape)})")
        if not torch.isfinite(value).all() or (name.endswith("running_var") and (value < 0).any()):
            raise BrokenError(f"the statistics {name!r} are not finite, or are a negative variance")


def options_survive_json(trial: Trial) -> None:
    """Make sure that options written as JSON and read again are the same."""
    require_round_trip(trial.method)


def identity_is_declared(trial: Trial) -> None:
    """Make sure that the parts of a cell's identity are there: version and sources."""
    require_identity(trial.method)


def time_it_takes(trial: Trial) -> str:
    """Return how long the first problem took."""
    weights = sum(weight.numel() for weight in trial.outcome.weights.values())
    return f"{trial.outcome.seconds:.3g} s for {weights} weights in {len(trial.outcome.weights)} layers (this machine)"


def _of_kind(kind: str) -> Callable[[Trial], bool]:
    return lambda trial: trial.kind == kind


def _first(trial: Trial) -> bool:
    return trial.is_first


SOLUTIONS: tuple[Property[Trial], ...] = (
    Property("refuses with reasons", refuses_with_reasons, _of_kind("grid")),
    Property("raises nothing", raises_nothing, _of_kind("grid")),
    Property("returns a Solution", returns_a_solution, _of_kind("grid")),
    Property("every layer once", every_layer_once, _of_kind("grid")),
    Property("codes are on the grid", codes_on_the_grid, _of_kind("grid")),
    Property("grids stay the quantizer's", grids_stay_the_quantizers, _of_kind("grid")),
    Property("the same when solved again", same_when_solved_again, _first),
    Property("touches nothing else", touches_nothing_else, _of_kind("grid")),
    Property("leaves torch's global state as it was", state_is_left, _of_kind("grid")),
    Property("does not see evaluation data", method_sees_none, _first),
    Property("fallbacks are told", fallbacks_are_told, lambda trial: trial.kind != "cuda"),
    Property("objective not above rounding to nearest", objective_not_above_rounding, _of_kind("grid")),
    Property("numbers are plain", numbers_are_plain, _of_kind("grid")),
    Property("works with batches of one", sound, _of_kind("ones")),
    Property("copes with inputs that are all 0", sound, _of_kind("silent")),
    Property("works with batch norm, kept and recalibrated", works_with_batch_norm, _of_kind("images")),
    Property("works with batch norm folded", works_with_folded_batch_norm, _of_kind("folded")),
    Property("statistics are those of batch norms", statistics_are_of_batch_norms, lambda trial: trial.kind != "cuda"),
    Property("works on a CUDA device", on_cuda, _of_kind("cuda")),
    Property("options survive JSON", options_survive_json, _first),
    Property("version and sources are declared", identity_is_declared, _first),
    Property("time", time_it_takes, _first, is_info=True),
)
