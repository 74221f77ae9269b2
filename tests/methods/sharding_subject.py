"""Small language models that two processes train together; importable in those processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from qbench.methods import training as trainings
from qbench.methods.fine_tune import FineTuning
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.matrices import is_matrix_layer, to_matrix
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.methods.sharding import shard
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.methods.training_options import WeightTraining
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid
from qbench.seeds import derive_seed

RANKS = 2


@dataclass(frozen=True)
class Case:
    """A model, a quantizer's options and what trains it."""

    method: WeightTraining
    quantizer: dict[str, Any] = field(default_factory=dict)
    family: str = "llama"
    dtype: torch.dtype = torch.float32


def _cases() -> dict[str, Case]:
    def short(kind: type[WeightTraining], name: str, **options: Any) -> WeightTraining:
        given = {"steps": 4, "batch_size": 8, "learning_rate": 5e-3, "ranks": RANKS} | options
        return kind.model_validate({"name": name, **given})

    def ste(**options: Any) -> WeightTraining:
        return short(StraightThroughQAT, "ste_qat", **options)

    def lsq(**options: Any) -> WeightTraining:
        return short(LearnedStepSize, "lsq", **options)

    return {
        "rows": Case(ste()),
        "rows again": Case(ste()),
        "scales chosen again": Case(ste(scale="dynamic", gradient="masked", oscillation="freeze")),
        "step sizes of rows": Case(lsq(init="lsq", gradient_scale="step")),
        "one step size": Case(
            lsq(init="lsq", optimizer="sgd", learning_rate=0.5, clip_norm=0.02, step_size_learning_rate=1e-3),
            {"granularity": "per_tensor"},
        ),
        "step sizes of groups, in parts": Case(
            lsq(accumulation=2, gradient_checkpointing=True), {"granularity": {"per_group": 16}}
        ),
        "distilled in bfloat16": Case(ste(distillation=0.5, precision="bfloat16")),
        "a model in bfloat16": Case(ste(learning_rate=2e-2), dtype=torch.bfloat16),
        "transposed weights": Case(lsq(), family="gpt2"),
        "full precision": Case(short(FineTuning, "fine_tune")),
    }


CASES = _cases()


def make(case: Case) -> Problem:
    """Return the whole problem of a case, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, blocks = _llama() if case.family == "llama" else _gpt2()
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name and "wte" not in name:
                nn.init.normal_(parameter, std=0.3)
    model.to(case.dtype)
    found = []
    for index, block in enumerate(blocks):
        layers = [(f"{index}.{name}", one) for name, one in block.named_modules() if is_matrix_layer(one)]
        found.append(Block(block, tuple(_target(name, module, case.quantizer) for name, module in layers)))
    return Problem(
        model=model,
        blocks=found,
        calibration=[],
        forward=lambda model, batch: model(input_ids=batch, use_cache=False),
        loss=lambda model, batch: functional.cross_entropy(*_predict(model, batch)),
        train_batches=_train_batches,
        tokens_of=Tensor.numel,
        seed_of=lambda purpose: derive_seed(purpose, 0),
        predict=_predict,
    )


def _llama() -> tuple[nn.Module, nn.ModuleList]:
    from qbench.tasks.llama import build_llama
    from qbench.tasks.zoo import Architecture

    # 45 rows: one rank has one more than the other.
    sizes = {"hidden_size": 16, "intermediate_size": 45, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = build_llama(Architecture.model_validate(sizes))
    return model.eval(), model.model.layers


def _gpt2() -> tuple[nn.Module, nn.ModuleList]:
    from transformers import GPT2Config, GPT2LMHeadModel

    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=12, n_embd=16, n_layer=2, n_head=2, **off))
    return model.eval(), model.transformer.h


def _target(name: str, module: nn.Module, options: dict[str, Any]) -> TargetLayer:
    rule = AbsMax.model_validate({"name": "absmax", **options})
    return TargetLayer(name, module, choose_grid(to_matrix(module, module.weight.detach()), rule, 3), rule)


def _predict(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
    return logits.flatten(0, 1).float(), batch[:, 1:].flatten()


def _train_batches(batch_size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(0, 300, (batch_size, 12), generator=generator)


def solve(case: Case, problem: Problem) -> dict[str, Any]:
    """Train, and return the losses, the numbers held for training, and what is found of each layer."""
    held: list[torch.optim.Optimizer] = []
    make_optimizer = trainings._optimizer

    def kept(*given: Any) -> torch.optim.Optimizer:
        held.append(make_optimizer(*given))
        return held[0]

    trainings._optimizer = kept
    try:
        if isinstance(case.method, FineTuning):
            training = case.method.train(problem)
            layers = {layer.name: {"matrix": layer.matrix().clone()} for layer in problem.layers}
            losses = training.traces["train_loss"]
        else:
            solution = case.method.solve(problem)  # type: ignore[attr-defined]
            layers = {
                name: {"matrix": found.codes, "scale": found.grid.scale, "details": found.details}
                for name, found in solution.layers.items()
            }
            losses = solution.traces["train_loss"]
    finally:
        trainings._optimizer = make_optimizer
    trained = [parameter for group in held[0].param_groups for parameter in group["params"]]
    moments = [value for state in held[0].state.values() for value in state.values() if value.ndim]
    return {"losses": losses, "held": sum(one.numel() for one in trained + moments), "layers": layers}


def serve(rank: int, folder: Path) -> None:
    """Be one of the ranks, for all cases one after the other."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    distributed.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=RANKS)
    found = {}
    for name, case in CASES.items():
        teacher = getattr(case.method, "distillation", 0.0) > 0
        found[name] = solve(case, shard(make(case), rank, RANKS, teacher=teacher))
    torch.save(found, folder / f"found-{rank}")
    distributed.barrier()
    distributed.destroy_process_group()
