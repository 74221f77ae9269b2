"""A quantized language model as a folder that transformers loads, in the formats of the compressed-tensors package."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from qbench.errors import CellError, QBenchError, StoreError
from qbench.runner.compressed_layers import Scheme, compress_layers, restore_layer
from qbench.runner.packed_file import PackedModel, apply_packed, provenance, read_packed, require_weights
from qbench.spec import Spec
from qbench.store.record import Record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ABOUT = "qbench.json"
Stored = dict[str, tuple[Scheme, dict[str, Tensor]]]
_BFLOAT16_STEP = 2.0**-8


@dataclass(frozen=True)
class CompressedFolder:
    """What was written.

    Attributes
    ----------
    schemes : dict of Scheme to list of str
        Layers by how they are stored.
    exact : bool
        Whether transformers gets the same weights to the bit; otherwise rounded to bfloat16.
    """

    schemes: dict[Scheme, list[str]]
    exact: bool


def export_folder(record: Record, weights: Path, model: Spec, to: Path, *, force: bool = False) -> CompressedFolder:
    """Write a cell's model as a folder for ``AutoModelForCausalLM.from_pretrained``.

    Parameters
    ----------
    record : Record
        The cell's.
    weights : Path
        Its packed weights in the run's folder.
    model : Spec
        The task that the cell quantized.
    to : Path
        The folder to make; wholly written or not there.
    force : bool
        Write over a folder that an earlier export made.

    Raises
    ------
    QBenchError
        compressed-tensors is not installed, or the cell has no quantized weights.
    StoreError
        There is something at `to`, or the run's file is not what the record tells of.
    CellError
        transformers cannot save the model, or the format has no such grid.
    """
    if importlib.util.find_spec("compressed_tensors") is None:
        raise QBenchError("this format needs the package compressed-tensors: `pip install 'qbench[export]'`")
    require_weights(record, weights)
    _refuse_existing(to, force=force)
    packed = read_packed(weights)
    if packed.activations:
        raise CellError(
            f"{record.label}: its inputs are quantized too, which this format is not written for "
            "(allowed: cells without activations, or --format packed)"
        )
    if packed.folded:
        raise CellError(
            f"{record.label}: its batch norms are folded, which this format is not written for "
            "(allowed: cells with bn: keep or recalibrate, or --format packed)"
        )
    seed = record.axes["seed"]
    task = model.load(seed, "cpu")  # type: ignore[attr-defined]
    if model.fingerprint(seed) != record.key["data"]:  # type: ignore[attr-defined]
        raise StoreError(f"{record.label}: the model or its text is not what the cell was run with: run it again")
    network = _savable(record.label, task.model, packed)
    apply_packed(network, packed)
    stored = compress_layers(packed.layers)
    schemes: dict[Scheme, list[str]] = {}
    for name, (scheme, _) in stored.items():
        schemes.setdefault(scheme, []).append(name)
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}.", suffix=".tmp"))
    try:
        draft.chmod(0o755)  # mkdtemp's are private
        _write(draft, network, stored, schemes)
        exact = _verify(packed, _read(draft, stored))
        tokenizer = getattr(task, "tokenizer", None)
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        about = {
            **provenance(record),
            "exact": exact,
            "schemes": [
                {"format": scheme.format, **scheme.weights(), "layers": names} for scheme, names in schemes.items()
            ],
        }
        (draft / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (draft / "README.md").write_text(_readme(record, schemes, exact=exact), encoding="utf-8")
        if to.exists():
            shutil.rmtree(to)
        draft.replace(to)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return CompressedFolder(schemes, exact)


def _refuse_existing(to: Path, *, force: bool) -> None:
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not (to / ABOUT).is_file():
        raise StoreError(f"{to} is there already, and no export made it: --to names another folder")
    if not force:
        raise StoreError(f"{to} is there already: --force writes over it, --to names another folder")


def _savable(label: str, network: nn.Module, packed: PackedModel) -> PreTrainedModel:
    """Return the model as one of transformers', or raise `CellError`."""
    allowed = "(allowed: transformers' causal language models with Linear layers, or --format packed)"
    if not hasattr(network, "save_pretrained"):
        raise CellError(f"{label}: transformers cannot save a {type(network).__name__} {allowed}")
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

    mapping: Any = MODEL_FOR_CAUSAL_LM_MAPPING  # a class, or several, by the class of a configuration
    config: Any = type(network.config)
    if not isinstance(network, PreTrainedModel) or config not in mapping or not isinstance(network, mapping[config]):
        raise CellError(f"{label}: AutoModelForCausalLM cannot load a {type(network).__name__} {allowed}")
    modules = dict(network.named_modules())
    other = next((name for name in packed.layers if not isinstance(modules.get(name), nn.Linear)), None)
    if other is not None:
        raise CellError(f"{label}: layer {other!r} is a {type(modules.get(other)).__name__} {allowed}")
    model: PreTrainedModel = network
    return model


