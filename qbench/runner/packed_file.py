"""Packed files: read back, put into a model, and taken out of a run's folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from qbench import atomic
from qbench.errors import QBenchError, StoreError, nearest
from qbench.methods.batch_norm import put_folded
from qbench.methods.layer_inputs import QuantizedInput
from qbench.methods.matrices import from_matrix, is_matrix_layer, to_matrix
from qbench.methods.problem import LayerSolution, TargetLayer
from qbench.quant.activation import unpack_input
from qbench.quant.packed_layer import unpack_layer
from qbench.quant.qparams import QParams
from qbench.quantizers.activations import Activations
from qbench.store.record import Record

LAYERS, CELL, ACTIVATIONS, FOLDED = "qbench", "cell", "activations", "folded"
_PARTS = ("codes", "scale", "scale_unit", "zero_point", "table")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_HEADER = 8  # bytes that tell the length of a safetensors header


@dataclass(frozen=True)
class PackedModel:
    """What a packed file holds.

    Attributes
    ----------
    layers : dict of str to LayerSolution
        Codes and grids, by layer name.
    statistics : dict of str to Tensor
        Running statistics of batch-norm layers, by buffer name.
    activations : dict of str to Activations
        How inputs are quantized, by layer name; empty where they are not.
    inputs : dict of str to QParams
        The static grids of inputs, by layer name.
    folded : dict of str to str
        The batch norm that each layer took in, by the layer's name.
    parameters : dict of str to Tensor
        Biases of those layers, and the weights of those without codes, by parameter name.
    extra : dict of str to Tensor
        All other tensors.
    cell : dict
        Where the weights come from, in an exported file.
    """

    layers: dict[str, LayerSolution]
    statistics: dict[str, Tensor] = field(default_factory=dict)
    activations: dict[str, Activations] = field(default_factory=dict)
    inputs: dict[str, QParams] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Tensor] = field(default_factory=dict)
    cell: dict[str, Any] = field(default_factory=dict)


def read_packed(path: Path) -> PackedModel:
    """Read a packed file, one of a run's folder or an exported one.

    Raises
    ------
    StoreError
        It is no packed file, or is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        about = json.loads(metadata[LAYERS])
        layers = {name: _layer(name, one, tensors) for name, one in about.items()}
        asked = {name: Activations(**one) for name, one in json.loads(metadata.get(ACTIVATIONS, "{}")).items()}
        inputs = {name: _input(name, tensors) for name in asked if f"{name}.input_scale" in tensors}
        folded: dict[str, str] = json.loads(metadata.get(FOLDED, "{}"))
        parameters = {f"{name}.bias": tensors.pop(f"{name}.bias") for name in folded}
        parameters |= {f"{name}.weight": tensors.pop(f"{name}.weight") for name in folded if name not in layers}
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        # From foreign bytes: whatever is missing in them, or has another shape than it should.
        raise StoreError(f"{path} is no packed file of qbench: {str(error).splitlines()[0]}") from error
    statistics = {name: tensors.pop(name) for name in list(tensors) if name.rpartition(".")[2] in _STATISTICS}
    cell = json.loads(metadata.get(CELL, "{}"))
    return PackedModel(layers, statistics, asked, inputs, folded, parameters, tensors, cell)


def _layer(name: str, about: dict[str, Any], tensors: dict[str, Tensor]) -> LayerSolution:
    parts = {part: tensors.pop(f"{name}.{part}") for part in _PARTS if f"{name}.{part}" in tensors}
    return LayerSolution(*unpack_layer(parts, about))


def _input(name: str, tensors: dict[str, Tensor]) -> QParams:
    return unpack_input({part: tensors.pop(f"{name}.{part}") for part in ("input_scale", "input_zero_point")})


@torch.no_grad()
def apply_packed(model: nn.Module, packed: PackedModel) -> list[QuantizedInput]:
    """Write the quantized weights and what is deployed with them into a model.

    Parameters
    ----------
    model : nn.Module
        The full-precision model that was quantized, or one of its kind.
    packed : PackedModel
        From `read_packed`.

    Returns
    -------
    list of QuantizedInput
        What quantizes the inputs of layers; nothing where inputs are not quantized. Inputs are left as they are until
        these are put on, by `qbench.methods.layer_inputs.installed`.

    Raises
    ------
    StoreError
        The model has no such layer or buffer, or one of another shape.
    """
    modules = {name: module for name, module in model.named_modules() if is_matrix_layer(module)}
    _apply_folded(model, packed, modules)
    for name, found in packed.layers.items():
        if name not in modules:
            close = nearest(name, modules).partition(" (allowed")[0]
            raise StoreError(f"the model has no layer {name!r} that can be quantized{close}")
        weight: Tensor = modules[name].weight
        shape, expected = tuple(to_matrix(modules[name], weight).shape), tuple(found.codes.shape)
        if shape != expected:
            raise StoreError(f"layer {name!r} is a matrix of shape {shape} in the model, {expected} in the file")
        weight.copy_(from_matrix(modules[name], found.weight()))
    buffers = dict(model.named_buffers())
    for name, value in packed.statistics.items():
        if name not in buffers or buffers[name].shape != value.shape:
            raise StoreError(f"the model has no statistics {name!r} of shape {tuple(value.shape)}")
        buffers[name].copy_(value)
    return [
        QuantizedInput(
            TargetLayer(name, modules[name], packed.layers[name].grid, activations=asked), packed.inputs.get(name)
        )
        for name, asked in packed.activations.items()
    ]


