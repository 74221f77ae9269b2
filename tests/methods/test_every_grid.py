"""Every method on every quantizer's grid: a solution on the grid, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from qbench.methods.base import Method
from qbench.methods.problem import Problem
from qbench.quant.block_grid import fake_quantize
from qbench.quantizers.base import Quantizer
from qbench.registry import METHODS, QUANTIZERS

MakeProblem = Callable[..., Problem]

# Layers of 16 and of 44 columns: a last group, and a last tile, has fewer.
GRIDS: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{
        f"{name}{bits}": (name, bits, {})
        for name, bits in [
            ("absmax", 3),
            ("percentile", 2),
            ("mse", 2),
            ("hessian_mse", 3),
            ("hqq", 3),
            ("nf", 3),
            ("fp", 4),
            ("pot", 3),
            ("apot", 4),
            ("seq", 2),
            ("ternary", 2),
            ("binary", 1),
            ("mxfp4", 4),
            ("mx", 6),
            ("nvfp4", 4),
            ("kmeans", 2),
            ("lattice", 4),
        ]
    },
    "asymmetric groups": ("absmax", 3, {"symmetric": False, "granularity": {"per_group": 8}}),
    "tiles of integers": ("absmax", 3, {"granularity": {"per_block": [6, 8]}}),
    "tiles of a table": ("nf", 3, {"granularity": {"per_block": [6, 8]}}),
    "real zero points of groups": ("hqq", 2, {"granularity": {"per_group": 8}}),
    "one codebook": ("kmeans", 3, {"granularity": "per_tensor"}),
    "one bit, asymmetric": ("absmax", 1, {"symmetric": False}),
}
# A small budget for each method, and the options that meet grids in other ways.
SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "rtn": ("rtn", {}),
    "gptq": ("gptq", {"cd_sweeps": 1}),
    "gptq fresh": ("gptq", {"group_scales": "fresh", "act_order": "group_aware"}),
    "adaround": ("adaround", {"iterations": 80, "learning_rate": 0.05}),
    "brecq": ("brecq", {"iterations": 10}),
    "block_ap": ("block_ap", {"epochs": 1, "batch_size": 4}),
    "ste_qat": ("ste_qat", {"steps": 2, "batch_size": 2}),
    "ste_qat dynamic": ("ste_qat", {"steps": 2, "batch_size": 2, "scale": "dynamic", "gradient": "masked"}),
    "lsq": ("lsq", {"steps": 2, "batch_size": 2}),
    "latent_grad": ("latent_grad", {"steps": 2, "batch_size": 2}),
    "noise_grad": ("noise_grad", {"steps": 2, "batch_size": 2}),
    "random_grad": ("random_grad", {"steps": 2, "batch_size": 2}),
    "ft_then_ptq": ("ft_then_ptq", {"steps": 2, "batch_size": 2}),
    "ft_then_ptq given": ("ft_then_ptq", {"steps": 2, "batch_size": 2, "grid": "given", "ptq": "gptq"}),
    "qubo": ("qubo", {}),
}
TILES = {"tiles of integers", "tiles of a table"}
NO_WORSE = {"gptq", "gptq fresh", "adaround", "qubo"}  # than rounding to nearest, in the error of the layers
NOT_LEARNED = {"mxfp4", "mx", "nvfp4", "kmeans"}


def quantizer_of(grid: str) -> tuple[Quantizer, int]:
    name, bits, options = GRIDS[grid]
    made = QUANTIZERS.get(name).model_validate({"name": name, **options})
    assert isinstance(made, Quantizer)
    return made, bits


def method_of(solver: str) -> Method:
    name, options = SOLVERS[solver]
    made = METHODS.get(name).model_validate({"name": name, **options})
    assert isinstance(made, Method)
    return made


def expected_refusal(grid: str, solver: str) -> str | None:
    """Return what must be in the reason with which a cell is skipped; None where it is to be solved."""
    name = GRIDS[grid][0]
    if solver in ("lsq", "block_ap") and name in NOT_LEARNED:
        return f"learns step sizes, and {name} has none to learn"
    if solver in ("ste_qat dynamic", "ft_then_ptq") and name == "hessian_mse":
        return "hessian_mse needs inputs too"
    if solver == "gptq fresh" and name == "nvfp4":
        return "nvfp4 stores scales by the largest"
    if solver == "gptq fresh" and grid in TILES:
        return "tiles share theirs among rows"
    return None


def test_all_built_in_names_are_tested() -> None:
    for registry, tested in (
        (QUANTIZERS, {case[0] for case in GRIDS.values()}),
        (METHODS, {case[0] for case in SOLVERS.values()}),
    ):
        built_in = {name for name in registry.names() if registry.get(name).__module__.startswith("qbench.")}
        assert built_in == tested


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("grid", GRIDS)
def test_solved_on_the_grid_or_refused_with_the_reason(make_problem: MakeProblem, grid: str, solver: str) -> None:
    (name, bits, options), method = GRIDS[grid], method_of(solver)
    quantizer, _ = quantizer_of(grid)
    assert quantizer.refuses(bits) is None
    reason, expected = method.refuses_grid(quantizer), expected_refusal(grid, solver)
    if expected is not None:
        assert reason is not None and expected in reason
        return
    assert reason is None
    problem = make_problem(bits=bits, quantizer=name, **options)
    solution = method.solve(problem)
    solution.check(problem)
    for layer in problem.layers:
        found = solution.layers[layer.name]
        assert found.grid.levels == quantizer.levels(bits)
        assert found.codes.unique().numel() <= found.grid.levels.count
        assert torch.equal(fake_quantize(found.weight(), found.grid), found.weight())
        assert found.fallback is None
    if solver in NO_WORSE:
        errors = [(found.objective, found.rtn_objective) for found in solution.layers.values()]
        own, nearest = (sum(part) for part in zip(*errors, strict=True))
        assert own < nearest
