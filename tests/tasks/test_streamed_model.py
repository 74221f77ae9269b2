"""A model without its blocks: the rest is as transformers loads it, and a block is when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qbench.errors import AssetError
from qbench.tasks.streamed_model import StreamedModel, load_streamed
from qbench.tasks.torchvision_ops import declare_missing_operators

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def saved(folder: Path, family: str = "Llama", **options: Any) -> Path:
    declare_missing_operators()
    import transformers

    config = getattr(transformers, f"{family}Config")(**{**SIZES, **options})
    torch.manual_seed(0)
    kind = f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    getattr(transformers, kind)(config).save_pretrained(folder)
    return folder


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> StreamedModel:
    return load_streamed(str(folder), {}, "lm", dtype, "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_all_but_the_blocks_is_as_transformers_loads_it(tmp_path: Path, tied: bool, dtype: torch.dtype) -> None:
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(saved(tmp_path, tie_word_embeddings=tied), dtype=dtype)
    streamed = loaded(tmp_path, dtype)
    frame: Any = streamed.frame
    own = {**dict(frame.named_parameters()), **dict(frame.named_buffers())}
    expected = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
    assert own.keys() == expected.keys()
    for name, value in expected.items():
        if ".layers." in name:
            assert own[name].is_meta
        else:
            assert torch.equal(own[name], value), name
    assert (frame.lm_head.weight is frame.model.embed_tokens.weight) == tied
    assert not frame.training
    with streamed.block("model.layers.1") as block:
        for name, value in whole.model.layers[1].named_parameters():
            found = block.get_parameter(name)
            assert torch.equal(found, value)
            assert found.dtype == dtype
        assert block is frame.model.layers[1]
        assert all(parameter.is_meta for parameter in frame.model.layers[0].parameters())
    assert all(parameter.is_meta for parameter in frame.model.layers.parameters())


def test_what_is_written_into_a_block_is_forgotten(tmp_path: Path) -> None:
    streamed = loaded(saved(tmp_path, "GPT2", n_layer=2, n_head=2, n_embd=24))
    name = "transformer.h.0"
    with streamed.block(name) as block, torch.no_grad():
        before = block.mlp.c_fc.weight.clone()  # type: ignore[union-attr, operator]
        block.mlp.c_fc.weight.zero_()  # type: ignore[union-attr, operator]
    with pytest.raises(RuntimeError), streamed.block(name):
        raise RuntimeError
    with streamed.block(name) as block:
        assert torch.equal(block.mlp.c_fc.weight, before)  # type: ignore[union-attr, arg-type]


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path) / "model.safetensors"
    weights = load_file(file)
    for name in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
        save_file({key: value for key, value in weights.items() if key != name}, file, metadata={"format": "pt"})
        with pytest.raises(AssetError, match=f"lm: the checkpoint holds no tensor '{name}'"):
            loaded(tmp_path)


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path) / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] = torch.ones(3)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(AssetError, match=r"^lm: 'model\.norm\.weight' has shape \(3,\) in the checkpoint, \(24,\) in"):
        loaded(tmp_path)
