"""One model trained by several processes: torch's fully sharded data parallelism, seen by rows of matrices.

`torch.distributed.fsdp.fully_shard` cuts each weight along its output features, so that a rank owns whole rows of each
matrix: it alone has their latent weights, their part of the grid, their gradients and the optimizer's state for them.
A block's weights are put together while the block is run, forward and backward, and are given up again after that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed, nn

from qbench.errors import CellError
from qbench.methods.matrices import is_transposed
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.quant.block_grid import BlockGrid


class RowsOfLayer(nn.Module):
    """What stands for a layer on a rank: the layer's name for its rows, in the memory of the model's own weight.

    Parameters
    ----------
    rows : Tensor
        The rank's part of the weight.
    transposed : bool
        Whether the weight has its output features last.

    Attributes
    ----------
    weight : nn.Parameter
        The rank's part. What is written there is what the model computes with at the next step.
    holds_transposed_rows : bool
        As given; see `qbench.methods.matrices.is_transposed`.
    """

    def __init__(self, rows: Tensor, *, transposed: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(rows)
        self.holds_transposed_rows = transposed


class Sharding:
    """The processes that train a model together, seen from one of them; torch.distributed is set up already.

    Parameters
    ----------
    rank, count : int
        Which process this is, and of how many.

    Attributes
    ----------
    rank, count : int
        As given.
    teacher : nn.Module or None
        A copy of the model as it was, sharded too, for a training that distils from it.
    """

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count
        self.teacher: nn.Module | None = None
        self._trained: list[tuple[nn.Parameter, RowsOfLayer]] = []
        self._whole: list[nn.Parameter] = []

    def trains(self, weight: nn.Parameter, rows: RowsOfLayer) -> None:
        """Take note that a sharded weight of the model is trained, and what stands for this rank's rows of it."""
        self._trained.append((weight, rows))

    def holds_whole(self, parameter: nn.Parameter) -> None:
        """Take note of a parameter that every rank trains the same copy of."""
        self._whole.append(parameter)

    def begin(self, model: nn.Module) -> None:
        """Have gradients of what is trained, and of nothing else in the model."""
        model.requires_grad_(requires_grad=False)
        for weight, _ in self._trained:
            weight.requires_grad_()

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks, the same bits on each of them."""
        found = value.clone()
        distributed.all_reduce(found)
        return found

    def share_of(self, batch: Any) -> Any:
        """Return this rank's part of a step's batch: as many rows as the others have, in the order of the ranks."""
        rows = len(batch) // self.count
        return batch[self.rank * rows : (self.rank + 1) * rows]

    def hand_over_gradients(self) -> None:
        """Add to each layer's rows the gradient that FSDP has averaged over the ranks."""
        for weight, rows in self._trained:
            if weight.grad is None:
                continue
            gradient, weight.grad = weight.grad.to_local(), None  # type: ignore[attr-defined]
            rows.weight.grad = gradient if rows.weight.grad is None else rows.weight.grad.add_(gradient)

    @torch.no_grad()
    def clip(self, parameters: Sequence[nn.Parameter], longest: float) -> None:
        """Scale gradients down where they are longer than they may be, all ranks' together."""
        whole = {id(one) for one in self._whole}
        squares = torch.zeros(2, device=parameters[0].device)  # of this rank's own, and of what every rank has
        for parameter in parameters:
            if parameter.grad is not None:
                squares[int(id(parameter) in whole)] += torch.linalg.vector_norm(parameter.grad).square()
        own, shared = squares.unbind()
        nn.utils.clip_grads_with_norm_(parameters, longest, (self.total(own) + shared).sqrt(), foreach=True)


@dataclass(frozen=True)
class RowShare:
    """A rank's rows of a layer.

    Attributes
    ----------
    sharding : Sharding
        Who has the others.
    start, stop : int
        The rows, counted in the whole layer.
    whole_scale : bool
        Whether the rows of all ranks have one scale, which every rank then has.
    """

    sharding: Sharding
    start: int
    stop: int
    whole_scale: bool


