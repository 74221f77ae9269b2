"""What a deployed solution shows of itself: errors, levels, bits, and its packed weights."""

from __future__ import annotations

import hashlib
import json
import math

import torch
from safetensors.torch import save
from torch import Tensor

from qbench.errors import CellError
from qbench.methods.problem import LayerSolution, Problem, Solution
from qbench.quant.affine import AffineGrid
from qbench.quant.packing import pack
from qbench.store.record import LayerRow


def count_levels(weight: Tensor, solution: LayerSolution) -> int:
    """Return the most distinct values that any block of a deployed weight holds.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        The weight as the model uses it.
    solution : LayerSolution
        Tells the blocks.
    """
    scale = solution.grid.scale
    if scale.shape[0] == 1:
        weight = weight.reshape(1, -1)
    width = weight.shape[1] if scale.shape[1] == 1 else solution.grid.group_size
    most = 0
    for part in weight.split(width, dim=1):
        ordered = part.sort(dim=1).values
        most = max(most, int((ordered[:, 1:] != ordered[:, :-1]).sum(dim=1).max()) + 1 if part.shape[1] > 1 else 1)
    return most


def layer_rows(
    problem: Problem, solution: Solution, originals: dict[str, Tensor], hessians: dict[str, Tensor]
) -> list[LayerRow]:
    """Describe every layer of a model that holds its deployed weights.

    Parameters
    ----------
    problem : Problem
        Its modules hold the deployed weights.
    solution : Solution
        Where they come from.
    originals : dict of str to Tensor
        The full-precision weights.
    hessians : dict of str to Tensor
        ``E[x x^T]`` of the layers' inputs in the full-precision model.

    Raises
    ------
    CellError
        A block holds more values than its code has levels, or a zero point is no level: the weights are not on the
        grid.
    """
    rows = []
    for layer in problem.layers:
        found, weight = solution.layers[layer.name], layer.module.weight.detach()
        original, hessian = originals[layer.name], hessians[layer.name]
        levels = count_levels(weight, found)
        if levels > 2**layer.grid.levels.bits:
            raise CellError(f"layer {layer.name!r} holds {levels} values in one block, more than its codes can tell")
        if not _zero_points_are_levels(found.grid):
            raise CellError(f"layer {layer.name!r} has a zero point that is not a level of its grid")
        difference = original - weight
        power = float(((original @ hessian) * original).sum())
        rows.append(
            LayerRow(
                name=layer.name,
                shape=tuple(weight.shape),
                weight_error=float(difference.square().sum() / original.square().sum().clamp(min=1e-30)),
                output_error=float(((difference @ hessian) * difference).sum()) / (power or 1.0),
                objective=found.objective,
                rtn_objective=found.rtn_objective,
                levels=levels,
                fallback=found.fallback,
                damping=found.damping,
                details=found.details,
            )
        )
    return rows


def _zero_points_are_levels(grid: AffineGrid) -> bool:
    zero_point, levels = grid.zero_point, grid.levels
    if levels.symmetric:
        return not zero_point.any()
    inside = (zero_point >= levels.quant_min) & (zero_point <= levels.quant_max)
    return bool((inside & (zero_point == zero_point.round())).all())


def weight_sqnr_db(problem: Problem, originals: dict[str, Tensor]) -> float:
    """Return ``10 log10(sum w^2 / sum (w - w_q)^2)`` over all quantized weights, in decibels."""
    signal = sum(float(original.double().square().sum()) for original in originals.values())
    noise = sum(
        float((originals[layer.name].double() - layer.module.weight.detach().double()).square().sum())
        for layer in problem.layers
    )
    return 10 * math.log10(signal / noise) if noise else math.inf


def effective_bits(solution: Solution) -> float:
    """Return the bits stored for each quantized weight: codes, float32 scales and zero points."""
    stored = sum(found.grid.stored_bits(*found.codes.shape) for found in solution.layers.values())
    return stored / sum(found.codes.numel() for found in solution.layers.values())


def left_in_floating_point(problem: Problem) -> str:
    """Return the names of all parameters that are not quantized, such as ``embed_tokens = lm_head (tied), norm``.

    A name stands once however many blocks have it, and ``weight`` at its end is left out. What a block holds beside
    linear layers (biases, the stacked matrices of experts) is named too, so that nothing is left alone in silence.
    """
    targets = {id(layer.module.weight) for layer in problem.layers}
    names: dict[int, list[str]] = {}
    for name, parameter in problem.model.named_parameters(remove_duplicate=False):
        if id(parameter) not in targets:
            parts = [part for part in name.split(".") if not part.isdigit()]
            short = parts[-2] if parts[-1] == "weight" and len(parts) > 1 else ".".join(parts[-2:])
            names.setdefault(id(parameter), []).append(short)
    unique = dict.fromkeys(" = ".join(same) + (" (tied)" if len(same) > 1 else "") for same in names.values())
    return ", ".join(unique) or "nothing"


def packed_weights(solution: Solution) -> tuple[bytes, str]:
    """Return a safetensors file with packed codes, scales and zero points, and its sha256.

    Each layer has ``<name>.codes`` (bytes, see `qbench.quant.packing`), ``<name>.scale`` and, on asymmetric grids,
    ``<name>.zero_point`` (packed like the codes); the file's metadata tells shape, bits, lowest level and group size as
    JSON.
    """
    tensors: dict[str, Tensor] = {}
    about: dict[str, dict[str, object]] = {}
    for name, found in sorted(solution.layers.items()):
        levels = found.grid.levels
        unsigned = (found.codes - levels.quant_min).to("cpu", torch.uint8)
        tensors[f"{name}.codes"] = pack(unsigned, levels.bits)
        tensors[f"{name}.scale"] = found.grid.scale.float().cpu().contiguous()
        if not levels.symmetric:
            tensors[f"{name}.zero_point"] = pack(found.grid.zero_point.to("cpu", torch.uint8), levels.bits)
        about[name] = {
            "shape": list(found.codes.shape),
            "bits": levels.bits,
            "quant_min": levels.quant_min,
            "symmetric": levels.symmetric,
            "group_size": found.grid.group_size,
        }
    data = save(tensors, metadata={"qbench": json.dumps(about, sort_keys=True)})
    return data, hashlib.sha256(data).hexdigest()
