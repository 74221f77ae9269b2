"""What a cell will need in memory, told from the shapes of its layers before anything runs.

The formulas are in docs/memory.md. They leave out what is small beside the rest, and what a process needs for itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

from qbench.errors import CellError
from qbench.methods.adamw_8bit import BLOCK
from qbench.methods.base import Method
from qbench.methods.matrices import to_matrix
from qbench.methods.problem import Problem, TargetLayer
from qbench.methods.training_options import WeightTraining
from qbench.suite.cell import Cell

PROCESS = 768 << 20
"""What a process on a CPU holds beside a cell: Python, torch, transformers, tokenizer and texts."""

CLEARLY = 1.5
"""A cell is refused where it needs this many times what is free: an estimate can be wrong by that much."""

_EVALUATED_ROWS, _EVALUATED_LOGITS = 32, 256 << 20  # an evaluation batch of language models has no more of either
_LOGIT_COPIES = 4  # beside themselves: a copy in float32, its log softmax, and the gradients of both
_RESIDUAL = 4  # numbers a token and feature that norms and residual sums of a block keep beside its layers


@dataclass(frozen=True)
class Estimate:
    """What is in memory at the peak of a cell.

    Attributes
    ----------
    parts : dict of str to int
        Bytes, by what takes them.
    held : int
        Bytes of these that the process has already when the cell begins.
    cures : tuple of str
        What would lower it.
    """

    parts: dict[str, int]
    held: int
    cures: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())

    def require(self, free: int, device: str) -> None:
        """Make sure that a cell has what it needs, as far as an estimate can tell.

        Parameters
        ----------
        free : int
            Bytes that can still be had; see `free_memory`.
        device : str
            Torch device.

        Raises
        ------
        CellError
            It needs clearly more.
        """
        needed = self.total - self.held
        if needed <= CLEARLY * free:
            return
        largest = sorted(self.parts.items(), key=lambda part: -part[1])
        parts = ", ".join(f"{name} {_in_words(size)}" for name, size in largest if size >= 0.01 * self.total)
        cures = f" (less with {', '.join(self.cures)})" if self.cures else ""
        raise CellError(
            f"needs about {_in_words(needed)} more memory on {device}, and {_in_words(free)} are free: {parts}{cures}"
        )


def estimate(cell: Cell, problem: Problem) -> Estimate:
    """Return what a cell with a method will need.

    Parameters
    ----------
    cell : Cell
        Quantized, or a full-precision control.
    problem : Problem
        On the full-precision model itself; its grids do not matter.
    """
    if isinstance(cell.method, WeightTraining):
        return training_memory(problem, cell.method, quantized=cell.bits is not None, watched=bool(cell.trajectory))
    assert isinstance(cell.method, Method)
    return quantization_memory(problem, cell.method)


def training_memory(
    problem: Problem, options: WeightTraining, *, quantized: bool = True, watched: bool = False
) -> Estimate:
    """Return what training the target layers of a model will need.

    Parameters
    ----------
    problem : Problem
        On the full-precision model itself.
    options : WeightTraining
        Budget, optimizer, and what is done to save memory.
    quantized : bool
        Whether weights go through a quantizer.
    watched : bool
        Whether the way of the training is measured, in a model of its own.
    """
    shapes = ModelShapes(problem)
    weights, own = shapes.weights, shapes.weight_bytes
    half = own < 4 * weights
    parts = {"models": 2 * shapes.model_bytes}
    if quantized or half:
        parts["latent weights"] = 4 * weights
    if quantized:
        parts |= {"first weights": own, "Hessians": shapes.hessians}
    parts["gradients"] = own + (4 * weights if half else 0)
    parts["optimizer"] = _optimizer(options, weights)
    distilled = bool(getattr(options, "distillation", 0.0))
    if distilled:
        parts["teacher"] = shapes.model_bytes
    autocast = options.precision == "bfloat16"
    size = 2 if autocast else shapes.number_bytes
    if autocast:
        parts["weights in bfloat16"] = 2 * shapes.multiplied * (1 + distilled)
    rows = options.batch_size // options.accumulation
    kept = shapes.kept_by_block(rows)
    if options.gradient_checkpointing and len(kept) > 1:
        parts["activations"] = (shapes.between_blocks(rows) * len(kept) + max(kept)) * size
    else:
        parts["activations"] = sum(kept) * size
    logits = shapes.logits(rows)
    parts["logits"] = logits * (size + 4 * _LOGIT_COPIES) + distilled * logits * (size + 4 * 2)
    if watched:
        parts["trajectory"] = 2 * shapes.model_bytes + 8 * weights
    if options.ranks > 1:
        from qbench.runner.rank_memory import parts_of_ranks  # here, so that other cells do not come by it

        on_gpu = next(problem.model.parameters()).is_cuda
        parts = parts_of_ranks(parts, options.ranks, shapes.model_bytes, own_device=on_gpu)
    # What comes when the training is over takes the place of what is gone by then.
    codes = 4 * weights if quantized else 0
    parts["codes"] = max(0, codes - parts["activations"] - parts["logits"])
    deployed = parts["models"] + parts.get("Hessians", 0) + codes + shapes.evaluation
    parts["evaluation"] = max(0, deployed - sum(parts.values()))
    return Estimate(parts, shapes.model_bytes, _cures(options))


def quantization_memory(problem: Problem, method: Method) -> Estimate:
    """Return what post-training quantization of a model that is in memory as a whole will need.

    Parameters
    ----------
    problem : Problem
        On the full-precision model itself.
    method : Method
        Whatever it is: the working tensors of one block are taken to be those of GPTQ.
    """
    shapes = ModelShapes(problem)
    rows = sum(len(batch) for batch in problem.calibration)
    parts = {
        "models": 2 * shapes.model_bytes,
        "Hessians": shapes.hessians,
        "codes": 4 * shapes.weights,
        "hidden states": 3 * shapes.between_blocks(rows) * shapes.number_bytes,
        "one block": 3 * shapes.largest_hessians + 8 * shapes.largest_block,
        "evaluation": shapes.evaluation,
    }
    if shapes.weight_bytes < 4 * shapes.weights:
        parts["weights in float32"] = 4 * shapes.weights
    streams = getattr(method, "block_by_block", False) and shapes.is_language
    return Estimate(parts, shapes.model_bytes, ("device_map: streamed on the model",) if streams else ())


def free_memory(device: str) -> int:
    """Return the bytes that this process can still get on a device; on a CPU within the limit of its control group."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info()
        return int(free) + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return min([int(psutil.virtual_memory().available), *_control_groups()])