def _apply_folded(model: nn.Module, packed: PackedModel, layers: dict[str, nn.Module]) -> None:
    """Take the batch norms out that the file's layers took in; a model that is folded already stays so."""
    names = {name for name, _ in model.named_modules()}
    for name, norm in packed.folded.items():
        if name not in layers or norm not in names:
            raise StoreError(f"the model has no layer {name!r} with a batch norm {norm!r} behind it")
        own: Tensor = layers[name].weight  # type: ignore[assignment]
        bias, weight = packed.parameters[f"{name}.bias"], packed.parameters.get(f"{name}.weight")
        wanted = (to_matrix(layers[name], own).shape[0],)
        if tuple(bias.shape) != wanted or (weight is not None and weight.shape != own.shape):
            raise StoreError(
                f"layer {name!r} has a weight of shape {tuple(own.shape)} in the model, another in the file"
            )
        put_folded(model, name, norm, bias, weight)


def with_metadata(data: bytes, more: dict[str, str]) -> bytes:
    """Return a safetensors file with more metadata, the same bytes for the same content.

    safetensors itself writes several entries of metadata in an order that differs from process to process.

    Parameters
    ----------
    data : bytes
        The file.
    more : dict of str to str
        Entries to add.
    """
    end = _HEADER + int.from_bytes(data[:_HEADER], "little")
    header = json.loads(data[_HEADER:end])
    metadata = dict(sorted({**header.pop("__metadata__", {}), **more}.items()))
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER)  # tensors begin at whole words
    return len(text).to_bytes(_HEADER, "little") + text + data[end:]


def require_weights(record: Record, weights: Path) -> bytes:
    """Return the bytes of a cell's packed weights.

    Parameters
    ----------
    record : Record
        The cell's.
    weights : Path
        Its file in the run's folder.

    Raises
    ------
    QBenchError
        The cell has no quantized weights.
    StoreError
        The file is gone, or is not the one that the record tells of.
    """
    if record.status != "ok":
        raise QBenchError(f"{record.label} has no weights: it {record.status}: {record.reason}")
    if record.weights_sha256 is None:
        raise QBenchError(f"{record.label} is in full precision: there are no quantized weights to export")
    again = f"`qbench run --suite {record.suite}` makes it again"
    if not weights.exists():
        raise StoreError(f"{weights} is gone: {again}")
    if atomic.sha256_file(weights) != record.weights_sha256:
        raise StoreError(f"{weights} is not the file that the record tells of (its sha256 differs): {again}")
    return weights.read_bytes()


def provenance(record: Record) -> dict[str, Any]:
    """Return what an exported model says of where it comes from: the cell, its options, its numbers and versions."""
    options: dict[str, Any] = {
        part: record.key[part]["options"] for part in ("model", "quantizer", "method") if part in record.key
    }
    return {
        "cell_id": record.cell_id,
        "label": record.label,
        "suite": record.suite,
        "axes": record.axes,
        **options,
        "data": record.key.get("data", {}),
        "metrics": record.metrics,
        "effective_bits": record.effective_bits,
        "fallbacks": record.fallbacks,
        "weights_sha256": record.weights_sha256,
        "environment": {name: record.environment.get(name) for name in ("qbench", "torch", "device")},
        "ended": record.ended,
    }


def export_packed(record: Record, weights: Path, to: Path, *, force: bool = False) -> PackedModel:
    """Write a cell's packed weights with its provenance to a file of their own, and make sure that they can be read.

    Parameters
    ----------
    record : Record
        The cell's.
    weights : Path
        Its file in the run's folder.
    to : Path
        The file to write; wholly written or not there.
    force : bool
        Write over an earlier export.

    Returns
    -------
    PackedModel
        As it was read back.

    Raises
    ------
    StoreError
        There is something at `to`, or what was read back is not what the run has.
    """
    data = with_metadata(require_weights(record, weights), {CELL: json.dumps(provenance(record), sort_keys=True)})
    refuse_existing(to, force=force)
    draft = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        atomic.write_bytes(draft, data)
        found = read_packed(draft)
        require_same_weights(found, read_packed(weights), draft)
        draft.replace(to)
    finally:
        draft.unlink(missing_ok=True)
    return found


def refuse_existing(to: Path, *, force: bool) -> None:
    """Raise `StoreError` where an export would be written over something."""
    if to.is_dir():
        raise StoreError(f"{to} is a folder (allowed: the path of a file)")
    if not to.exists():
        return
    if not _is_export(to):
        raise StoreError(f"{to} is there already, and no export made it: --to names another file")
    if not force:
        raise StoreError(f"{to} is there already: --force writes over it, --to names another file")


def _is_export(path: Path) -> bool:
    try:
        return bool(read_packed(path).cell)  # a run's own file does not say where it comes from
    except StoreError:
        return False


def require_same_weights(found: PackedModel, expected: PackedModel, path: Path) -> None:
    """Raise `StoreError` unless two packed models have the same weights, statistics and biases to the bit."""
    same = found.layers.keys() == expected.layers.keys() and found.folded == expected.folded
    same = same and all(torch.equal(found.layers[name].weight(), one.weight()) for name, one in expected.layers.items())
    for own, other in ((found.statistics, expected.statistics), (found.parameters, expected.parameters)):
        same = same and own.keys() == other.keys() and all(torch.equal(own[name], one) for name, one in other.items())
    if not same:
        raise StoreError(f"{path} does not hold the weights of the run after it was read back")