def _read(folder: Path, stored: Stored) -> Stored:
    """Return the tensors of stored layers as they are in a folder's files."""
    tensors: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    lost = {name for name, (_, parts) in stored.items() for part in parts if f"{name}.{part}" not in tensors}
    if lost:
        raise CellError(f"layer {min(lost)!r} has another name in transformers' files (allowed: --format packed)")
    return {name: (one, {part: tensors[f"{name}.{part}"] for part in parts}) for name, (one, parts) in stored.items()}


def _verify(packed: PackedModel, stored: Stored) -> bool:
    """Return whether the package makes the same weights to the bit; they are the same to bfloat16 at least."""
    exact = True
    for name, found in packed.layers.items():
        scheme, tensors = stored[name]
        weight, expected = restore_layer(scheme, tensors).float(), found.weight()
        same = torch.equal(weight, expected)
        if not same and not (scheme.half_precision and torch.allclose(weight, expected, rtol=_BFLOAT16_STEP, atol=0)):
            raise CellError(f"layer {name!r} is not the same weight once it is stored as {scheme.format}")
        exact &= same
    return exact


def _write(
    folder: Path,
    network: PreTrainedModel,
    stored: Stored,
    schemes: dict[Scheme, list[str]],
) -> None:
    """Write the model's files: what is not quantized in float32, and the configuration."""
    quantized = {f"{name}.weight" for name in stored}
    state = {name: value for name, value in network.state_dict().items() if name not in quantized}
    state |= {f"{name}.{part}": tensor for name, (_, tensors) in stored.items() for part, tensor in tensors.items()}
    with _no_bars():
        network.save_pretrained(folder, state_dict=state)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors' are private
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    config["quantization_config"] = quantization_config(schemes, [name for name in linear if name not in stored])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers' progress bars, which go to any stderr, from being drawn."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def quantization_config(schemes: dict[Scheme, list[str]], left_alone: list[str]) -> dict[str, Any]:
    """Return what config.json says of the quantization.

    Parameters
    ----------
    schemes : dict of Scheme to list of str
        Layers by how they are stored.
    left_alone : list of str
        Linear layers that are not quantized.
    """
    only = next(iter(schemes)) if len(schemes) == 1 else None
    config: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": "mixed-precision" if only is None else only.format,
        "ignore": left_alone,
        "config_groups": {
            f"group_{index}": {
                "targets": ["Linear"] if only is not None else names,
                "weights": scheme.weights(),
                "format": scheme.format,
            }
            for index, (scheme, names) in enumerate(schemes.items())
        },
    }
    # See `compress_layers`: without it transformers cannot read these.
    if only is not None and (only.has_packed_zero_points or only.half_precision):
        config["dequantize"] = True
    return config


def _readme(record: Record, schemes: dict[Scheme, list[str]], *, exact: bool) -> str:
    loss = f"- Loss: {record.loss:.6g} nats ({record.loss_key})\n" if record.loss is not None else ""
    kept = "the same to the bit in float32" if exact else "rounded to bfloat16, as this format computes them"
    stored = "".join(f"- {scheme.describe()}: {len(names)} layers\n" for scheme, names in schemes.items())
    return (
        f"# {record.label}\n\n"
        "A quantized language model, written by `qbench export`. What is known of it is in `qbench.json`.\n\n"
        f"- Cell: `{record.cell_id}`, suite `{record.suite}`, ended {record.ended}\n"
        f"- Model: {record.axes['model']}, seed {record.axes['seed']}\n"
        f"- Quantizer: {record.axes['quantizer']}, {record.axes['bits']} bits\n"
        f"- Method: {record.axes['method']}\n"
        f"- Grid: {record.facts.get('grid', '')}\n"
        f"- Left in floating point: {record.facts.get('floating_point', '')}\n"
        f"{loss}"
        f"- Weights: {kept}\n\n"
        f"Stored as:\n\n{stored}\n"
        "```python\n"
        "from transformers import AutoModelForCausalLM\n\n"
        'model = AutoModelForCausalLM.from_pretrained("this folder")  # needs compressed-tensors\n'
        "```\n"
    )
