"""How much memory a cell of a streamed model takes, from shapes alone. The formula is explained in docs/memory.md."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qbench.geometry.margin import MovingProbe
from qbench.geometry.moved import each_once
from qbench.geometry.sampled_loss import sample_of
from qbench.geometry.second_order import few_of
from qbench.methods.base import Method
from qbench.methods.matrices import is_matrix_layer, to_matrix
from qbench.quantizers.base import Quantizer
from qbench.runner.hidden_states import IN_MEMORY
from qbench.runner.memory import PROCESS
from qbench.runner.targets import make_problem, no_grid
from qbench.suite.cell import Cell
from qbench.tasks.streamed_model import StreamedTask

_FLOAT = 4  # bytes of a float32, in which layers are solved
_STAGE_COPIES = 10  # of the weights of layers that are solved together: original, errors, values, codes, their parts
_HESSIAN_COPIES = 6  # of a Hessian: ordered, damped, factored, turned around
_RANGE_COPIES = 8  # of a layer's weight, while a range is chosen for it or its levels are counted
_LOADED = 2  # of a block: it is read from pages of its file, which count as long as they are in use
_WIDE, _NARROW = 4, 10  # tensors of the widest and of the hidden size that a block holds while it runs


@dataclass(frozen=True)
class Shapes:
    """What the memory of a streamed cell depends on.

    Attributes
    ----------
    outside : int
        Bytes of what lies outside of the blocks: embeddings, norm, head.
    block : int
        Bytes of the largest block.
    matrices : tuple of (int, int)
        Rows and columns of that block's layers.
    itemsize : int
        Bytes of a number of the model.
    hidden_size, vocabulary : int
        Widths of hidden states and logits.
    calibration, evaluation : tuple of int
        Tokens of the largest batch, and of all batches.
    """

    outside: int
    block: int
    matrices: tuple[tuple[int, int], ...]
    itemsize: int
    hidden_size: int
    vocabulary: int
    calibration: tuple[int, int]
    evaluation: tuple[int, int]


def streamed_peak(shapes: Shapes, inputs: str | None) -> dict[str, int]:
    """Return the most memory that a streamed cell takes, part by part.

    Parameters
    ----------
    shapes : Shapes
        Of the model and its data.
    inputs : str or None
        What the method reads, as `Method.calibrates_on` says; None for the full-precision cell.

    Returns
    -------
    dict of str to int
        Bytes: ``process``, ``outside_blocks`` and ``hidden_states``, which are there all the time, and the largest of
        what comes one after the other, ``moments``, ``solving``, ``deploying`` and ``loss``; the others are 0.
    """
    streams = [shapes.evaluation[1]]
    if inputs is not None:
        streams.append(shapes.calibration[1])
    if inputs == "quantized":
        streams.append(shapes.calibration[1])
    running = _running(shapes, max(shapes.calibration[0] if inputs is not None else 0, shapes.evaluation[0]))
    loaded = _LOADED * shapes.block
    phases = {"moments": 0, "solving": 0, "deploying": loaded + running, "loss": _logits(shapes)}
    if inputs is not None:
        weights, largest, hessians = _layers(shapes)
        kept = weights + hessians  # the originals, and the moments of the full-precision model
        phases["moments"] = loaded + hessians + _measuring(shapes) + running
        phases["solving"] = loaded + kept + weights + _solving(shapes, inputs, hessians, running, largest)
        phases["deploying"] += kept + weights + _RANGE_COPIES * largest
    return _parts(shapes, streams, phases)


@dataclass(frozen=True)
class MovedShapes:
    """What the memory of a probe depends on, beside, that moves weights.

    Attributes
    ----------
    moves : int
        Each has hidden states of its own.
    sample, few : tuple of int
        Tokens of the largest batch, and of all batches, of the evaluation windows that losses are taken on, and of the
        calibration windows that second moments are; (0, 0) where there are none.
    sees_inputs : bool
        Whether the quantizer does, on all calibration windows.
    """

    moves: int
    sample: tuple[int, int]
    few: tuple[int, int]
    sees_inputs: bool


def moved_peak(shapes: Shapes, moved: MovedShapes) -> dict[str, int]:
    """Return the most memory that a streamed cell takes whose probe moves weights, part by part.

    Parameters
    ----------
    shapes : Shapes
        Of the model and its data.
    moved : MovedShapes
        Of the probe.

    Returns
    -------
    dict of str to int
        Bytes, as `streamed_peak` has them. ``solving`` is what hands errors on, ``deploying`` is what moves.
    """
    seen = max(moved.few[0], shapes.calibration[0] if moved.sees_inputs else 0)
    calibration = moved.few[1] + (shapes.calibration[1] if moved.sees_inputs else 0)
    own = replace(shapes, calibration=(seen, calibration), evaluation=moved.sample)
    streams = [moved.few[1], calibration - moved.few[1], *[moved.sample[1]] * (1 + moved.moves)]
    running, loaded = _running(own, max(seen, moved.sample[0])), _LOADED * shapes.block
    weights, largest, hessians = _layers(shapes)
    kept = loaded + 2 * weights + (hessians if moved.few[1] else 0)  # the originals, their errors, and the factors
    widest = _FLOAT * max(columns * columns for _, columns in shapes.matrices)
    phases = {
        "moments": loaded + hessians + _measuring(own) + running if seen else 0,
        "solving": kept + hessians + max(running + _measuring(own), _HESSIAN_COPIES * widest) if moved.few[1] else 0,
        "deploying": kept + max(running, _RANGE_COPIES * largest),
        "loss": _logits(own),
    }
    return _parts(own, streams, phases)


def _parts(shapes: Shapes, streams: Sequence[int], phases: dict[str, int]) -> dict[str, int]:
    most = max(phases, key=lambda phase: phases[phase])
    return {
        "process": PROCESS,
        "outside_blocks": shapes.outside,
        "hidden_states": _in_memory([stream * shapes.hidden_size * shapes.itemsize for stream in streams]),
        **{phase: size if phase == most else 0 for phase, size in phases.items()},
    }


def _running(shapes: Shapes, tokens: int) -> int:
    """Return what a block holds while it runs on so many tokens."""
    widest = max([*(max(matrix) for matrix in shapes.matrices), shapes.hidden_size])
    return tokens * shapes.itemsize * (_WIDE * widest + _NARROW * shapes.hidden_size)


def _layers(shapes: Shapes) -> tuple[int, int, int]:
    """Return the bytes of a block's weights, of its largest layer and of its Hessians in float32."""
    sizes = [_FLOAT * rows * columns for rows, columns in shapes.matrices]
    return sum(sizes), max(sizes), _FLOAT * sum(columns * columns for _, columns in shapes.matrices)


