"""Packed files: what is read is what was measured, and what is exported says where it comes from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import nn

from qbench.errors import QBenchError, StoreError
from qbench.methods.layer_inputs import installed
from qbench.methods.problem import LayerSolution, Solution
from qbench.methods.rtn import RoundToNearest
from qbench.quant.block_grid import quantize
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.activations import Activations
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS
from qbench.runner import packed_file
from qbench.runner.evidence import packed_weights
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.packed_file import apply_packed, export_packed, read_packed, with_metadata
from qbench.store.record import Record
from qbench.suite.cell import Cell
from qbench.tasks.causal_lm import ZooLM

if TYPE_CHECKING:
    from qbench.runner.session import Session

Ran = tuple[Cell, Record, Path]
MODEL = ZooLM(name="llama-1m", evaluation_windows=8, calibration_windows=8, passages=2, choices=4)


@pytest.fixture
def run(session: Session, tmp_path: Path) -> Callable[..., Ran]:
    """Return a function that rounds the embedded model to nearest."""

    def run(quantizer: dict[str, Any], bits: int) -> Ran:
        rule = QUANTIZERS.get(quantizer["name"]).model_validate(quantizer)
        cell = Cell(MODEL, rule, bits, RoundToNearest(name="rtn"), 0, ("loss",))
        path = tmp_path / "run" / "weights.safetensors"
        record = execute(identify(cell), "test", session, path)
        assert record.clean, record.reason
        return cell, record, path

    return run


@pytest.mark.parametrize(
    ("quantizer", "bits"),
    [
        ({"name": "absmax", "symmetric": False, "granularity": {"per_group": 64}}, 3),
        ({"name": "ternary"}, 2),
        ({"name": "kmeans"}, 2),
        ({"name": "nvfp4"}, 4),
        ({"name": "mxfp4"}, 4),
        ({"name": "hqq"}, 2),
        ({"name": "absmax", "granularity": {"per_block": [16, 64]}, "first_last": "8bit"}, 4),
        ({"name": "absmax", "activations": {"bits": 4}}, 4),
        ({"name": "absmax", "activations": {"bits": 4, "scale": "static"}}, 4),
    ],
    ids=str,
)
def test_the_reloaded_model_has_the_loss_of_the_record_to_the_bit(
    run: Callable[..., Ran], tmp_path: Path, quantizer: dict[str, Any], bits: int
) -> None:
    cell, record, path = run(quantizer, bits)
    exported = tmp_path / "away.safetensors"
    found = export_packed(record, path, exported)
    for packed in (found, read_packed(path)):
        task = cell.model.load(cell.seed, "cpu")  # type: ignore[attr-defined]
        inputs = apply_packed(task.model, packed)
        assert len(inputs) == (28 if "activations" in quantizer else 0) and packed.extra == {}
        with installed(inputs):
            assert task.evaluate(task.model, ("loss",)).metrics["loss/blocks128"] == record.loss


def test_an_exported_file_says_where_it_comes_from(run: Callable[..., Ran], tmp_path: Path) -> None:
    _, record, path = run({"name": "absmax"}, 4)
    exported = tmp_path / "new" / "folder" / "away.safetensors"
    found = export_packed(record, path, exported)
    assert found.cell["cell_id"] == record.cell_id and found.cell["label"] == record.label
    assert found.cell["quantizer"]["name"] == "absmax" and found.cell["method"]["name"] == "rtn"
    assert found.cell["metrics"] == record.metrics and found.cell["weights_sha256"] == record.weights_sha256
    assert found.cell["environment"]["torch"] == torch.__version__
    first, second = load(path.read_bytes()), load(exported.read_bytes())
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert [file.name for file in exported.parent.iterdir()] == ["away.safetensors"]


def test_nothing_is_written_over_without_force(run: Callable[..., Ran], tmp_path: Path) -> None:
    _, record, path = run({"name": "absmax"}, 2)
    exported = tmp_path / "away.safetensors"
    export_packed(record, path, exported)
    with pytest.raises(StoreError, match="is there already: --force writes over it, --to names another file"):
        export_packed(record, path, exported)
    export_packed(record, path, exported, force=True)
    assert read_packed(exported).cell["cell_id"] == record.cell_id


def test_what_no_export_made_is_never_written_over(run: Callable[..., Ran], tmp_path: Path) -> None:
    _, record, path = run({"name": "absmax"}, 2)
    notes, weights = tmp_path / "notes.txt", path.read_bytes()
    notes.write_text("my notes")
    for foreign in (notes, path):
        with pytest.raises(StoreError, match="is there already, and no export made it: --to names another file"):
            export_packed(record, path, foreign, force=True)
    assert notes.read_text() == "my notes" and path.read_bytes() == weights
    with pytest.raises(StoreError, match=r"is a folder \(allowed: the path of a file\)"):
        export_packed(record, path, tmp_path, force=True)


def test_what_is_not_what_the_record_tells_of_is_not_exported(run: Callable[..., Ran], tmp_path: Path) -> None:
    _, record, path = run({"name": "absmax"}, 2)
    to = tmp_path / "away.safetensors"
    for change, said in (
        ({"weights_sha256": None}, "is in full precision: there are no quantized weights to export"),
        ({"status": "failed", "reason": "no luck"}, "has no weights: it failed: no luck"),
        ({"weights_sha256": "0" * 64}, r"is not the file that the record tells of .*`qbench run --suite test` makes"),
    ):
        with pytest.raises(QBenchError, match=said):
            export_packed(record.model_copy(update=change), path, to)
    path.unlink()
    with pytest.raises(StoreError, match="is gone: `qbench run --suite test` makes it again"):
        export_packed(record, path, to)
    assert not to.exists()


def test_a_file_that_reads_back_otherwise_is_not_left_behind(
    run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, record, path = run({"name": "absmax"}, 2)

    def damaged(data: bytes, more: dict[str, str]) -> bytes:
        whole = bytearray(with_metadata(data, more))
        whole[-1] ^= 1
        return bytes(whole)

    monkeypatch.setattr(packed_file, "with_metadata", damaged)
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match="does not hold the weights of the run after it was read back"):
        export_packed(record, path, tmp_path / "out" / "away.safetensors")
    assert list((tmp_path / "out").iterdir()) == []


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, groups=2)
        self.norm = nn.BatchNorm2d(6)


def solved(model: Pictures) -> Solution:
    matrix = model.conv.weight.detach().flatten(1)
    grid = choose_grid(matrix, AbsMax(name="absmax"), 3)
    statistics = {"norm.running_mean": torch.arange(6.0), "norm.num_batches_tracked": torch.tensor(7)}
    return Solution({"conv": LayerSolution(quantize(matrix, grid), grid)}, statistics=statistics)


def test_convolutions_and_their_statistics_come_back(tmp_path: Path) -> None:
    model, other = Pictures(), Pictures()
    solution = solved(model)
    path = tmp_path / "packed.safetensors"
    data, _ = packed_weights(solution)
    path.write_bytes(save({**load(data), "conv.later": torch.ones(2)}, metadata=metadata(data)))
    packed = read_packed(path)
    assert packed.extra.keys() == {"conv.later"} and packed.cell == {}
    apply_packed(other, packed)
    assert torch.equal(other.conv.weight.flatten(1), solution.layers["conv"].weight())
    assert other.norm.running_mean.tolist() == [0, 1, 2, 3, 4, 5] and other.norm.num_batches_tracked == 7
    assert other.norm.running_var.tolist() == [1] * 6


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    path.write_bytes(packed_weights(solved(Pictures()))[0])
    packed = read_packed(path)
    model = nn.Module()
    model.convs = nn.Conv2d(4, 6, 3)
    with pytest.raises(StoreError, match="no layer 'conv' that can be quantized: did you mean 'convs'"):
        apply_packed(model, packed)
    model.conv = nn.Conv2d(4, 6, 3)
    with pytest.raises(StoreError, match=r"'conv' is a matrix of shape \(6, 36\) in the model, \(6, 18\) in the file"):
        apply_packed(model, packed)
    model.conv = nn.Conv2d(4, 6, 3, groups=2)
    with pytest.raises(StoreError, match=r"no statistics 'norm.num_batches_tracked' of shape \(\)"):
        apply_packed(model, packed)


def metadata(data: bytes) -> dict[str, str]:
    end = 8 + int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8:end])["__metadata__"]
    return found


def test_files_that_are_not_packed_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    with pytest.raises(StoreError, match="does not exist"):
        read_packed(path)
    data, _ = packed_weights(solved(Pictures()))
    about = json.loads(metadata(data)["qbench"])
    about["conv"]["levels"]["kind"] = "unheard of"
    for wrong in (
        b"no safetensors",
        save({"weight": torch.ones(2)}),
        save({"weight": torch.ones(2)}, metadata=metadata(data)),
        save(load(data), metadata={"qbench": json.dumps(about)}),
        save(load(data), metadata={"qbench": "{"}),
        data[:-5],
    ):
        path.write_bytes(wrong)
        with pytest.raises(StoreError, match=r"is no packed file of qbench: .") as raised:
            read_packed(path)
        assert "\n" not in str(raised.value)


def test_metadata_is_in_one_order_whatever_it_came_in(tmp_path: Path) -> None:
    data = save({"a": torch.arange(3.0)}, metadata={"old": "1"})
    names = list("qwertyuiop")
    first = with_metadata(data, dict.fromkeys(names, "x"))
    assert with_metadata(data, dict.fromkeys(sorted(names), "x")) == first
    assert with_metadata(with_metadata(data, {"q": "x"}), dict.fromkeys(names[1:], "x")) == first
    assert list(metadata(first)) == sorted([*names, "old"])
    path = tmp_path / "file.safetensors"
    path.write_bytes(with_metadata(data, {"new": "ü", "z": "2"}))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"old": "1", "new": "ü", "z": "2"}
        assert file.get_tensor("a").tolist() == [0, 1, 2]


def test_activations_are_told_of_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    asked = Activations(bits=4)
    path.write_bytes(packed_weights(solved(Pictures()), {"conv": asked})[0])
    found = read_packed(path)
    assert found.activations == {"conv": asked} and found.inputs == {}


def example(first_line: str) -> str:
    """Return the example of docs/export.md that begins with a line."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    return next(part.split("```")[0] for part in page.split("```python\n")[1:] if part.startswith(first_line))


@pytest.mark.parametrize(
    "options",
    [{}, {"symmetric": False}, {"granularity": {"per_group": 64}, "symmetric": False}, {"granularity": "per_tensor"}],
    ids=str,
)
@pytest.mark.parametrize("bits", [3, 4])
def test_the_page_reads_a_file_without_qbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], bits: int
) -> None:
    weight = torch.randn(12, 344, generator=torch.Generator().manual_seed(0))
    grid = choose_grid(weight, AbsMax.model_validate({"name": "absmax", **options}), bits)
    found = LayerSolution(quantize(weight, grid), grid)
    monkeypatch.chdir(tmp_path)
    Path("my-model.safetensors").write_bytes(packed_weights(Solution({"layer": found}))[0])
    names: dict[str, Any] = {}
    text = example("import json\n")
    assert "import qbench" not in text
    exec(text, names)
    assert torch.equal(torch.from_numpy(names["weights"]["layer"]), found.weight())
