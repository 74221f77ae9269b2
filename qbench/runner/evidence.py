"""What a deployed solution shows of itself: errors, levels, bits, and its packed weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from safetensors.torch import save
from torch import Tensor

from qbench.errors import CellError
from qbench.methods.batch_norm import Folding
from qbench.methods.problem import LayerSolution, Problem, Solution
from qbench.quant.activation import pack_input
from qbench.quant.block_grid import dequantize, quantize
from qbench.quant.packed_layer import pack_layer
from qbench.quant.scale_format import FLOAT32
from qbench.quantizers.activations import Activations
from qbench.quantizers.layout import zero_points_fit
from qbench.registry import METHODS, MODELS, QUANTIZERS
from qbench.runner.packed_file import with_metadata
from qbench.store.record import LayerRow
from qbench.suite.cell import Cell
from qbench.suite.plugins import file_name


def count_levels(weight: Tensor, solution: LayerSolution) -> int:
    """Return the most distinct values that any block of a deployed weight holds.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
        The weight as the model uses it.
    solution : LayerSolution
        Tells the blocks.
    """
    grid = solution.grid
    codes = quantize(weight, grid)
    exact = torch.equal(dequantize(codes, grid), weight)
    width = weight.shape[1] if grid.scale.shape[1] == 1 else grid.group_size
    rows = len(weight) if grid.scale.shape[0] == 1 else grid.block_rows
    if exact:
        # Every weight is a level to the bit: counting codes is several times faster than sorting weights.
        places = (codes - grid.levels.quant_min).long()
        seen = [
            torch.zeros(len(part), grid.levels.count, dtype=torch.bool, device=part.device).scatter_(1, part, True)
            for part in _blocks(places, rows, width)
        ]
        return max(int(part.sum(dim=1).max()) for part in seen)
    most = 0
    for part in _blocks(weight, rows, width):
        ordered = part.sort(dim=1).values
        most = max(most, int((ordered[:, 1:] != ordered[:, :-1]).sum(dim=1).max()) + 1 if part.shape[1] > 1 else 1)
    return most


def _blocks(matrix: Tensor, rows: int, width: int) -> Iterator[Tensor]:
    """Yield the blocks of a matrix, of so many rows and columns, a block a row of what is yielded."""
    for band in [matrix] if rows == 1 else matrix.split(rows):
        for part in band.split(width, dim=1):
            yield part if rows == 1 else part.reshape(1, -1)


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
        Matrices of shape (rows, columns).
    hessians : dict of str to Tensor
        ``E[x x^T]`` of the layers' inputs in the full-precision model, of shape (groups, columns, columns).

    Raises
    ------
    CellError
        A block holds more values than its code has levels, or a zero point is no level: the weights are not on the
        grid.
    """
    rows = []
    for layer in problem.layers:
        found, weight = solution.layers[layer.name], layer.matrix()
        original, hessian = originals[layer.name], hessians[layer.name]
        levels = count_levels(weight, found)
        if levels > layer.grid.levels.count:
            raise CellError(f"layer {layer.name!r} holds {levels} values in one block, more than its codes can tell")
        if not zero_points_fit(found.grid.zero_point, found.grid.levels):
            raise CellError(f"layer {layer.name!r} has a zero point that is not a level of its grid")
        difference = original - weight
        power = _output_power(original, hessian)
        rows.append(
            LayerRow(
                name=layer.name,
                shape=tuple(layer.weight.shape),
                weight_error=float(difference.square().sum() / original.square().sum().clamp(min=1e-30)),
                output_error=_output_power(difference, hessian) / (power or 1.0),
                objective=found.objective,
                rtn_objective=found.rtn_objective,
                levels=levels,
                fallback=found.fallback,
                damping=found.damping,
                details=found.details,
            )
        )
    return rows


def _output_power(matrix: Tensor, hessian: Tensor) -> float:
    """Return ``E|M x|^2``, summed over rows; rows fall into as many equal parts as there are Hessians."""
    stacked = matrix.view(len(hessian), -1, matrix.shape[1])
    return float(((stacked @ hessian) * stacked).sum())


def weight_sqnr_db(problem: Problem, originals: dict[str, Tensor]) -> float:
    """Return ``10 log10(sum w^2 / sum (w - w_q)^2)`` over all quantized weights, in decibels."""
    return sqnr_db(weight_powers(problem, originals))


def weight_powers(problem: Problem, originals: dict[str, Tensor]) -> list[tuple[float, float]]:
    """Return ``sum w^2`` and ``sum (w - w_q)^2`` of each layer."""
    return [
        (
            float(originals[layer.name].double().square().sum()),
            float((originals[layer.name].double() - layer.matrix().double()).square().sum()),
        )
        for layer in problem.layers
    ]


def sqnr_db(powers: Sequence[tuple[float, float]]) -> float:
    """Return the signal-to-noise ratio of layers together, in decibels, of what `weight_powers` gives."""
    signal, noise = (sum(part) for part in zip(*powers, strict=True))
    return 10 * math.log10(signal / noise) if noise else math.inf


