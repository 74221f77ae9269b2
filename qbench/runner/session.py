"""What a worker keeps between cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from qbench.methods.base import Deployment
from qbench.methods.batch_norm import Folding, fold
from qbench.methods.sequential import full_precision_hessians
from qbench.quant.block_grid import BlockGrid
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import choose_grid, require_same
from qbench.runner.targets import GridPlace, make_problem, no_grid
from qbench.spec import Spec
from qbench.suite.cell import Cell
from qbench.tasks import evaluation_fence


class Session:
    """What a worker keeps between cells: the loaded task, and what depends on the full-precision model alone.

    Parameters
    ----------
    device : str
        Torch device.

    Attributes
    ----------
    memory : dict
        What probes keep for one another while the task is loaded.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._key: tuple[Spec, int] | None = None
        self._task: Any = None
        self._folding: Folding | None = None
        self._hessians: dict[bool, dict[str, Tensor]] = {}
        self._grids: tuple[Any, dict[str, BlockGrid]] = (None, {})
        self.memory: dict[Any, Any] = {}

    def task(self, cell: Cell) -> Any:
        """Return the cell's task, loading it when it is not the one in hand."""
        if self._key != (cell.model, cell.seed):
            self._key, self._task, self._folding, self._hessians, self._grids = None, None, None, {}, (None, {})
            self.memory = {}
            self._task = cell.model.load(cell.seed, self.device)  # type: ignore[attr-defined]
            self._key = (cell.model, cell.seed)
        return self._task

    def folding(self, cell: Cell) -> Folding | None:
        """Return the task's model with its batch norms folded, where the cell's method wants them so; otherwise None.

        Raises
        ------
        CellError
            No batch norm of the model can be folded.
        """
        if not _folds(cell):
            return None
        task = self.task(cell)
        if self._folding is None:
            self._folding = fold(task.model, task.forward, task.calibration)
        return self._folding

    def model(self, cell: Cell) -> nn.Module:
        """Return the full-precision model that the cell starts from; it must stay as it is."""
        folding = self.folding(cell)
        found: nn.Module = self.task(cell).model if folding is None else folding.model
        return found

    def hessians(self, cell: Cell) -> dict[str, Tensor]:
        """Return the second moments of the layers' inputs in the full-precision model that the cell starts from."""
        task = self.task(cell)
        if _folds(cell) not in self._hessians:
            # Of all layers, also those that this cell's quantizer leaves alone: other cells use them too.
            everything = replace(cell, quantizer=None, bits=None)
            problem = make_problem(task, self.model(cell), everything, lambda place: no_grid())
            self._hessians[_folds(cell)] = full_precision_hessians(problem)
        return self._hessians[_folds(cell)]

    def grid(self, cell: Cell, layer: GridPlace) -> BlockGrid:
        """Return the grid of a layer; all methods of one quantizer, bitwidth and way with batch norms get the same.

        Raises
        ------
        CellError
            The quantizer gives no sound grid, or another one when it is asked again.
        """
        assert isinstance(cell.quantizer, Quantizer)
        key = (self._key, cell.quantizer, cell.bits, _folds(cell))
        if self._grids[0] != key:
            self._grids = (key, {})
        if layer.name not in self._grids[1]:
            importance = importance_of(self.hessians(cell), layer) if cell.quantizer.sees_inputs else None
            first = not self._grids[1]
            self._grids[1][layer.name] = lay_grid(self._task, cell.quantizer, layer, importance, twice=first)
        return self._grids[1][layer.name]


def lay_grid(task: Any, quantizer: Quantizer, layer: GridPlace, importance: Tensor | None, *, twice: bool) -> BlockGrid:
    """Return the grid of a layer.

    Parameters
    ----------
    task : Task
        Its evaluation data are kept from the quantizer.
    quantizer : Quantizer
        The range rule.
    layer : GridPlace
        The layer.
    importance : Tensor or None
        Of `importance_of`, for a quantizer that sees inputs.
    twice : bool
        Whether the rule is asked twice: one that draws at random shows it on any layer.

    Raises
    ------
    CellError
        The quantizer gives no sound grid, or another one when it is asked again.
    """
    with evaluation_fence.around(task):
        grid = choose_grid(layer.weight, quantizer, layer.bits, importance)
        if twice:
            require_same(grid, choose_grid(layer.weight, quantizer, layer.bits, importance), quantizer)
    return grid


def importance_of(hessians: Mapping[str, Tensor], layer: GridPlace) -> Tensor:
    """Return ``E[x_j^2]`` of a layer's inputs, of shape (1 or rows, columns)."""
    squares = hessians[layer.name].diagonal(dim1=1, dim2=2)
    return squares.repeat_interleave(len(layer.weight) // len(squares), dim=0) if len(squares) > 1 else squares


def _folds(cell: Cell) -> bool:
    return isinstance(cell.method, Deployment) and cell.method.bn == "fold"