def _measuring(shapes: Shapes) -> int:
    """Return what one batch's moments take: the product, and the inputs in float32 where they are not that already."""
    columns = max(columns for _, columns in shapes.matrices)
    copies = 0 if shapes.itemsize == _FLOAT else 2
    return _FLOAT * (columns * columns + copies * shapes.calibration[0] * columns)


def _solving(shapes: Shapes, inputs: str, hessians: int, running: int, largest: int) -> int:
    if inputs == "nothing":
        return _RANGE_COPIES * largest
    solved = 0
    for columns in {columns for _, columns in shapes.matrices}:
        # Layers of one width may share their input, and are solved together then.
        rows = sum(rows for rows, own in shapes.matrices if own == columns)
        solved = max(solved, _FLOAT * columns * (_STAGE_COPIES * rows + _HESSIAN_COPIES * columns))
    return hessians + max(running + _measuring(shapes), solved)


def _logits(shapes: Shapes) -> int:
    """Return what the loss of a batch takes: logits as the model gives them, in float32, and their logarithms."""
    return shapes.evaluation[0] * shapes.vocabulary * (shapes.itemsize + 3 * _FLOAT)


def _in_memory(streams: Sequence[int]) -> int:
    left = IN_MEMORY
    for size in streams:
        left -= size if size <= left else 0
    return IN_MEMORY - left


def shapes_of(task: StreamedTask) -> Shapes:
    """Return the shapes of a task's model and data, without any of the blocks' weights."""
    blocks = task.blocks()
    inside = {id(parameter) for _, block in blocks for parameter in block.parameters()}
    outside = [one for one in _tensors(task.model) if id(one) not in inside]
    _, block = max(blocks, key=lambda pair: _bytes(pair[1].parameters()))
    layers = [module for module in block.modules() if is_matrix_layer(module)]
    config: Any = task.model.config
    return Shapes(
        outside=_bytes(outside),
        block=_bytes(block.parameters()),
        matrices=tuple(_shape(layer) for layer in layers),
        itemsize=next(block.parameters()).element_size(),
        hidden_size=int(config.hidden_size),
        vocabulary=task.vocab_size,
        calibration=_tokens(task.calibration),
        evaluation=_tokens(task.evaluation_batches()),
    )


def peak_of(task: StreamedTask, cell: Cell) -> dict[str, int]:
    """Return the most memory that a cell of a streamed model takes, as `streamed_peak` has it."""
    shapes, method = shapes_of(task), cell.method
    if not isinstance(cell.probe, MovingProbe):
        assert method is None or isinstance(method, Method)
        return streamed_peak(shapes, None if method is None else method.calibrates_on())
    layers = make_problem(task, task.model, cell, lambda place: no_grid()).layers
    moves = each_once(cell.probe.moves(tuple(layer.name for layer in layers)))
    tokens = cell.probe.calibration_tokens
    few = few_of(task.calibration, task.tokens_of, tokens) if tokens else []
    sees_inputs = isinstance(cell.quantizer, Quantizer) and cell.quantizer.sees_inputs
    sample = _tokens(sample_of(task, cell.probe.budget).batches)
    return moved_peak(shapes, MovedShapes(len(moves), sample, _tokens(few), sees_inputs))


def _tokens(batches: Sequence[Any]) -> tuple[int, int]:
    """Return the tokens of the largest batch, and of all."""
    counts = [batch.numel() for batch in batches]
    return max(counts, default=0), sum(counts)


def estimate(task: StreamedTask, cell: Cell) -> dict[str, Any]:
    """Return what a record says of the memory that a cell of a streamed model takes.

    On a GPU this is the memory of the device, which has neither the process nor hidden states.
    """
    parts = peak_of(task, cell)
    if not task.device.startswith("cpu"):
        del parts["process"], parts["hidden_states"]
    return {"device_map": "streamed", "memory_estimate_bytes": sum(parts.values())}


def _tensors(model: Any) -> list[Any]:
    return [one for one in (*model.parameters(), *model.buffers()) if not one.is_meta]


def _bytes(tensors: Collection[Any] | Any) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def _shape(layer: Any) -> tuple[int, int]:
    rows, columns = to_matrix(layer, layer.weight).shape
    return rows, columns