def require_shardable(problem: Problem, count: int) -> None:
    """Make sure that a problem can be shared out among processes.

    Parameters
    ----------
    problem : Problem
        Whole.
    count : int
        The processes.

    Raises
    ------
    CellError
        A layer is a convolution, has fewer rows than there are ranks or is transposed and cannot be cut evenly; a tile
        of its grid reaches over several rows; inputs are quantized; somebody wants to look on; or the batches are not
        one tensor.
    """
    here = f"ranks: {count}"
    if problem.watch is not None:
        raise CellError(
            f"{here} has no process that holds all weights for a trajectory to see (allowed: trajectory: 0)"
        )
    for layer in problem.layers:
        rows, _ = layer.matrix().shape
        if isinstance(layer.module, nn.Conv2d):
            raise CellError(f"{here} shares out rows of linear layers, and {layer.name!r} is a convolution {_ALLOWED}")
        if _uneven(rows, count) or (is_transposed(layer.module) and rows % count):
            raise CellError(f"{here} cannot share out the {rows} rows of layer {layer.name!r} {_ALLOWED}")
        if layer.grid.block_rows > 1 and layer.grid.scale.shape[0] > 1:
            raise CellError(f"{here} shares out rows, and tiles of layer {layer.name!r} reach over several {_ALLOWED}")
        if layer.activations is not None:
            raise CellError(f"{here} trains without quantized inputs, and {layer.name!r} has them {_ALLOWED}")
    if not isinstance(next(iter(problem.train_batches(count, 0))), Tensor):
        raise CellError(f"{here} shares out batches that are one tensor, and this task's are not {_ALLOWED}")


_ALLOWED = "(allowed here: ranks: 1)"


def _uneven(rows: int, count: int) -> bool:
    """Return whether the last rank would have no rows."""
    return (count - 1) * -(-rows // count) >= rows


def shard(problem: Problem, rank: int, count: int, *, teacher: bool) -> Problem:
    """Return a rank's part of a problem, whose model is sharded where it stands.

    Parameters
    ----------
    problem : Problem
        Whole, and the same on all ranks; see `require_shardable`. torch.distributed is set up.
    rank, count : int
        Which process this is, and of how many.
    teacher : bool
        Whether a copy of the model as it is now is kept to distil from.

    Returns
    -------
    Problem
        With the rank's rows of each target layer.
    """
    sharding = Sharding(rank, count)
    if teacher:
        kept = copy.deepcopy(problem.model).eval().requires_grad_(requires_grad=False)
        places = {id(module): name for name, module in problem.model.named_modules()}
        _shard_model(kept, [kept.get_submodule(places[id(block.module)]) for block in problem.blocks], [])
        sharding.teacher = kept
    targets = [layer.module.weight for layer in problem.layers]
    problem.model.requires_grad_(requires_grad=False)
    for weight in targets:
        weight.requires_grad_()
    transposed = [layer.module.weight for layer in problem.layers if is_transposed(layer.module)]
    _shard_model(problem.model, [block.module for block in problem.blocks], transposed)
    blocks = [Block(b.module, tuple(_share(layer, sharding) for layer in b.layers)) for b in problem.blocks]
    return replace(problem, blocks=blocks, sharding=sharding)


def _shard_model(model: nn.Module, blocks: Iterable[nn.Module], transposed: Sequence[Any]) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import Shard

    first = next(model.parameters())
    mesh = init_device_mesh(first.device.type, (distributed.get_world_size(),))
    along = {id(weight) for weight in transposed}
    options: dict[str, Any] = {
        "mesh": mesh,
        # Sums over ranks of a bfloat16 model's gradients would lose what each rank has found.
        "mp_policy": MixedPrecisionPolicy(reduce_dtype=torch.float32),
        "shard_placement_fn": lambda weight: Shard(1) if id(weight) in along else None,
    }
    for block in blocks:
        if block is not model:
            fully_shard(block, **options)
    fully_shard(model, **options)


def _share(layer: TargetLayer, sharding: Sharding) -> TargetLayer:
    weight: Any = layer.module.weight
    transposed = is_transposed(layer.module)
    whole = weight.shape[1] if transposed else weight.shape[0]
    each = -(-whole // sharding.count)
    start, stop = sharding.rank * each, min(whole, (sharding.rank + 1) * each)
    rows = RowsOfLayer(weight.to_local().detach(), transposed=transposed)
    sharding.trains(weight, rows)
    share = RowShare(sharding, start, stop, whole_scale=layer.grid.scale.shape[0] == 1 < whole)
    return replace(layer, module=rows, grid=_rows_of(layer.grid, whole, start, stop), share=share)


def _rows_of(grid: BlockGrid, whole: int, start: int, stop: int) -> BlockGrid:
    def rows(part: Tensor) -> Tensor:
        return part[start:stop].clone() if part.shape[0] == whole else part.clone()

    return grid.mapped(rows)


def join_grids(parts: Sequence[BlockGrid], whole: BlockGrid) -> BlockGrid:
    """Return the grid of a layer from those of the ranks' rows.

    Parameters
    ----------
    parts : sequence of BlockGrid
        In the order of the ranks.
    whole : BlockGrid
        The layer's first grid: it tells what rows have of their own.
    """

    def join(name: str) -> Tensor:
        found = [getattr(part, name) for part in parts]
        return torch.cat(found) if getattr(whole, name).shape[0] > 1 else found[0]

    table = None if whole.table is None else join("table")
    return replace(parts[0], scale=join("scale"), zero_point=join("zero_point"), table=table)
