"""The embedded Llama models as modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qbench.tasks import zoo
from qbench.tasks.llama import build_llama, checkpoint_state, load_llama

CHECKPOINT = zoo.checkpoint_path("llama-1m", 0, "decayed")
ARCHITECTURE = zoo.language_model("llama-1m").architecture


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return load_llama(ARCHITECTURE, CHECKPOINT)


def test_a_loaded_model_is_float32_and_in_evaluation_mode(model: torch.nn.Module) -> None:
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(module.training for module in model.modules())


def test_the_head_is_the_embedding(model: torch.nn.Module) -> None:
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, load_file(CHECKPOINT)["model.embed_tokens.weight"].float())


def test_the_weights_are_those_of_the_checkpoint(model: torch.nn.Module) -> None:
    stored = load_file(CHECKPOINT)
    kept = checkpoint_state(model)
    assert set(kept) == set(stored)
    assert all(torch.equal(kept[name], tensor) and tensor.dtype == torch.bfloat16 for name, tensor in stored.items())
    assert all(torch.equal(model.state_dict()[name], tensor.float()) for name, tensor in stored.items())


def test_loading_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_llama(ARCHITECTURE, CHECKPOINT)
    assert torch.equal(torch.rand(3), expected)


def test_a_new_model_depends_on_the_seed() -> None:
    def first_weight(seed: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_llama(ARCHITECTURE).model.layers[0].mlp.up_proj.weight.detach()

    assert torch.equal(first_weight(1), first_weight(1))
    assert not torch.equal(first_weight(1), first_weight(2))


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    deeper = ARCHITECTURE.model_copy(update={"num_hidden_layers": 5})
    with pytest.raises(ValueError, match=r"does not fit the architecture: missing .*layers.4"):
        load_llama(deeper, CHECKPOINT)
    strange = tmp_path / "strange.safetensors"
    save_file({**load_file(CHECKPOINT), "model.extra": torch.zeros(1)}, strange)
    with pytest.raises(ValueError, match=r"unexpected \['model.extra'\]"):
        load_llama(ARCHITECTURE, strange)
