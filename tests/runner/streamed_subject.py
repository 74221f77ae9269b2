"""Run as a program: execute cells of a streamed Llama whose weights are drawn when they are asked for.

Prints as JSON, for each method, what the record says of memory, and what the process had before it began.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qbench.geometry.base import Probe
from qbench.geometry.margin import LayerMargins, Margin
from qbench.methods.gptq import GPTQ
from qbench.methods.rtn import RoundToNearest
from qbench.quantizers.absmax import AbsMax
from qbench.runner import machine
from qbench.runner.execute import execute
from qbench.runner.identity import PlannedCell
from qbench.runner.session import Session
from qbench.runner.streamed_memory import peak_of
from qbench.suite.cell import Cell
from qbench.tasks import tokenizer as embedded
from qbench.tasks.causal_lm import PretrainedLM
from qbench.tasks.lazy_checkpoint import LazyCheckpoint
from qbench.tasks.streamed_model import StreamedModel, StreamedTask, build_frame
from qbench.tasks.torchvision_ops import declare_missing_operators


class DrawnCheckpoint(LazyCheckpoint):
    """A checkpoint that is nowhere: a tensor is drawn from its name."""

    def __init__(self, shapes: dict[str, torch.Size]) -> None:
        self._shapes = shapes

    def names(self) -> frozenset[str]:
        return frozenset(self._shapes)

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for name in names:
            shape = self._shapes[name]
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            drawn = torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator).mul_(0.02)
            yield name, drawn


class DrawnLlama(PretrainedLM):
    """A Llama of given sizes with drawn weights."""

    sizes: dict[str, int]

    def load(self, seed: int, device: str) -> StreamedTask:
        declare_missing_operators()
        import transformers

        frame = build_frame(transformers.LlamaConfig(**self.sizes), getattr(torch, self.dtype))
        shapes = {name: tensor.shape for name, tensor in frame.state_dict().items()}
        model = StreamedModel(frame, DrawnCheckpoint(shapes), self.label(), device)
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=embedded.load_tokenizer(), eos_token=embedded.END_OF_TEXT
        )
        return StreamedTask(model, fast, self.text, self, seed, device)

    def label(self) -> str:
        return self.name


def measure(given: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    torch.set_num_threads(given.pop("threads", 1))
    methods: dict[str | None, Any] = {None: None, "rtn": RoundToNearest(name="rtn"), "gptq": GPTQ(name="gptq")}
    methods |= {"margin": Margin(name="margin"), "layer_margins": LayerMargins(name="layer_margins")}
    names = given.pop("methods")
    sizes = given.pop("sizes")
    session = Session("cpu")
    machine.warm_up("cpu")
    found = []
    for own in sizes:
        spec = DrawnLlama(name="drawn", device_map="streamed", sizes=own, **given)
        found += [_measured(spec, name, methods[name], session, folder) for name in names]
    return found


def _measured(spec: DrawnLlama, name: str | None, method: Any, session: Session, folder: Path) -> dict[str, Any]:
    quantizer = AbsMax.model_validate({"name": "absmax", "granularity": {"per_group": 64}})
    probe = method if isinstance(method, Probe) else None
    grid = (None, None) if method is None else (quantizer, 4)
    cell = Cell(spec, *grid, None if probe else method, 0, ("loss",), probe=probe)
    started = time.monotonic()
    record = execute(PlannedCell(cell, {}, "0" * 64), "test", session, folder / "weights.safetensors")
    seconds = time.monotonic() - started
    parts = peak_of(session.task(cell), cell)
    return {
        "method": name,
        "reason": record.reason and record.facts.get("traceback", record.reason),
        "peak": record.cost.peak_memory_bytes,
        "estimate": record.facts.get("memory_estimate_bytes"),
        "parts": parts,
        "seconds": seconds,
        "layers": len(record.layers),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(json.loads(sys.argv[1]), Path(sys.argv[2]))))
