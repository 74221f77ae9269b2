"""Folders that transformers loads: its model computes what ours does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qbench.errors import CellError, QBenchError, StoreError
from qbench.methods.problem import LayerSolution, Solution
from qbench.quant.block_grid import quantize
from qbench.quantizers.activations import Activations
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS
from qbench.runner import compressed_folder
from qbench.runner.compressed_folder import ABOUT, export_folder
from qbench.runner.evidence import packed_weights
from qbench.runner.packed_file import read_packed
from qbench.spec import Spec
from qbench.store.record import Record
from qbench.tasks.causal_lm import ZooLM
from qbench.tasks.torchvision_ops import declare_missing_operators

NETWORKS: dict[str, nn.Module] = {}


class Network(Spec):
    """A task with nothing but a model, kept in NETWORKS."""

    def load(self, seed: int, device: str) -> SimpleNamespace:
        return SimpleNamespace(model=NETWORKS[self.name], tokenizer=None)

    def fingerprint(self, seed: int) -> dict[str, str]:
        return {"weights": self.name}


@dataclass(frozen=True)
class Cell:
    record: Record
    weights: Path
    model: Spec
    logits: Tensor


TOKENS = torch.arange(24).view(2, 12) * 7 % 97


def even_llama() -> nn.Module:
    """Return a Llama whose columns microscaling groups divide."""
    declare_missing_operators()
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_hidden_layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=128, max_position_embeddings=32, **sizes)).eval()


@torch.no_grad()
def cell(spec: Spec, folder: Path, quantizer: dict[str, Any], bits: int, wider: str = "", key: Any = None) -> Cell:
    """Return a cell whose Linear layers are rounded to nearest, those called `wider` on 8 bits."""
    network = spec.load(0, "cpu").model
    rule = QUANTIZERS.get(quantizer["name"]).model_validate(quantizer)
    layers = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            grid = choose_grid(module.weight, rule, 8 if wider and wider in name else bits)
            layers[name] = LayerSolution(quantize(module.weight, grid), grid)
            module.weight.copy_(layers[name].weight())
    data, sha256 = packed_weights(Solution(layers))
    path = folder / "weights.safetensors"
    path.write_bytes(data)
    record = Record(
        cell_id="0" * 64,
        key={"data": spec.fingerprint(0), **(key or {})},
        axes={"model": spec.label(), "quantizer": rule.label(), "bits": bits, "method": "rtn", "seed": 0},
        suite="test",
        status="ok",
        metrics={"loss/blocks128": 3.25},
        weights_sha256=sha256,
    )
    return Cell(record, path, spec, network(input_ids=TOKENS).logits)


@pytest.fixture(scope="module")
def zoo() -> Callable[..., Spec]:
    return lambda: ZooLM(name="llama-1m")


@pytest.fixture
def even() -> Spec:
    NETWORKS["even"] = even_llama()
    return Network(name="even")


@torch.no_grad()
def loaded_logits(folder: Path, **options: Any) -> Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options).eval()
    logits: Tensor = model(input_ids=TOKENS).logits
    return logits


@pytest.mark.parametrize(
    ("quantizer", "bits", "wider", "dequantize"),
    [
        ({"name": "absmax"}, 2, "", False),
        ({"name": "absmax"}, 3, "", False),
        ({"name": "absmax", "granularity": "per_tensor", "symmetric": False}, 4, "", False),
        ({"name": "absmax", "symmetric": False}, 4, "", True),
        ({"name": "absmax", "granularity": {"per_group": 8}, "symmetric": False}, 3, "", True),
        ({"name": "absmax", "granularity": {"per_group": 64}, "symmetric": False}, 5, "", False),  # 344 columns
        ({"name": "absmax", "symmetric": False}, 3, "layers.0", False),
        ({"name": "absmax", "granularity": {"per_block": [16, 64]}}, 4, "", False),
        ({"name": "fp"}, 8, "", False),
        ({"name": "fp", "granularity": {"per_block": [16, 64]}}, 8, "", False),
        ({"name": "nvfp4"}, 4, "", False),  # 344 columns: as integers
    ],
    ids=str,
)
def test_transformers_computes_the_same_logits_to_the_bit(
    zoo: Callable[[], Spec], tmp_path: Path, quantizer: dict[str, Any], bits: int, wider: str, dequantize: bool
) -> None:
    made = cell(zoo(), tmp_path, quantizer, bits, wider)
    written = export_folder(made.record, made.weights, made.model, tmp_path / "model")
    assert written.exact
    config = json.loads((tmp_path / "model" / "config.json").read_text())["quantization_config"]
    assert config.get("dequantize", False) == dequantize
    assert len(config["config_groups"]) == len(written.schemes)
    assert torch.equal(loaded_logits(tmp_path / "model"), made.logits)


@pytest.mark.parametrize(("quantizer", "bits"), [({"name": "mx"}, 4), ({"name": "mx"}, 8), ({"name": "mxfp4"}, 4)])
def test_powers_of_two_are_exact_though_the_package_computes_in_bfloat16(
    even: Spec, tmp_path: Path, quantizer: dict[str, Any], bits: int
) -> None:
    made = cell(even, tmp_path, quantizer, bits)
    written = export_folder(made.record, made.weights, spec_again(even), tmp_path / "model")
    assert written.exact and [scheme.half_precision for scheme in written.schemes] == [True]
    assert torch.equal(loaded_logits(tmp_path / "model"), made.logits)


def test_nvfp4_is_as_near_as_bfloat16_weights_are(even: Spec, tmp_path: Path) -> None:
    made = cell(even, tmp_path, {"name": "nvfp4"}, 4)
    written = export_folder(made.record, made.weights, spec_again(even), tmp_path / "model")
    assert not written.exact and [scheme.format for scheme in written.schemes] == ["nvfp4-pack-quantized"]
    found = loaded_logits(tmp_path / "model")
    # Each weight is rounded to 8 bits once more: errors of 2^-9 that add up as drawn at random.
    assert not torch.equal(found, made.logits)
    assert (found - made.logits).abs().max() <= 2**-6 * made.logits.abs().max()


def spec_again(spec: Spec) -> Spec:
    """Put a fresh model of full precision in the place of the one that was quantized."""
    NETWORKS[spec.name] = even_llama()
    return spec


def test_the_folder_says_where_it_comes_from(zoo: Callable[[], Spec], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made = cell(zoo(), tmp_path, {"name": "absmax"}, 4, key={"quantizer": {"options": {"name": "absmax"}}})
    folder = tmp_path / "model"
    export_folder(made.record, made.weights, made.model, folder)
    names = {"README.md", ABOUT, "config.json", "generation_config.json", "model.safetensors"}
    assert {file.name for file in folder.iterdir()} == {*names, "tokenizer.json", "tokenizer_config.json"}
    assert AutoTokenizer.from_pretrained(folder)("the cat")["input_ids"]
    about = json.loads((folder / ABOUT).read_text())
    assert (about["cell_id"], about["label"], about["exact"]) == ("0" * 64, made.record.label, True)
    assert about["quantizer"] == {"name": "absmax"} and about["metrics"] == {"loss/blocks128": 3.25}
    readme = (folder / "README.md").read_text()
    assert made.record.label in readme and "0" * 64 in readme
    assert "pack-quantized, 4 bits, channel: 28 layers" in readme and "Loss: 3.25 nats (loss/blocks128)" in readme
    assert {path.name for path in tmp_path.iterdir()} == {"model", "weights.safetensors"}


def test_an_earlier_export_is_written_over_by_force_only_and_other_folders_never(
    zoo: Callable[[], Spec], tmp_path: Path
) -> None:
    made = cell(zoo(), tmp_path, {"name": "absmax"}, 4)
    folder = tmp_path / "model"
    folder.mkdir()  # an empty one is as good as none
    export_folder(made.record, made.weights, made.model, folder)
    (folder / "notes").touch()
    with pytest.raises(StoreError, match="is there already: --force writes over it"):
        export_folder(made.record, made.weights, made.model, folder)
    assert (folder / "notes").exists()
    export_folder(made.record, made.weights, made.model, folder, force=True)
    assert not (folder / "notes").exists() and (folder / "config.json").exists()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes").touch()
    for force in (False, True):
        with pytest.raises(StoreError, match="is there already, and no export made it: --to names another folder"):
            export_folder(made.record, made.weights, made.model, tmp_path / "own", force=force)
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["notes"]


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=input_ids)


def test_models_that_transformers_cannot_load_are_named(tmp_path: Path) -> None:
    NETWORKS["toy"] = Convolutional()
    made = cell(Network(name="toy"), tmp_path, {"name": "absmax"}, 4)
    with pytest.raises(CellError, match=r"transformers cannot save a Convolutional \(allowed: transformers' causal"):
        export_folder(made.record, made.weights, made.model, tmp_path / "model")
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    NETWORKS["bert"] = BertModel(BertConfig(vocab_size=128, max_position_embeddings=16, **sizes))
    with pytest.raises(CellError, match="AutoModelForCausalLM cannot load a BertModel"):
        export_folder(
            made.record.model_copy(update={"key": {"data": {"weights": "bert"}}}),
            made.weights,
            Network(name="bert"),
            tmp_path / "model",
        )
    assert not (tmp_path / "model").exists()


def test_what_is_not_the_cell_any_more_is_refused(even: Spec, tmp_path: Path) -> None:
    made = cell(even, tmp_path, {"name": "nf"}, 4)
    to = tmp_path / "model"
    with pytest.raises(CellError, match="compressed-tensors has no such grid: nf4"):
        export_folder(made.record, made.weights, made.model, to)
    other = made.record.model_copy(update={"key": {"data": {"weights": "another"}}})
    with pytest.raises(StoreError, match="the model or its text is not what the cell was run with: run it again"):
        export_folder(other, made.weights, made.model, to)
    with pytest.raises(QBenchError, match="is in full precision: there are no quantized weights to export"):
        export_folder(made.record.model_copy(update={"weights_sha256": None}), made.weights, made.model, to)
    made.weights.write_bytes(made.weights.read_bytes() + b" ")
    with pytest.raises(StoreError, match="is not the file that the record tells of"):
        export_folder(made.record, made.weights, made.model, to)
    assert hashlib.sha256(made.weights.read_bytes()).hexdigest() != made.record.weights_sha256
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors"}


def test_quantized_inputs_are_left_to_the_packed_file(even: Spec, tmp_path: Path) -> None:
    made = cell(even, tmp_path, {"name": "absmax"}, 4)
    asked = {name: Activations(bits=8) for name in read_packed(made.weights).layers}
    data, sha256 = packed_weights(Solution(read_packed(made.weights).layers), asked)
    made.weights.write_bytes(data)
    with pytest.raises(CellError, match=r"its inputs are quantized too.*or --format packed"):
        export_folder(
            made.record.model_copy(update={"weights_sha256": sha256}), made.weights, made.model, tmp_path / "model"
        )


@torch.no_grad()
def test_a_layer_that_is_stored_otherwise_leaves_no_folder(
    even: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cell(even, tmp_path, {"name": "absmax"}, 4)
    write = compressed_folder._write

    def damaged(folder: Path, *rest: Any) -> None:
        write(folder, *rest)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.1.mlp.down_proj.weight_packed"][0, 0] += 1
        save_file(tensors, folder / "model.safetensors")

    monkeypatch.setattr(compressed_folder, "_write", damaged)
    with pytest.raises(CellError, match=r"'model.layers.1.mlp.down_proj' is not the same weight once it is stored as"):
        export_folder(made.record, made.weights, spec_again(even), tmp_path / "model")
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors"}


def test_a_missing_package_is_named(even: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cell(even, tmp_path, {"name": "absmax"}, 4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(QBenchError, match=r"needs the package compressed-tensors: `pip install 'qbench\[export\]'`"):
        export_folder(made.record, made.weights, made.model, tmp_path / "model")
