"""Build and load the zoo's Llama models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from qbench.tasks.tokenizer import VOCAB_SIZE
from qbench.tasks.torchvision_ops import declare_missing_operators
from qbench.tasks.zoo import Architecture

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def build_llama(architecture: Architecture) -> LlamaForCausalLM:
    """Return a freshly initialised model; draws from torch's global generator.

    Parameters
    ----------
    architecture : Architecture
        Sizes; the vocabulary is the embedded tokenizer's, the head is tied to the embedding.
    """
    declare_missing_operators()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **architecture.model_dump(),
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def load_llama(architecture: Architecture, weights: Path) -> LlamaForCausalLM:
    """Return a model in float32 with the weights of a checkpoint (stored as bfloat16)."""
    with torch.random.fork_rng(devices=[]):
        model = build_llama(architecture)
    state = {name: tensor.float() for name, tensor in load_file(weights).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"{weights} does not fit the architecture: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    model.eval()
    return model


def checkpoint_state(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    """Return the tensors a checkpoint keeps: bfloat16, contiguous, the tied head left out."""
    return {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
