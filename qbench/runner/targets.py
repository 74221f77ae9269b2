"""Which layers of a task are quantized, and on how many bits: from a task to a method's problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.methods.matrices import is_matrix_layer, to_matrix
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.quant.block_grid import BlockGrid
from qbench.quantizers.activations import Activations
from qbench.quantizers.base import Quantizer
from qbench.runner.handed_over import functions
from qbench.seeds import derive_seed
from qbench.suite.cell import Cell


@dataclass(frozen=True)
class GridPlace:
    """Where a grid is to be laid.

    Attributes
    ----------
    name : str
        The layer's name in the model.
    weight : Tensor of shape (rows, columns)
        Full precision.
    bits : int
        Bits a code: the cell's, or the layer's own.
    """

    name: str
    weight: Tensor
    bits: int


def make_problem(task: Any, model: nn.Module, cell: Cell, grid_of: Callable[[GridPlace], BlockGrid]) -> Problem:
    """Return what a method is asked to solve.

    Parameters
    ----------
    task : Task
        Loaded; tells blocks, data and loss.
    model : nn.Module
        The task's own or a copy.
    cell : Cell
        Its quantizer tells which layers are not on the cell's bits, or in floating point.
    grid_of : callable
        The grid of a layer.

    Raises
    ------
    CellError
        The blocks hold no layer that can be quantized, a pattern of ``layer_bits`` fits none, or a layer's grid cannot
        be laid.
    """
    found = (Block(block, targets) for block, targets in _targets(task, model, cell, grid_of))
    blocks = [block for block in found if block.layers]
    if not blocks:
        modules = dict(model.named_modules())
        kinds = sorted({type(module).__name__ for name, _ in task.blocks() for module in modules[name].modules()})
        raise CellError(
            f"{cell.model.label()}: the blocks hold no Linear, Conv2d or Conv1D layer (they hold {', '.join(kinds)})"
        )
    handed: Any = functions(task, "forward", "loss", "train_batches", "tokens_of", "predict")
    return Problem(
        model=model,
        blocks=blocks,
        calibration=task.calibration,
        **handed,
        # Not the method's name: all methods of a seed see the same data in the same order.
        seed_of=lambda purpose: derive_seed(purpose, cell.model.label(), cell.seed),
    )


def block_layers(
    task: Any, model: nn.Module, cell: Cell, index: int, grid_of: Callable[[GridPlace], BlockGrid]
) -> tuple[TargetLayer, ...]:
    """Return the target layers of one block, as `make_problem` has them: none where all of its layers are left alone.

    Parameters
    ----------
    task : Task
        Loaded; tells the blocks.
    model : nn.Module
        The weights of this block are there; those of others need not be.
    cell : Cell
        Its quantizer tells which layers are not on the cell's bits, or in floating point.
    index : int
        The block's place.
    grid_of : callable
        The grid of a layer.

    Raises
    ------
    CellError
        A pattern of ``layer_bits`` fits no layer, or a layer's grid cannot be laid.
    """
    return next(targets for _, targets in islice(_targets(task, model, cell, grid_of, index), index, None))


def left_alone(task: Any, model: nn.Module, cell: Cell) -> list[Tensor]:
    """Return the weights of layers that the quantizer leaves in floating point as the first or the last."""
    bits = _bits_by_layer(task, model, cell)
    layers = [pair for _, layers in _matrix_layers(task, model) for pair in layers]
    return [module.weight.detach() for name, module in layers if bits[name] is None]  # type: ignore[operator]


def no_grid() -> BlockGrid:
    """Return what stands for the grid of a layer that is not to be quantized."""
    levels: Any = None
    return BlockGrid(levels, torch.ones(1, 1), torch.zeros(1, 1), 1)


def _targets(
    task: Any, model: nn.Module, cell: Cell, grid_of: Callable[[GridPlace], BlockGrid], only: int | None = None
) -> Iterator[tuple[nn.Module, tuple[TargetLayer, ...]]]:
    """Yield each block with its target layers; those of one block alone where it is asked for."""
    bits = _bits_by_layer(task, model, cell)
    activations = _activations_by_layer(list(bits), cell)
    for index, (block, layers) in enumerate(_matrix_layers(task, model)):
        wanted = only is None or index == only
        yield (
            block,
            tuple(
                _target(name, module, bits[name], activations[name], cell, grid_of)
                for name, module in layers
                if wanted and bits[name] is not None
            ),
        )


def _matrix_layers(task: Any, model: nn.Module) -> Iterator[tuple[nn.Module, list[tuple[str, nn.Module]]]]:
    """Yield each block with its layers that are matrix products, by their names in the model.

    Layers that the task knows to be used without being called (their weights alone are) stay in floating point.
    """
    modules = dict(model.named_modules())
    idle: frozenset[str] = getattr(task, "idle_layers", frozenset())
    for block_name, _ in task.blocks():
        block = modules[block_name]
        # A block can be a layer itself, and the model can be the only block.
        names = [(f"{block_name}.{name}".strip("."), module) for name, module in block.named_modules()]
        yield block, [(name, module) for name, module in names if is_matrix_layer(module) and name not in idle]


def _bits_by_layer(task: Any, model: nn.Module, cell: Cell) -> dict[str, int | None]:
    """Return the bits of each layer; None for one that stays in floating point."""
    names = [name for _, layers in _matrix_layers(task, model) for name, _ in layers]
    found: dict[str, int | None] = dict.fromkeys(names, cell.bits or 0)
    if not isinstance(cell.quantizer, Quantizer):
        return found
    if cell.quantizer.layer_bits is not None:
        found |= cell.quantizer.layer_bits.of(names)
    if names and cell.quantizer.first_last != "same":
        found[names[0]] = found[names[-1]] = 8 if cell.quantizer.first_last == "8bit" else None
    return found


def _activations_by_layer(names: list[str], cell: Cell) -> dict[str, Activations | None]:
    """Return how the inputs of each layer are quantized; a layer that is kept in 8 bits takes inputs of 8 bits."""
    asked = cell.quantizer.activations if isinstance(cell.quantizer, Quantizer) else None
    found: dict[str, Activations | None] = dict.fromkeys(names, asked)
    if asked is not None and isinstance(cell.quantizer, Quantizer) and cell.quantizer.first_last == "8bit" and names:
        found[names[0]] = found[names[-1]] = asked.model_copy(update={"bits": 8})
    return found


def _target(
    name: str,
    module: nn.Module,
    bits: int | None,
    activations: Activations | None,
    cell: Cell,
    grid_of: Callable[[GridPlace], BlockGrid],
) -> TargetLayer:
    weight: Tensor = module.weight  # type: ignore[assignment]
    assert bits is not None
    try:
        grid = grid_of(GridPlace(name, to_matrix(module, weight.detach()), bits))
    except CellError as error:
        raise CellError(f"layer {name!r}: {error}") from None
    if not isinstance(cell.quantizer, Quantizer):
        return TargetLayer(name, module, grid)
    return TargetLayer(name, module, grid, cell.quantizer, activations)
