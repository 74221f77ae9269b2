"""What a layer-by-layer method solves at once: stacked matrices of layers, with the moments of their inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qbench.methods.matrices import input_groups
from qbench.methods.problem import TargetLayer
from qbench.quant.block_grid import BlockGrid, stack_rows


@dataclass(frozen=True)
class Gram:
    """Second moments of the inputs of stacked layers, averaged over calibration positions.

    Attributes
    ----------
    hessian : Tensor of shape (stacks, n, n)
        ``E[x x^T]`` of the inputs x that the quantized predecessors give.
    cross : Tensor of shape (stacks, n, n)
        ``E[x_fp x^T]``, with x_fp the same positions' inputs in the full-precision model; `hessian` itself where the
        walk was not asked for them.
    target : Tensor of shape (stacks, n, n)
        ``E[x_fp x_fp^T]``, likewise.
    """

    hessian: Tensor
    cross: Tensor
    target: Tensor

    @property
    def is_symmetric(self) -> bool:
        """Whether x_fp is x."""
        return self.cross is self.hessian


@dataclass(frozen=True)
class Inputs:
    """The inputs of a stage themselves, a tensor a calibration batch, in the shape in which the layer gets them.

    Attributes
    ----------
    seen : list of Tensor
        From the quantized predecessors.
    full : list of Tensor
        From the full-precision model; the same tensors where the walk was not asked for them.
    """

    seen: list[Tensor]
    full: list[Tensor]


@dataclass(frozen=True)
class Stage:
    """Layers that are solved together as one stack of matrices.

    Attributes
    ----------
    parts : tuple of tuple of TargetLayer
        Layers of a part share their input, and their rows lie on top of one another. A part of ordinary layers is one
        matrix of the stack, a part of convolutions with g groups is g of them. All matrices have one shape.
    gram : Gram
        Moments of the inputs, a matrix of the stack each.
    inputs : Inputs or None
        The inputs themselves, where the walk was asked to keep them; then there is one part.
    """

    parts: tuple[tuple[TargetLayer, ...], ...]
    gram: Gram
    inputs: Inputs | None = None

    @property
    def layers(self) -> list[TargetLayer]:
        """The layers of all parts."""
        return [layer for part in self.parts for layer in part]

    def places(self) -> list[slice]:
        """Return which matrices of the stack are each part's."""
        ends = torch.tensor([input_groups(part[0].module) for part in self.parts]).cumsum(0).tolist()
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def weight(self) -> Tensor:
        """Return the weights as they are now, of shape (stacks, rows, n), in float32."""
        return torch.cat([_stacked(part) for part in self.parts])

    def grid(self) -> BlockGrid:
        """Return the grids of all layers, with scales of shape (stacks, rows, n_groups)."""
        parts = []
        for part in self.parts:
            rows = [len(layer.matrix()) for layer in part]
            parts.append(stack_rows([layer.grid for layer in part], rows, input_groups(part[0].module)))
        if len(parts) == 1:
            return parts[0]
        scale, zero_point = (torch.cat([getattr(one, name) for one in parts]) for name in ("scale", "zero_point"))
        tables = [one.table for one in parts if one.table is not None]
        return replace(parts[0], scale=scale, zero_point=zero_point, table=torch.cat(tables) if tables else None)

    def wholly(self, silent: Tensor) -> Tensor:
        """Return where a whole part is silent, given which matrices are, both of shape (stacks,)."""
        return torch.cat([silent[own].all().expand(own.stop - own.start) for own in self.places()])

    def split(self, stacked: Tensor) -> dict[str, Tensor]:
        """Cut a stack into the layers' own matrices.

        Parameters
        ----------
        stacked : Tensor of shape (stacks, rows, anything)
            In the order of `weight`.

        Returns
        -------
        dict of str to Tensor of shape (rows of the layer, anything)
            By layer name.
        """
        found = {}
        for part, own in zip(self.parts, self.places(), strict=True):
            groups = own.stop - own.start
            heights = [len(layer.matrix()) // groups for layer in part]
            for layer, rows in zip(part, stacked[own].split(heights, dim=1), strict=True):
                found[layer.name] = rows.reshape(-1, stacked.shape[2])
        return found


def merge(stages: list[Stage]) -> list[Stage]:
    """Return the stages with those of one shape, on grids of one shape, put into one."""
    alike: dict[tuple[object, ...], list[Stage]] = {}
    for stage in stages:
        (part,) = stage.parts
        rows = sum(len(layer.matrix()) for layer in part) // input_groups(part[0].module)
        grid = part[0].grid
        key = (rows, stage.gram.hessian.shape[1], stage.gram.is_symmetric, grid.levels, grid.group_size)
        alike.setdefault(key, []).append(stage)
    return [same[0] if len(same) == 1 else _joined(same) for same in alike.values()]


def _joined(stages: list[Stage]) -> Stage:
    hessian = torch.cat([stage.gram.hessian for stage in stages])
    if stages[0].gram.is_symmetric:
        gram = Gram(hessian, hessian, hessian)
    else:
        cross, target = (torch.cat([getattr(stage.gram, name) for stage in stages]) for name in ("cross", "target"))
        gram = Gram(hessian, cross, target)
    return Stage(tuple(part for stage in stages for part in stage.parts), gram)


def _stacked(part: tuple[TargetLayer, ...]) -> Tensor:
    groups = input_groups(part[0].module)
    matrices = [layer.matrix() for layer in part]
    return torch.cat([matrix.view(groups, -1, matrix.shape[1]) for matrix in matrices], dim=1)