def _control_groups(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return what the limits of Linux control groups leave, in versions 2 and 1."""
    found = []
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            most, now = int((root / limit).read_text()), int((root / used).read_text())
            cached = dict(line.split() for line in (root / stat).read_text().splitlines())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        # Files that were read lately are given up before anything is refused.
        found.append(max(0, most - now + int(cached.get("inactive_file", 0))))
    return found


def _in_words(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _optimizer(options: WeightTraining, weights: int) -> int:
    if options.optimizer == "sgd":
        return 4 * weights if options.momentum else 0
    return 8 * weights if options.optimizer_state == "float32" else 2 * weights + 8 * weights // BLOCK


def _cures(options: WeightTraining) -> tuple[str, ...]:
    cures = []
    if not options.gradient_checkpointing and options.bn_training == "freeze":
        cures.append("gradient_checkpointing: true")
    if options.accumulation < options.batch_size and options.bn_training == "freeze":
        cures.append(f"accumulation: {options.batch_size}")
    if options.optimizer_state == "float32" and options.optimizer == "adamw":
        cures.append("optimizer_state: 8bit")
    return tuple(cures)


class ModelShapes:
    """What a problem's model and target layers measure."""

    def __init__(self, problem: Problem) -> None:
        self._problem, model = problem, problem.model
        layers = [[_shape(layer) for layer in block.layers] for block in problem.blocks]
        sizes = [layer.weight.element_size() for layer in problem.layers]
        self._config = getattr(model, "config", None)
        self.model_bytes = sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))
        self.weights = sum(rows * columns for block in layers for rows, columns in block)
        self.weight_bytes = sum(layer.weight.numel() * layer.weight.element_size() for layer in problem.layers)
        self.number_bytes = max(sizes, default=4)
        by_block = [_hessians(block) for block in layers]
        self.hessians, self.largest_hessians = sum(by_block), max(by_block, default=0)
        self.largest_block = max((sum(math.prod(one) for one in block) for block in layers), default=0)
        self.multiplied = sum(weight.numel() for module in model.modules() for weight in _multiplied(module))
        self.is_language = hasattr(self._config, "vocab_size") and not hasattr(model, "classifier")
        first = problem.calibration[0]
        self._row_tokens = problem.tokens_of(first) // max(1, len(first)) if self.is_language else 1
        self._seen = None if self.is_language else _outputs(problem)

    def _number(self, *names: str) -> int:
        for name in names:
            found: int | None = getattr(self._config, name, None)
            if found:
                return found
        return 0

    @property
    def evaluation(self) -> int:
        """Return the bytes of logits, and of their copies, in an evaluation batch."""
        return _LOGIT_COPIES * min(_EVALUATED_LOGITS, 4 * self.logits(_EVALUATED_ROWS))

    def between_blocks(self, rows: int) -> int:
        """Return the numbers that are handed from one block to the next."""
        if self._seen is not None:
            return rows * max((size for size, _ in self._seen), default=0)
        return rows * self._row_tokens * self._number("hidden_size", "n_embd", "d_model")

    def kept_by_block(self, rows: int) -> list[int]:
        """Return the numbers that each block keeps for the backward pass."""
        if self._seen is not None:
            return [rows * inside for _, inside in self._seen]
        hidden, tokens = self._number("hidden_size", "n_embd", "d_model"), rows * self._row_tokens
        eager = getattr(self._config, "_attn_implementation", "eager") == "eager"
        scores = 2 * self._number("num_attention_heads", "n_head") * self._row_tokens if eager else 0
        beside = _RESIDUAL * hidden + scores
        return [tokens * (self._layers_a_token(block.layers) + beside) for block in self._problem.blocks]

    def _layers_a_token(self, layers: Sequence[TargetLayer]) -> int:
        experts = self._number("num_experts", "num_local_experts", "n_routed_experts")
        active = self._number("num_experts_per_tok")
        total = 0.0
        for layer in layers:
            share = active / experts if experts and active and ".experts." in layer.name else 1.0
            total += share * sum(_shape(layer))
        return round(total)

    def logits(self, rows: int) -> int:
        """Return the numbers that a model predicts of so many windows."""
        return rows * self._row_tokens * self._number("vocab_size") if self.is_language else 0


