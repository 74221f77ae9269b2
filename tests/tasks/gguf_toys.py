"""A tiny Llama with the embedded tokenizer, written to a GGUF file with weights in Q4_1."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch

from qbench.tasks import tokenizer
from qbench.tasks.torchvision_ops import declare_missing_operators

HIDDEN, FEED_FORWARD, HEADS, KEY_HEADS, BLOCKS = 64, 96, 4, 2, 2
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def make_llama() -> torch.nn.Module:
    """Return a model with weights in which a wrong order of rows would show."""
    declare_missing_operators()
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.VOCAB_SIZE,
            hidden_size=HIDDEN,
            intermediate_size=FEED_FORWARD,
            num_hidden_layers=BLOCKS,
            num_attention_heads=HEADS,
            num_key_value_heads=KEY_HEADS,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            initializer_range=0.2,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()


def write_gguf(model: torch.nn.Module, file: Path) -> None:
    """Write a model of `make_llama`, and change its own weights to the de-quantised ones."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(tokenizer.VOCAB_SIZE)
    said = json.loads(tokenizer.load_tokenizer().to_str())["model"]
    tokens = sorted(said["vocab"], key=said["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * (len(tokens) - 1)])  # control, normal
    writer.add_token_merges([" ".join(pair) for pair in said["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    kind = gguf.GGMLQuantizationType
    for name, parameter in model.named_parameters():
        value = parameter.data.numpy()
        stored = kind.Q4_1 if value.ndim == 2 and "layers" in name else kind.F32
        heads = {"q_proj": HEADS, "k_proj": KEY_HEADS}.get(name.split(".")[-2])
        # llama.cpp rotates neighbours where transformers rotates halves: rows of a head are stored in another order.
        order = np.arange(len(value)) if heads is None else _interleaved(len(value), heads)
        data = gguf.quants.quantize(value[order], stored)
        writer.add_tensor(_stored_name(name), data, raw_dtype=stored)
        value[order] = gguf.quants.dequantize(data, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(rows: int, heads: int) -> np.ndarray:
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


def _stored_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, block, *rest = name.removesuffix(".weight").split(".")
        return f"blk.{block}.{NAMES['.'.join(rest)]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