def effective_bits(solution: Solution, left_alone: Sequence[Tensor] = ()) -> float:
    """Return the bits stored for each weight: codes, scales, zero points and codebooks.

    Parameters
    ----------
    solution : Solution
        The quantized layers.
    left_alone : sequence of Tensor
        Weights of first and last layers that the quantizer leaves in floating point: they count as they are.
    """
    stored, numel = stored_bits(solution)
    stored += sum(8 * weight.element_size() * weight.numel() for weight in left_alone)
    return stored / (numel + sum(one.numel() for one in left_alone))


def stored_bits(solution: Solution) -> tuple[int, int]:
    """Return the bits that quantized layers take, and the weights that they have."""
    stored = sum(found.grid.stored_bits(*found.codes.shape) for found in solution.layers.values())
    return stored, sum(found.codes.numel() for found in solution.layers.values())


def grids(problem: Problem) -> str:
    """Return what the layers' levels are, such as ``symmetric full_range``, and which layers have others.

    With ``layer_bits`` layers are counted instead: ``symmetric full_range (layers of 2 bits: 17, 3 bits: 3)``.
    """
    kinds: dict[str, list[str]] = {}
    for layer in problem.layers:
        levels = layer.grid.levels
        kinds.setdefault(f"{levels.describe()}|{levels.bits}", []).append(layer.name)
    most = max(kinds, key=lambda kind: len(kinds[kind]))
    text = most.partition("|")[0]
    if any(layer.quantizer is not None and layer.quantizer.layer_bits is not None for layer in problem.layers):
        counts = Counter(layer.grid.levels.bits for layer in problem.layers)
        text += f" (layers of {', '.join(f'{bits} bits: {counts[bits]}' for bits in sorted(counts))})"
    else:
        for kind, names in kinds.items():
            if kind != most:
                text += f"; {', '.join(names)}: {kind.rpartition('|')[2]} bits"
    kept = problem.layers[-1].grid.scale_format.name
    return text if kept == FLOAT32.name else f"{text}; scales in {kept}"


def left_in_floating_point(problem: Problem) -> str:
    """Return the names of all parameters that are not quantized, such as ``embed_tokens = lm_head (tied), norm``.

    A name stands once however many blocks have it, and ``weight`` at its end is left out. What a block holds beside
    target layers (biases, the stacked matrices of experts) is named too, so that nothing is left alone in silence.
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


def plugins_of(cell: Cell) -> str | None:
    """Return which of a cell's parts come from plugins and where these are; None where all are built in."""
    found = []
    for kind, spec in ((MODELS, cell.model), (QUANTIZERS, cell.quantizer), (METHODS, cell.method)):
        module = type(spec).__module__
        if spec is None or module.startswith("qbench."):
            continue
        # Names of a suite's own files are not known in a worker, those of installed packages are.
        place = kind.origin(spec.name) if spec.name in kind.names() else file_name(module)
        found.append(f"{kind.kind} {spec.name} from {place}")
    return ", ".join(found) or None


def packed_weights(
    solution: Solution, activations: Mapping[str, Activations] | None = None, folding: Folding | None = None
) -> tuple[bytes, str]:
    """Return a safetensors file with packed codes, scales, zero points and codebooks, and its sha256.

    Each layer has ``<name>.codes`` and the other tensors of `qbench.quant.packed_layer.pack_layer`; the file's metadata
    tells as JSON how to read them, layer by layer. Running statistics of batch norm that the method deploys are there
    by buffer name.

    Parameters
    ----------
    solution : Solution
        What is deployed.
    activations : dict of str to Activations, optional
        How the inputs of layers are quantized. The metadata has them under ``activations``, as JSON by layer name, and
        a static scale and zero point are ``<name>.input_scale`` and ``<name>.input_zero_point``; see
        `qbench.quant.activation.unpack_input`.
    folding : Folding, optional
        The model with folded batch norms that the codes are put into. The metadata has under ``folded``, as JSON, the
        batch norm that each layer took in; the layer's ``<name>.bias`` is stored as it is, and its ``<name>.weight``
        where it has no codes.
    """
    tensors: dict[str, Tensor] = {}
    about: dict[str, dict[str, object]] = {}
    for name, found in sorted(solution.layers.items()):
        parts, about[name] = pack_layer(found.codes, found.grid)
        tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    tensors |= {name: value.detach().cpu().contiguous() for name, value in sorted(solution.statistics.items())}
    metadata = {"qbench": json.dumps(about, sort_keys=True)}
    if activations:
        for name, params in sorted(solution.inputs.items()):
            tensors |= {f"{name}.{part}": tensor for part, tensor in pack_input(params).items()}
        plain = {name: asked.model_dump(mode="json") for name, asked in activations.items()}
        metadata["activations"] = json.dumps(plain, sort_keys=True)
    if folding is not None:
        metadata["folded"] = json.dumps(folding.norms, sort_keys=True)
        for name in folding.norms:
            for part in ("bias",) if name in solution.layers else ("bias", "weight"):
                value = folding.model.get_submodule(name).get_parameter(part)
                tensors[f"{name}.{part}"] = value.detach().cpu().contiguous()
    data = with_metadata(save(tensors), metadata)
    return data, hashlib.sha256(data).hexdigest()