def _shape(layer: TargetLayer) -> tuple[int, int]:
    rows, columns = to_matrix(layer.module, layer.weight).shape
    return rows, columns


def _hessians(block: Sequence[tuple[int, int]]) -> int:
    """Return the bytes of the second moments of a block's inputs; about two layers share one."""
    widths = Counter(columns for _, columns in block)
    return sum(4 * columns * columns * -(-count // 2) for columns, count in widths.items())


def _multiplied(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that autocast keeps a copy of: those that go into products."""
    product = isinstance(module, nn.Linear | nn.Conv2d) or type(module).__name__ == "Conv1D"
    return list(module.parameters(recurse=False)) if product else []


@torch.no_grad()
def _outputs(problem: Problem) -> list[tuple[int, int]]:
    """Return the numbers of a block's output, and of the outputs of all modules in it, for one sample.

    Blocks of models on images can have any shape inside: they are run once on one image, in evaluation mode.
    """
    sizes: dict[nn.Module, int] = {}

    def note(module: nn.Module, args: object, output: object) -> None:
        sizes[module] = sizes.get(module, 0) + _numbers(output)

    model = problem.model
    modes = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        problem.forward(model.eval(), problem.calibration[0][:1])
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    found = []
    for block in problem.blocks:
        leaves = [one for one in block.module.modules() if not any(True for _ in one.children())]
        found.append((sizes.get(block.module, 0), sum(sizes.get(one, 0) for one in leaves)))
    return found


def _numbers(output: object) -> int:
    if isinstance(output, torch.Tensor):
        return output.numel()
    if isinstance(output, Mapping):
        return sum(_numbers(one) for one in output.values())
    return sum(_numbers(one) for one in output) if isinstance(output, tuple | list) else 0
