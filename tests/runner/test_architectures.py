"""Decoders of other families, from end to end: whatever their blocks are called with, all methods work on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qbench.errors import CellError
from qbench.methods.adaround import AdaRound
from qbench.methods.base import Method
from qbench.methods.block_ap import BlockAP
from qbench.methods.brecq import BRECQ
from qbench.methods.gptq import GPTQ
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.rtn import RoundToNearest
from qbench.methods.sequential import full_precision_hessians
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.runner.targets import make_problem
from qbench.store.record import Record
from qbench.suite.cell import Cell
from qbench.tasks import tokenizer as embedded
from qbench.tasks.causal_lm import CausalLM
from qbench.tasks.torchvision_ops import declare_missing_operators

SMALL: dict[str, Any] = {
    "window": 32,
    "evaluation_windows": 4,
    "calibration_windows": 6,
    "passages": 1,
    "choices": 2,
}
SIZES: dict[str, Any] = {
    "vocab_size": embedded.VOCAB_SIZE,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GRID = AbsMax.model_validate({"name": "absmax", "granularity": {"per_group": 16}})
GROUPED: dict[str, Any] = {"num_key_value_heads": 1, "head_dim": 12}
METHODS: list[Method] = [
    RoundToNearest(name="rtn"),
    GPTQ(name="gptq"),
    GPTQ(name="gptq", true_sequential=True),
    AdaRound(name="adaround", iterations=20),
    StraightThroughQAT(name="ste_qat", steps=2, batch_size=2),
    LearnedStepSize(name="lsq", steps=2, batch_size=2),
    BRECQ(name="brecq", iterations=3),
    BlockAP(name="block_ap", epochs=1),
]
# Family, what its configuration needs beside the sizes, linear layers a block, what else its blocks hold.
FAMILIES: list[tuple[str, dict[str, Any], int, str]] = [
    ("Llama", {"tie_word_embeddings": False}, 7, "lm_head"),
    ("Mistral", {**GROUPED, "sliding_window": 8}, 7, "norm"),
    ("Qwen2", GROUPED, 7, "q_proj.bias"),
    ("Qwen3", GROUPED, 7, "q_norm"),
    ("Gemma2", {**GROUPED, "sliding_window": 8}, 7, "post_feedforward_layernorm"),
    ("Gemma3", {**GROUPED, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, 7, "k_norm"),
    ("GPTNeoX", {}, 4, "query_key_value.bias"),
    ("OPT", {"ffn_dim": 40, "word_embed_proj_dim": 24}, 6, "embed_positions"),
    ("Phi", {}, 6, "dense.bias"),
    ("GPT2", {"n_embd": 24, "n_head": 2, "n_layer": 2}, 4, "c_attn.bias"),
    ("Mixtral", {"num_key_value_heads": 1, "num_local_experts": 2}, 4, "experts.gate_up_proj"),
]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., CausalLM]:
    def saved(family: str, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> CausalLM:
        declare_missing_operators()
        import transformers

        text = "Text" if family == "Gemma3" else ""
        config = getattr(transformers, f"{family}{text}Config")(**{**SIZES, **options})
        torch.manual_seed(0)
        kind = f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
        getattr(transformers, kind)(config).to(dtype).save_pretrained(tmp_path / "model")
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=embedded.load_tokenizer(), eos_token=embedded.END_OF_TEXT
        ).save_pretrained(tmp_path / "model")
        return CausalLM(name="causal_lm", title=family.lower(), path=tmp_path / "model", **SMALL)

    return saved


@pytest.fixture
def run(tmp_path: Path) -> Callable[[CausalLM, Method | None], Record]:
    session = Session("cpu")

    def run(model: CausalLM, method: Method | None) -> Record:
        quantized = (GRID, 3, method) if method is not None else (None, None, None)
        cell = Cell(model, *quantized, 0, ("loss", "bits_per_byte", "next_sentence"))
        return execute(identify(cell), "test", session, tmp_path / "weights")

    return run


@pytest.mark.parametrize(("family", "options", "layers", "left"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_all_methods_on_a_family(
    saved: Callable[..., CausalLM],
    run: Callable[[CausalLM, Method | None], Record],
    family: str,
    options: dict[str, Any],
    layers: int,
    left: str,
) -> None:
    model = saved(family, options)
    full = run(model, None)
    assert full.clean, (full.reason, full.facts.get("traceback"))
    for method in METHODS:
        record = run(model, method)
        assert record.clean, (method.label(), record.reason, record.facts.get("traceback"))
        assert record.facts["quantized_layers"] == 2 * layers
        assert left in record.facts["floating_point"].split(", ")
        assert all(row.levels <= 8 for row in record.layers)


@pytest.mark.parametrize(("family", "options", "layers", "left"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_block_by_block_a_layer_gets_what_it_gets_in_the_whole_model(
    saved: Callable[..., CausalLM], family: str, options: dict[str, Any], layers: int, left: str
) -> None:
    model = saved(family, options)
    task = model.load(0, "cpu")
    cell = Cell(model, AbsMax(name="absmax"), 3, METHODS[0], 0, ("loss",))
    problem = make_problem(task, task.model, cell, lambda place: choose_grid(place.weight, GRID, 3))
    found = full_precision_hessians(problem)
    assert len(found) == 2 * layers
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in found}
    for name in found:
        task.model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen[name].append(args[0].flatten(0, -2))
        )
    with torch.no_grad():
        for batch in task.calibration:
            task.forward(task.model, batch)
    for name, hessian in found.items():
        x = torch.cat(seen[name])
        torch.testing.assert_close(hessian[0], x.T @ x / len(x), rtol=1e-4, atol=1e-5 * float(hessian.abs().max()))


def test_a_model_stored_in_half_precision(
    saved: Callable[..., CausalLM], run: Callable[[CausalLM, Method | None], Record]
) -> None:
    model = saved("Llama", {}, torch.bfloat16)
    for method in (None, *METHODS):
        record = run(model, method)
        assert record.clean, (record.reason, record.facts.get("traceback"))


def test_a_weight_that_is_not_a_number_is_named_with_its_layer(
    saved: Callable[..., CausalLM], run: Callable[[CausalLM, Method | None], Record], tmp_path: Path
) -> None:
    model = saved("Llama", {})
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    full, record = run(model, None), run(model, METHODS[0])
    assert full.status == record.status == "failed"
    assert full.reason == "the model's own 'model.layers.1.mlp.up_proj.weight' holds NaN or infinite values"
    assert record.reason == (
        "layer 'model.layers.1.mlp.up_proj': weight of shape (40, 24) holds NaN or infinite values: it cannot be "
        "quantized"
    )


def test_blocks_without_layers_to_quantize_are_refused_by_what_they_hold(saved: Callable[..., CausalLM]) -> None:
    model = saved("Llama", {})
    task = model.load(0, "cpu")
    for block in task.model.model.layers:
        block.self_attn, block.mlp = torch.nn.Identity(), torch.nn.Conv1d(24, 24, 1)
    cell = Cell(model, AbsMax(name="absmax"), 3, METHODS[0], 0, ("loss",))
    with pytest.raises(CellError) as caught:
        make_problem(task, task.model, cell, lambda place: choose_grid(place.weight, GRID, 3))
    refusal = "llama: the blocks hold no Linear, Conv2d or Conv1D layer (they hold Conv1d, Identity, "
    assert str(caught.value).startswith(refusal)


def test_what_is_left_in_floating_point_is_named_once_and_ties_are_told(
    saved: Callable[..., CausalLM], run: Callable[[CausalLM, Method | None], Record]
) -> None:
    record = run(saved("Llama", {"tie_word_embeddings": True}), METHODS[0])
    assert record.facts["floating_point"] == (
        "embed_tokens = lm_head (tied), input_layernorm, post_attention_layernorm, norm"
    )
