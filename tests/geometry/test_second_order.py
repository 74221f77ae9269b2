"""Errors that are handed on: exactly what GPTQ's are where its grid has no end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from qbench.geometry.second_order import PERCDAMP, HandedOn, _of_hessian, few_of, handed_on
from qbench.methods.gptq import GPTQ
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.quantizers.lattice import Lattice
from qbench.quantizers.layout import choose_grid

STEP = 0.02


def problem_of(module: nn.Module, inputs: Tensor) -> Problem:
    """Return a layer alone, on a lattice that ends far beyond its weights."""
    rule = Lattice(name="lattice", step=STEP, unit="absolute")
    grid = choose_grid(module.weight.detach().flatten(1), rule, 8)  # type: ignore[union-attr, operator]
    return Problem(
        model=module,
        blocks=[Block(module, (TargetLayer("layer", module, grid, rule),))],
        calibration=[inputs],
        forward=lambda model, batch: model(batch),
        loss=lambda model, batch: model(batch).square().mean(),
        train_batches=lambda batch_size, seed: iter(()),
        tokens_of=len,
        seed_of=lambda purpose: 0,
    )


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return make().eval().requires_grad_(requires_grad=False)


def inputs(columns: int, count: int = 400) -> Tensor:
    """Return inputs that have much to do with one another, and sizes of their own."""
    generator = torch.Generator().manual_seed(2)
    mixed = torch.randn(count, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    return mixed * torch.linspace(0.5, 2, columns)


def turns(weight: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Return what rounding does to each column at its turn, and in the end to the weights, by eliminating columns."""
    left = hessian.diagonal().argsort(descending=True, stable=True).tolist()
    damping = PERCDAMP * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    inverse = torch.linalg.inv(hessian + damping)
    current, own, end = weight.clone(), torch.empty_like(weight), torch.empty_like(weight)
    while left:
        column = left.pop(0)
        end[:, column] = STEP * torch.round(current[:, column] / STEP)
        own[:, column] = end[:, column] - current[:, column]
        current[:, left] += own[:, [column]] / inverse[column, column] * inverse[column, left]
        inverse -= torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return own, end - weight


@pytest.mark.parametrize("columns", [3, 24])
def test_the_error_is_gptq_s_where_nothing_is_clipped(columns: int) -> None:
    module = seeded(lambda: nn.Linear(columns, 6, bias=False))
    given = inputs(columns)
    problem = problem_of(module, given)
    (calibrated,) = handed_on(problem).values()
    full = module.weight.clone()
    solution = GPTQ(name="gptq").solve(problem).layers["layer"]
    assert int(solution.codes.abs().max()) < 127  # nothing is clipped
    own, error = turns(full.double(), (given.double().T @ given.double()) / len(given))
    found = solution.weight() - full
    assert torch.allclose(found.double(), error, atol=1e-6)
    assert torch.allclose(calibrated.spread(own.float()), found, atol=2e-6)
    assert not torch.allclose(own.float(), found, atol=1e-3)


def test_each_group_of_a_convolution_hands_on_its_own() -> None:
    module = seeded(lambda: nn.Conv2d(4, 6, 2, groups=2, bias=False))
    images = torch.randn(20, 4, 5, 5, generator=torch.Generator().manual_seed(4)).cumsum(dim=3)
    problem = problem_of(module, images)
    (calibrated,) = handed_on(problem).values()
    assert calibrated.weights.shape == (2, 8, 8)
    full = module.weight.flatten(1).clone()
    patches = nn.functional.unfold(images.double(), 2).transpose(1, 2).reshape(-1, 16)
    parts = []
    for group in range(2):
        seen = patches[:, 8 * group : 8 * group + 8]
        parts.append(turns(full[3 * group : 3 * group + 3].double(), seen.T @ seen / len(seen)))
    own, error = (torch.cat(part).float() for part in zip(*parts, strict=True))
    assert torch.allclose(calibrated.spread(own), error, atol=2e-6)
    solution = GPTQ(name="gptq").solve(problem).layers["layer"]
    assert torch.allclose(solution.weight() - full, error, atol=1e-6)


