"""Every method on a CUDA device, beside the same on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from qbench.methods.base import Method
from qbench.methods.problem import Problem, Solution
from qbench.registry import METHODS

MakeProblem = Callable[..., Problem]

# Options that go another way through the code than the defaults.
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("rtn", {}),
    ("gptq", {}),
    ("gptq", {"act_order": "group_aware", "group_scales": "fresh"}),
    ("gptq", {"cd_sweeps": 2, "true_sequential": True}),
    ("adaround", {"iterations": 50}),
    ("adaround", {"iterations": 50, "objective": "activation", "batch_iterations": 10}),
    ("brecq", {"iterations": 20}),
    ("block_ap", {"epochs": 1}),
    ("ste_qat", {"steps": 4}),
    ("ste_qat", {"steps": 4, "scale": "dynamic", "gradient": "masked", "oscillation": "freeze"}),
    ("lsq", {"steps": 4, "init": "lsq"}),
    ("latent_grad", {"steps": 4}),
    ("ft_then_ptq", {"steps": 4, "ptq": "gptq"}),
    ("qubo", {}),
]
# Rounding errors differ, and a weight next to a tie takes what follows in its row with it.
SAME_CODES = 0.9


def on(problem: Problem, device: torch.device) -> Problem:
    """Return the problem with model, grids and data on a device."""
    problem.model.to(device)

    def moved(layer: Any) -> Any:
        grid = layer.grid
        here = dataclasses.replace(grid, scale=grid.scale.to(device), zero_point=grid.zero_point.to(device))
        return dataclasses.replace(layer, grid=here)

    def train_batches(batch_size: int, seed: int) -> Iterator[Tensor]:
        return (batch.to(device) for batch in problem.train_batches(batch_size, seed))

    return dataclasses.replace(
        problem,
        blocks=[dataclasses.replace(block, layers=tuple(map(moved, block.layers))) for block in problem.blocks],
        calibration=[batch.to(device) for batch in problem.calibration],
        train_batches=train_batches,
    )


def solved(problem: Problem, name: str, options: dict[str, Any]) -> Solution:
    method = METHODS.get(name).model_validate({"name": name, **options})
    assert isinstance(method, Method)
    torch.manual_seed(0)
    solution = method.solve(problem)
    solution.check(problem)
    return solution


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "options"), ASKED, ids=str)
@pytest.mark.parametrize("grid", [{}, {"granularity": {"per_group": 12}, "symmetric": False}], ids=str)
def test_codes_and_errors_agree_with_those_of_the_cpu(
    make_problem: MakeProblem, name: str, options: dict[str, Any], grid: dict[str, Any]
) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    expected, found = (solved(on(make_problem(**grid), device), name, options) for device in (cpu, cuda))
    same, weights = 0, 0
    for layer, own in found.layers.items():
        other = expected.layers[layer]
        assert own.codes.device.type == own.grid.scale.device.type == "cuda"
        same, weights = same + int((own.codes.cpu() == other.codes).sum()), weights + other.codes.numel()
        torch.testing.assert_close(own.grid.scale.cpu(), other.grid.scale, rtol=0.05, atol=1e-6)
        if own.objective is not None:
            assert own.objective == pytest.approx(other.objective, rel=0.1, abs=1e-4)
    assert same >= SAME_CODES * weights


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["gptq", "adaround", "lsq", "noise_grad", "random_grad"])
def test_twice_on_a_device_gives_the_same_codes(make_problem: MakeProblem, name: str) -> None:
    options = {"gptq": {}, "adaround": {"iterations": 20}}.get(name, {"steps": 2})
    first, second = (solved(on(make_problem(), torch.device("cuda")), name, options) for _ in range(2))
    assert all(torch.equal(own.codes, second.layers[layer].codes) for layer, own in first.layers.items())
