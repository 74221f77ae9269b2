"""Language models of transformers, as they are loaded from a folder or a repository."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from qbench.errors import AssetError
from qbench.tasks.language import LanguageTask
from qbench.tasks.model_config import require_positions
from qbench.tasks.streamed_model import StreamedModel, StreamedTask, load_streamed
from qbench.tasks.torchvision_ops import declare_missing_operators

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from qbench.tasks.causal_lm import PretrainedLM


def load_pretrained(spec: PretrainedLM, seed: int, device: str) -> LanguageTask:
    """Load a model from a folder or a repository, in the number format that it asks for; see `PretrainedLM.load`.

    Raises
    ------
    AssetError
        There is no causal LM with a fast tokenizer in that place, or the two do not belong together.
    """
    declare_missing_operators()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place, pins = spec.place()
    dtype: torch.dtype = getattr(torch, spec.dtype)
    streamed: StreamedModel | None = None
    try:
        if spec.device_map == "streamed":
            streamed = load_streamed(place, pins, spec.label(), dtype, device)
            model: Any = streamed.frame
        else:
            # Otherwise transformers asks a bot of the hub to convert a repository that has no safetensors.
            os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
            model = AutoModelForCausalLM.from_pretrained(
                place,
                dtype=dtype,
                use_safetensors=spec.has_safetensors(),
                weights_only=True,
                trust_remote_code=False,
                **pins,
            )
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **pins)
    except AssetError:
        raise
    except Exception as error:  # transformers, safetensors and tokenizers each raise kinds of their own
        said = " ".join(str(error).split())
        reason = said if len(said) <= 200 else f"{said[:197]}..."
        raise AssetError(f"{spec.label()}: no model can be loaded from {place}: {reason}") from error
    require_positions(model.config.to_dict(), spec.window, spec.label())
    if not getattr(tokenizer, "is_fast", False):
        raise AssetError(f"{spec.label()}: {place} has no fast tokenizer (a tokenizer.json)")
    rows = cast("Tensor", model.get_input_embeddings().weight).shape[0]
    if len(tokenizer) > rows:
        raise AssetError(
            f"{spec.label()}: the tokenizer in {place} has {len(tokenizer)} tokens, the embedding {rows}: "
            "they do not belong together"
        )
    fast = cast("PreTrainedTokenizerFast", tokenizer)
    if streamed is not None:
        return StreamedTask(streamed, fast, spec.text, spec, seed, device)
    return LanguageTask(model, fast, spec.text, spec, seed, device)