def test_it_costs_the_layer_less_than_errors_that_stay_where_they_are() -> None:
    given = inputs(24)
    (calibrated,) = handed_on(problem_of(seeded(lambda: nn.Linear(24, 6)), given)).values()
    own = torch.randn(200, 24, generator=torch.Generator().manual_seed(5))
    spread = calibrated.spread(own)
    assert float((spread @ given.T).square().mean()) < 0.5 * float((own @ given.T).square().mean())
    assert spread.norm() > own.norm()


def test_inputs_that_have_nothing_to_do_with_one_another_leave_errors_as_they_are() -> None:
    calibrated = _of_hessian(torch.diag(torch.tensor([1.0, 4.0, 2.0]))[None])
    assert calibrated.order.tolist() == [[1, 2, 0]]
    own = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]])
    assert torch.equal(calibrated.spread(own), own)


@pytest.mark.parametrize("wrong", [[[1.0, 9.0], [9.0, 1.0]], [[float("nan"), 0.0], [0.0, 1.0]]])
def test_a_hessian_without_a_factor_leaves_errors_as_they_are(wrong: list[list[float]]) -> None:
    calibrated = _of_hessian(torch.stack([torch.tensor(wrong), torch.tensor([[2.0, 1.0], [1.0, 1.0]])]))
    assert calibrated.works.tolist() == [False, True]
    own = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # a row each
    found = calibrated.spread(own)
    assert torch.equal(found[0], own[0])
    assert found[1, 0] == own[1, 0] and found[1, 1] != own[1, 1]


def test_inputs_that_are_always_0_take_no_part() -> None:
    given = inputs(8)
    alive = [0, 1, 3, 4, 6]
    given[:, [2, 5, 7]] = 0
    module = seeded(lambda: nn.Linear(8, 4, bias=False))
    (calibrated,) = handed_on(problem_of(module, given)).values()
    assert isinstance(calibrated, HandedOn) and calibrated.works.all()
    own = torch.randn(4, 8, generator=torch.Generator().manual_seed(6))
    found = calibrated.spread(own)
    assert torch.equal(found[:, [2, 5, 7]], own[:, [2, 5, 7]])
    without = own.clone()
    without[:, [2, 5, 7]] = 0
    assert torch.equal(calibrated.spread(without)[:, alive], found[:, alive])
    assert not torch.allclose(found[:, alive], own[:, alive], atol=1e-3)
    (silent,) = handed_on(problem_of(module, torch.zeros(5, 8))).values()
    assert torch.equal(silent.spread(own), own)


def test_layers_that_share_their_input_share_what_hands_on() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x).sum(dim=-1) + self.other(x).sum(dim=-1)

    module = seeded(Two)
    rule = Lattice(name="lattice", step=STEP, unit="absolute")
    layers = tuple(
        TargetLayer(name, one, choose_grid(one.weight.detach(), rule, 8), rule) for name, one in module.named_children()
    )
    problem = problem_of(module.one, inputs(4))  # type: ignore[arg-type]
    found = handed_on(
        Problem(
            module,
            [Block(module, layers)],
            problem.calibration,
            problem.forward,
            problem.loss,
            problem.train_batches,
            len,
            problem.seed_of,
        )
    )
    assert found.keys() == {"one", "other"}
    assert found["one"] is found["other"]


@pytest.mark.parametrize(
    ("tokens", "rows"), [(1, [1]), (7, [1]), (8, [2]), (28, [4]), (29, [4, 1]), (70, [4, 4, 2]), (71, [4, 4, 2])]
)
def test_few_are_whole_windows_from_the_front(tokens: int, rows: list[int]) -> None:
    batches = [torch.arange(28).view(4, 7), torch.arange(28).view(4, 7) + 100, torch.zeros(2, 7)]
    found = few_of(batches, torch.numel, tokens)
    assert [len(batch) for batch in found] == rows
    assert all(torch.equal(one, whole[: len(one)]) for one, whole in zip(found, batches, strict=False))
    assert [len(batch) for batch in few_of(found, torch.numel, tokens)] == rows
