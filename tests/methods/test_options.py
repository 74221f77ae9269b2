"""Options of the methods: what is read, what is refused, and what a table calls them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from qbench.registry import METHODS
from qbench.spec import Spec

BUDGET: dict[str, Any] = {
    "steps": 7,
    "batch_size": 3,
    "learning_rate": 0.125,
    "optimizer": "sgd",
    "momentum": 0.5,
    "schedule": "constant",
    "clip_norm": None,
    "bn": "recalibrate",
    "bn_training": "update",
    "precision": "bfloat16",
}
# What goes with neither SGD nor the training of batch norms.
MEMORY: dict[str, Any] = {
    "batch_size": 6,
    "gradient_checkpointing": True,
    "accumulation": 3,
    "optimizer_state": "8bit",
}
TRAINING = ["ste_qat", "lsq", "latent_grad", "noise_grad", "random_grad", "ft_then_ptq"]
# Every option of each method, away from its default.
CHANGED: dict[str, dict[str, Any]] = {
    "rtn": {"bn": "recalibrate"},
    "gptq": {
        "bn": "recalibrate",
        "percdamp": 0.05,
        "block_size": 32,
        "act_order": False,
        "group_scales": "fresh",
        "true_sequential": True,
        "cd_sweeps": 2,
    },
    "adaround": {
        "bn": "fold",
        "iterations": 7,
        "learning_rate": 0.125,
        "regularization": 0.25,
        "beta_start": 15.0,
        "beta_end": 3.0,
        "schedule": "cosine",
        "warm_start": 0.5,
        "cd_sweeps": 0,
        "true_sequential": False,
        "inputs": "quantized",
        "objective": "activation",
        "batch_iterations": 7,
        "batch_size": 3,
        "batch_learning_rate": 0.25,
    },
    "brecq": {
        "bn": "recalibrate",
        "iterations": 7,
        "batch_size": 3,
        "learning_rate": 0.125,
        "regularization": 0.25,
        "beta_start": 15.0,
        "beta_end": 3.0,
        "schedule": "cosine",
        "warm_start": 0.5,
        "loss": "fisher",
        "init": "adaround",
    },
    "block_ap": {
        "bn": "fold",
        "epochs": 7,
        "batch_size": 3,
        "learning_rate": 0.125,
        "scale_learning_rate": 0.25,
        "train": "weights",
    },
    "ste_qat": {
        **BUDGET,
        "distillation": 0.5,
        "oscillation": "freeze",
        "oscillation_momentum": 0.1,
        "oscillation_threshold": 0.1,
        "gradient": "masked",
        "scale": "dynamic",
    },
    "lsq": {
        **BUDGET,
        "distillation": 0.5,
        "oscillation": "freeze",
        "oscillation_momentum": 0.1,
        "oscillation_threshold": 0.1,
        "init": "lsq",
        "gradient_scale": "step",
        "step_size_learning_rate": 0.25,
    },
    "latent_grad": {**BUDGET, "distillation": 0.5},
    "noise_grad": {**BUDGET, "distillation": 0.5},
    "random_grad": {**BUDGET, "distillation": 0.5},
    "ft_then_ptq": {**BUDGET, "ptq": "gptq", "grid": "given"},
    "qubo": {"bn": "fold", "sweeps": 7, "true_sequential": False, "inputs": "quantized"},
}
OUT_OF_BOUNDS: list[tuple[str, dict[str, Any]]] = [
    ("gptq", {"percdamp": 0}),
    ("gptq", {"percdamp": 1.5}),
    ("gptq", {"block_size": 0}),
    ("gptq", {"act_order": "perhaps"}),
    ("adaround", {"iterations": 0}),
    ("adaround", {"learning_rate": 0}),
    ("adaround", {"regularization": -1}),
    ("adaround", {"beta_start": 1}),
    ("adaround", {"beta_end": 1}),
    ("adaround", {"schedule": "step"}),
    ("adaround", {"warm_start": 1}),
    ("ste_qat", {"steps": 0}),
    ("ste_qat", {"batch_size": 0}),
    ("ste_qat", {"learning_rate": -1}),
    ("ste_qat", {"optimizer": "lion"}),
    ("ste_qat", {"momentum": 1, "optimizer": "sgd"}),
    ("ste_qat", {"momentum": -0.5, "optimizer": "sgd"}),
    ("lsq", {"momentum": 0.5}),
    ("ste_qat", {"schedule": "linear"}),
    ("ste_qat", {"clip_norm": 0}),
    ("ste_qat", {"gradient": "stochastic"}),
    ("gptq", {"group_scales": "stale"}),
    ("gptq", {"cd_sweeps": -1}),
    ("brecq", {"loss": "mae"}),
    ("brecq", {"batch_size": 0}),
    ("block_ap", {"epochs": 0}),
    ("block_ap", {"train": "zero_points"}),
    ("ste_qat", {"scale": "learned"}),
    ("ste_qat", {"distillation": 1.5}),
    ("ste_qat", {"oscillation": "dampen"}),
    ("ste_qat", {"bn_training": "fold"}),
    ("ste_qat", {"precision": "float16"}),
    ("ste_qat", {"accumulation": 0}),
    ("ste_qat", {"accumulation": 3, "batch_size": 8}),
    ("ste_qat", {"accumulation": 2, "bn_training": "update"}),
    ("lsq", {"gradient_checkpointing": True, "bn_training": "update"}),
    ("lsq", {"optimizer_state": "4bit"}),
    ("lsq", {"optimizer_state": "8bit", "optimizer": "sgd"}),
    ("lsq", {"ranks": 0}),
    ("rtn", {"bn": "freeze"}),
    ("ft_then_ptq", {"ptq": "adaround"}),
    ("ft_then_ptq", {"grid": "learned"}),
    ("qubo", {"sweeps": 0}),
    ("qubo", {"inputs": "random"}),
    ("lsq", {"init": "zero"}),
    ("lsq", {"gradient_scale": "none"}),
    ("lsq", {"step_size_learning_rate": 0}),
]

# Ranks are tried where a training is shared: in test_sharding.
ALONE = {*MEMORY, "ranks"} - {"batch_size"}
EXCLUDING = [("gptq", "inputs"), *((name, field) for name in TRAINING for field in ALONE)]

each_method = pytest.mark.parametrize("name", CHANGED)


def make(name: str, **options: Any) -> Spec:
    return METHODS.get(name).model_validate({"name": name, **options})


@each_method
def test_every_option_is_tried_and_survives_json(name: str) -> None:
    method = make(name, **CHANGED[name])
    # What does not go with the others has a test of its own: see `test_options_that_exclude_others`.
    assert set(CHANGED[name]) == set(type(method).model_fields) - {"name"} - {
        field for other, field in EXCLUDING if other == name
    }
    default = make(name)
    assert all(getattr(method, field) != getattr(default, field) for field in CHANGED[name])
    for one in (method, default):
        plain = json.loads(json.dumps(one.model_dump(mode="json")))
        assert type(one).model_validate(plain) == one
        assert type(one).model_validate_json(one.model_dump_json()) == one


@each_method
def test_labels(name: str) -> None:
    assert make(name).label() == name
    changed = make(name, **CHANGED[name]).label()
    assert changed.startswith(name)
    assert all(f"{field}=" in changed for field in CHANGED[name])


@pytest.mark.parametrize("name", TRAINING)
def test_options_that_save_memory(name: str) -> None:
    method = make(name, **MEMORY)
    assert all(getattr(method, field) == value != getattr(make(name), field) for field, value in MEMORY.items())
    assert all(f"{field}=" in method.label() for field in MEMORY)
    assert type(method).model_validate_json(method.model_dump_json()) == method


def test_momentum_is_that_of_sgd() -> None:
    plain = {"optimizer": "sgd", "momentum": 0, "schedule": "constant", "clip_norm": None}
    assert make("ste_qat", **plain).label() == "ste_qat[optimizer=sgd,momentum=0,schedule=constant,clip_norm=None]"
    with pytest.raises(ValidationError, match=r"momentum 0\.5 is an option of sgd, given optimizer adamw"):
        make("ste_qat", momentum=0.5)


def test_labels_in_full() -> None:
    assert make("gptq", act_order=False, percdamp=0.05).label() == "gptq[percdamp=0.05,act_order=false]"
    assert make("rtn", bn="recalibrate").label() == "rtn[bn=recalibrate]"
    assert make("lsq", step_size_learning_rate=1e-4).label() == "lsq[step_size_learning_rate=0.0001]"


@each_method
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="nsamples"):
        make(name, nsamples=128)


@pytest.mark.parametrize(("name", "options"), OUT_OF_BOUNDS, ids=str)
def test_options_out_of_bounds_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        make(name, **options)


@pytest.mark.parametrize("name", ["gptq", "adaround", "qubo"])
def test_options_that_exclude_others(name: str) -> None:
    method = make(name, inputs="full_precision", true_sequential=False)
    assert "inputs=full_precision" in method.label()
    with pytest.raises(ValidationError, match="true_sequential"):
        make(name, inputs="full_precision", true_sequential=True)


@each_method
def test_sources_are_modules(name: str) -> None:
    import importlib

    for module in METHODS.get(name).sources:
        assert importlib.import_module(module)
