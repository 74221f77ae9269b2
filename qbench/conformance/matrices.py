"""The weights that every quantizer is tried on: ordinary ones, and those on which range rules go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from qbench.tasks.zoo import checkpoint_path

ROWS, COLUMNS = 16, 40


@dataclass(frozen=True)
class Matrix:
    """A weight matrix with a name, and what its inputs look like.

    Attributes
    ----------
    name : str
        What is special about it.
    weight : Tensor of shape (rows, columns), float32
        The weights.
    importance : Tensor of shape (1, columns)
        ``E[x_j^2]`` of its inputs.
    is_plain : bool
        Whether the weights are spread as those of trained layers are: no rule has a reason to do badly on them.
    """

    name: str
    weight: Tensor
    importance: Tensor
    is_plain: bool = False


@cache
def matrices() -> tuple[Matrix, ...]:
    """Return the fixed matrices; 40 columns leave a shorter last group behind groups of 16 or 32."""
    chance = torch.Generator().manual_seed(20260612)
    normal = torch.randn(ROWS, COLUMNS, generator=chance)
    zeros = normal.clone()
    zeros[2], zeros[5, :32], zeros[9, 16:] = 0.0, 0.0, 0.0
    zeros[12:15] = 0.0
    constant = normal.clone()
    constant[0], constant[1], constant[2], constant[3] = 0.7, -0.3, 1e-6, 1e6
    constant[4, :16], constant[6:9] = 0.5, 0.25
    outliers = normal.clone()
    outliers[1] *= 50.0
    outliers[3, 7], outliers[8, 0] = 40.0, -90.0
    found = {
        "gaussian": normal,
        "heavy-tailed": normal**3,
        "outlier rows": outliers,
        "zero blocks": zeros,
        "constant blocks": constant,
        "positive only": normal.abs() + 0.1,
        "negative only": -normal.abs() - 0.1,
        "tiny": normal * 1e-12,
        "huge": normal * 1e12,
        "one column": normal[:, :1].clone(),
        "all zero": torch.zeros(4, COLUMNS),
        "all equal": torch.full((4, COLUMNS), 0.3),
        "trained layer": zoo_weight("model.layers.0.mlp.down_proj.weight")[:24, :200].clone(),
    }
    importance = torch.rand(1, 200, generator=chance) * 4 + 0.01
    return tuple(
        Matrix(name, weight, importance[:, : weight.shape[1]], name in ("gaussian", "trained layer"))
        for name, weight in found.items()
    )


@cache
def zoo_weight(name: str) -> Tensor:
    """Return a weight of the smallest embedded model, in float32."""
    from safetensors import safe_open

    with safe_open(checkpoint_path("llama-1m", 0, "decayed"), "pt") as file:
        weight: Tensor = file.get_tensor(name).float()
    return weight
