"""Tiny language models of many families as their folders are, and cells of them with one block in memory or all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qbench.geometry.base import Probe
from qbench.methods.base import Method
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.base import Quantizer
from qbench.runner.execute import execute
from qbench.runner.identity import PlannedCell
from qbench.runner.session import Session
from qbench.store.record import Record
from qbench.suite.cell import Cell
from qbench.tasks import tokenizer as embedded
from qbench.tasks.causal_lm import CausalLM
from qbench.tasks.torchvision_ops import declare_missing_operators

SMALL: dict[str, Any] = {"window": 32, "evaluation_windows": 4, "calibration_windows": 6}
SIZES: dict[str, Any] = {
    "vocab_size": embedded.VOCAB_SIZE,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GROUPED: dict[str, Any] = {"num_key_value_heads": 1, "head_dim": 12}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": True},
    "Mistral": {**GROUPED, "sliding_window": 8},
    "Qwen2": GROUPED,
    "Qwen3": GROUPED,
    "Gemma2": {**GROUPED, "sliding_window": 8},
    "Gemma3": {**GROUPED, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "GPTNeoX": {},
    "OPT": {"ffn_dim": 40, "word_embed_proj_dim": 24},
    "Phi": {},
    "GPT2": {"n_embd": 24, "n_head": 2, "n_layer": 2},
    "Falcon": {},
    "Mixtral": {"num_key_value_heads": 1, "num_local_experts": 2},
}
GRID = AbsMax.model_validate({"name": "absmax", "granularity": {"per_group": 16}})


def saved_lm(folder: Path, family: str = "Llama", shard: str = "1GB", **options: Any) -> Path:
    """Save a tiny model with random weights and the embedded tokenizer."""
    declare_missing_operators()
    import transformers

    text = "Text" if family == "Gemma3" else ""
    given = {**SIZES, **FAMILIES[family], **options}
    if "layer_types" in given:
        given["layer_types"] = given["layer_types"][: given["num_hidden_layers"]]
    config = getattr(transformers, f"{family}{text}Config")(**given)
    torch.manual_seed(0)
    kind = f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    getattr(transformers, kind)(config).save_pretrained(folder, max_shard_size=shard)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=embedded.load_tokenizer(), eos_token=embedded.END_OF_TEXT
    )
    fast.save_pretrained(folder)
    return folder


@dataclass
class Both:
    """A model's folder, with a session for each of the two ways to hold it."""

    folder: Path
    dtype: str = "float32"

    def __post_init__(self) -> None:
        self._sessions = {"whole": Session("cpu"), "streamed": Session("cpu")}

    def spec(self, device_map: str) -> CausalLM:
        """Return the model's spec."""
        given = {"device_map": device_map, "dtype": self.dtype, **SMALL}
        return CausalLM.model_validate({"name": "causal_lm", "title": "lm", "path": self.folder, **given})

    def run(self, device_map: str, method: Method | None, grid: Quantizer = GRID, bits: int = 3) -> Record:
        """Execute a cell."""
        quantized = (None, None, None) if method is None else (grid, bits, method)
        cell = Cell(self.spec(device_map), *quantized, 0, ("loss",))
        return execute(PlannedCell(cell, {}, "0" * 64), "test", self._sessions[device_map], self.weights(device_map))

    def probe(self, device_map: str, probe: Probe, grid: Quantizer = GRID, bits: int = 3) -> Record:
        """Execute the cell of a probe."""
        cell = Cell(self.spec(device_map), grid, bits, None, 0, ("loss",), probe=probe)
        return execute(PlannedCell(cell, {}, "0" * 64), "test", self._sessions[device_map], self.weights(device_map))

    def weights(self, device_map: str) -> Path:
        """Return where the packed weights go."""
        return self.folder.parent / f"{device_map}.safetensors"

    def require_same(self, method: Method | None, grid: Quantizer = GRID, bits: int = 3) -> Record:
        """Execute a cell both ways; all that they say must be the same but for what they cost."""
        whole, streamed = (self.run(device_map, method, grid, bits) for device_map in ("whole", "streamed"))
        _require_same(whole, streamed)
        if method is not None:
            assert self.weights("streamed").read_bytes() == self.weights("whole").read_bytes()
        return streamed

    def require_same_probe(self, probe: Probe, grid: Quantizer = GRID, bits: int = 3) -> Record:
        """Execute the cell of a probe both ways, likewise."""
        whole, streamed = (self.probe(device_map, probe, grid, bits) for device_map in ("whole", "streamed"))
        _require_same(whole, streamed)
        return streamed


def _require_same(whole: Record, streamed: Record) -> None:
    assert whole.status == streamed.status == "ok", (whole.reason, streamed.reason, streamed.facts.get("traceback"))
    assert streamed.facts.pop("device_map") == "streamed"
    assert streamed.facts.pop("memory_estimate_bytes") > 0
    whole.facts.pop("memory_estimate_bytes", None)  # of another way to the same numbers
    for part in ("metrics", "documents", "layers", "effective_bits", "weights_sha256", "facts", "traces"):
        assert getattr(streamed, part) == getattr(whole, part), part
    assert streamed.cost.calibration_tokens == whole.cost.calibration_tokens
