"""The walk and GPTQ on convolutions: a small network with grouped and depthwise layers on real images."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from qbench.methods.gptq import GPTQ
from qbench.methods.gptq_stage import solve_stage
from qbench.methods.matrices import input_columns, input_groups, to_matrix
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.sequential import full_precision_hessians, walk
from qbench.methods.stage import Gram, Stage
from qbench.quant.block_grid import quantize
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid
from qbench.registry import METHODS

RULE = AbsMax(name="absmax")


def network() -> nn.Sequential:
    """Return three blocks: plain, grouped with a depthwise layer, and a head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=2, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 1),
        ),
        nn.Sequential(nn.Flatten(), nn.Linear(192, 10)),
    ).eval()


def make_problem(bits: int = 3) -> Problem:
    model = network()
    images = torch.tensor(load_digits().images[:96] / 16, dtype=torch.float32)[:, None]
    blocks = [
        Block(
            block,
            tuple(
                TargetLayer(
                    f"{index}.{name}", module, choose_grid(to_matrix(module, module.weight.detach()), RULE, bits), RULE
                )
                for name, module in block.named_modules()
                if isinstance(module, nn.Conv2d | nn.Linear)
            ),
        )
        for index, block in enumerate(model)
    ]
    return Problem(
        model=model,
        blocks=blocks,
        calibration=images.split(40),
        forward=lambda model, batch: model(batch),
        loss=lambda model, batch: model(batch).logsumexp(1).mean(),
        train_batches=lambda batch_size, seed: iter([images[:batch_size]]),
        tokens_of=len,
        seed_of=lambda purpose: 0,
    )


@torch.no_grad()
def columns_of(problem: Problem) -> dict[str, Tensor]:
    """Return every layer's input columns, found with plain hooks on the whole model."""
    model = copy.deepcopy(problem.model)
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(
                lambda module, args, name=name: seen.setdefault(name, []).append(input_columns(module, args[0]))
            )
    for batch in problem.calibration:
        model(batch)
    return {name: torch.cat(parts, dim=1) for name, parts in seen.items()}


def test_every_group_of_a_convolution_has_a_hessian_of_its_own() -> None:
    problem = make_problem()
    expected, found = columns_of(problem), full_precision_hessians(problem)
    assert set(found) == {layer.name for layer in problem.layers}
    for layer in problem.layers:
        columns = expected[layer.name]
        assert len(found[layer.name]) == input_groups(layer.module)
        mean = columns.mT @ columns / columns.shape[1]
        torch.testing.assert_close(found[layer.name], mean, rtol=1e-4, atol=1e-6)


def test_layers_of_one_shape_are_one_stack() -> None:
    """Two depthwise layers of eight groups: sixteen matrices of one row, though their inputs differ."""
    stages = [stage for stage in walk(make_problem(), true_sequential=False) if stage.layers[0].name in ("1.3", "1.4")]
    assert [[layer.name for layer in stage.layers] for stage in stages] == [["1.3", "1.4"]]
    assert stages[0].weight().shape == (16, 1, 9) and stages[0].gram.hessian.shape == (16, 9, 9)


@pytest.mark.parametrize("options", [{}, {"act_order": False}, {"true_sequential": True}, {"cd_sweeps": 3}])
def test_a_stack_is_solved_as_its_matrices_are_alone(options: dict[str, object]) -> None:
    problem, asked = make_problem(), GPTQ.model_validate({"name": "gptq", **options})
    for stage in walk(problem, true_sequential=asked.true_sequential):
        found = solve_stage(stage, asked)
        for part, own in zip(stage.parts, stage.places(), strict=True):
            for group, place in enumerate(range(own.start, own.stop)):
                hessian = stage.gram.hessian[place, None]
                if not hessian.any():  # alone it would be a layer without any input
                    continue
                for layer in part:
                    rows = len(layer.matrix()) // (own.stop - own.start)
                    mine = slice(group * rows, (group + 1) * rows)
                    alone = nn.Linear(layer.matrix().shape[1], rows, bias=False)
                    alone.weight.data = layer.matrix()[mine].clone()
                    grid = dataclasses.replace(
                        layer.grid, scale=layer.grid.scale[mine], zero_point=layer.grid.zero_point[mine]
                    )
                    single = Stage(((TargetLayer("alone", alone, grid, RULE),),), Gram(hessian, hessian, hessian))
                    codes = solve_stage(single, asked)["alone"].codes
                    assert (codes != found[layer.name].codes[mine]).float().mean() < 0.02
        for layer in stage.layers:
            layer.write(found[layer.name].weight())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_a_network_is_solved_from_end_to_end(method: str, bits: int) -> None:
    problem = make_problem(bits)
    before = {layer.name: layer.matrix().clone() for layer in problem.layers}
    solution = METHODS.get(method).model_validate({"name": method}).solve(problem)  # type: ignore[attr-defined]
    solution.check(problem)
    for layer in problem.layers:
        found = solution.layers[layer.name]
        if method == "rtn":
            assert torch.equal(found.codes, quantize(before[layer.name], layer.grid))
        else:
            assert found.fallback is None and found.objective is not None and found.rtn_objective is not None
            assert found.objective <= found.rtn_objective
    if method == "gptq":
        found = solution.layers["1.3"]
        assert found.objective < found.rtn_objective  # type: ignore[operator]


def test_inputs_are_kept_where_they_are_asked_for() -> None:
    problem = make_problem()
    expected = columns_of(problem)
    for stage in walk(problem, true_sequential=False, full_precision_targets=True, keep_inputs=True):
        assert stage.inputs is not None and len(stage.parts) == 1
        layer = stage.layers[0]
        for kept in (stage.inputs.seen, stage.inputs.full):
            columns = torch.cat([input_columns(layer.module, x) for x in kept], dim=1)
            torch.testing.assert_close(columns, expected[layer.name])


def test_what_coordinate_descent_gains_is_the_layer_s_share() -> None:
    """Groups count by their error, one without any input not at all, and dead columns are counted over all groups."""
    found = {}
    for sweeps in (0, 3):
        problem = make_problem(2)
        stage = next(stage for stage in walk(problem, true_sequential=False) if stage.layers[0].name == "1.0")
        hessian = stage.gram.hessian.clone()
        hessian[0] = 0
        silenced = dataclasses.replace(stage, gram=Gram(hessian, hessian, hessian))
        found[sweeps] = solve_stage(silenced, GPTQ(name="gptq", cd_sweeps=sweeps))["1.0"]
    before, after = found[0].objective, found[3].objective
    assert before is not None and after is not None
    assert found[3].details["cd_gain"] == pytest.approx(1 - after / before, abs=1e-4)
    assert found[3].fallback is None
    assert found[0].details["dead_columns"] >= hessian.shape[1]


def test_fresh_scales_of_grouped_convolutions() -> None:
    rule = AbsMax.model_validate({"name": "absmax", "granularity": {"per_group": 8}})
    asked = GPTQ(name="gptq", act_order="group_aware", group_scales="fresh")
    for stage in walk(make_problem(), true_sequential=False):
        parts = tuple(
            tuple(
                dataclasses.replace(layer, grid=choose_grid(layer.matrix(), rule, 3), quantizer=rule) for layer in part
            )
            for part in stage.parts
        )
        for solution in solve_stage(Stage(parts, stage.gram), asked).values():
            assert torch.isfinite(solution.codes).all() and (solution.grid.scale > 0).all()
            assert solution.fallback is None
