"""Errors that stand in for a rounding error: as large, weight by weight, and otherwise drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["matched", "second_order"]
"""``matched`` stands for rounding to nearest, ``second_order`` for rounding that hands errors on to later columns."""


@dataclass(frozen=True)
class Move:
    """Where the weights go for one loss.

    Attributes
    ----------
    kind : str
        See `Kind`.
    draw : int
        Number of the draw.
    layers : frozenset of str or None
        The layers that are moved; None for all.
    """

    kind: Kind
    draw: int = 0
    layers: frozenset[str] | None = None

    def moves(self, layer: str) -> bool:
        """Return whether a layer is moved."""
        return self.layers is None or layer in self.layers


def shrinkage(full: Tensor, error: Tensor) -> Tensor:
    """Return what part of each row of weights a rounding error gives or takes, ``e . w / |w|^2``.

    Parameters
    ----------
    full, error : Tensor of shape (rows, columns)
        Weights w and error e.

    Returns
    -------
    Tensor of shape (rows, 1)
        Below 0 where the row becomes shorter; 0 for a row of zeros.
    """
    length = full.square().sum(dim=1, keepdim=True)
    along = (error * full).sum(dim=1, keepdim=True)
    return torch.where(length > 0, along / length, 0.0)


def matched(full: Tensor, error: Tensor, generator: torch.Generator) -> Tensor:
    """Return an error that is random but as large as the rounding error, and shrinks the rows as much.

    Parameters
    ----------
    full, error : Tensor of shape (rows, columns)
        Weights w and their rounding error e.
    generator : torch.Generator
        On the CPU: draws are the same on every device.

    Returns
    -------
    Tensor of shape (rows, columns)
        ``a w + s r``, with ``e = a w + r``, a the row's `shrinkage`, and each sign s drawn anew.

    Notes
    -----
    A random direction in many dimensions is at right angles to w, and a rounding error is not: clipping and the level 0
    take from weights what they do not give back, so that rows become shorter. That part adds up from layer to layer
    where the random part averages out; it is kept as it is. Signs are drawn weight by weight, so that weights that lose
    little (small ones, or next to a level) lose little in the stand-in too.
    """
    along = shrinkage(full, error) * full
    signs = torch.randint(2, error.shape, generator=generator, dtype=torch.int8).to(error.device)
    return along + (error - along) * (2 * signs - 1)
