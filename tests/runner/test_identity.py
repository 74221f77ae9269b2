"""A cell's identity: everything that can change its numbers, and nothing else."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qbench.errors import AssetError, QBenchError
from qbench.methods.gptq import GPTQ
from qbench.methods.rtn import RoundToNearest
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.mse import MeanSquaredError
from qbench.runner import identity
from qbench.runner.identity import identify
from qbench.suite.cell import Cell
from qbench.suite.plugins import find_file
from qbench.tasks.causal_lm import CausalLM, ZooLM


def forget() -> None:
    for remembered in (identity._describe, identity._fingerprint, identity.source_sha256):
        remembered.cache_clear()


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    forget()
    yield
    forget()


def cell(**changes: Any) -> Cell:
    base = Cell(ZooLM(name="llama-1m"), AbsMax(name="absmax"), 4, GPTQ(name="gptq"), 0, ("loss",))
    return replace(base, **changes)


CHANGES: dict[str, dict[str, Any]] = {
    "model option": {"model": ZooLM(name="llama-1m", evaluation_windows=8)},
    "calibration": {"model": ZooLM(name="llama-1m", calibration_windows=8)},
    "phase": {"model": ZooLM(name="llama-1m", phase="stable")},
    "quantizer": {"quantizer": MeanSquaredError(name="mse")},
    "granularity": {"quantizer": AbsMax(name="absmax", granularity={"per_group": 64})},
    "group size": {"quantizer": AbsMax(name="absmax", granularity={"per_group": 32})},
    "symmetry": {"quantizer": AbsMax(name="absmax", symmetric=False)},
    "bits": {"bits": 3},
    "method": {"method": RoundToNearest(name="rtn")},
    "method option": {"method": GPTQ(name="gptq", percdamp=0.02)},
    "method option, last digit": {"method": GPTQ(name="gptq", percdamp=0.010000000000000002)},
    "seed": {"seed": 1},
    "metrics": {"metrics": ("loss", "bits_per_byte")},
    "full precision": {"quantizer": None, "bits": None, "method": None},
}


def test_every_change_makes_another_cell() -> None:
    ids = {name: identify(cell(**change)).cell_id for name, change in CHANGES.items()}
    ids["none"] = identify(cell()).cell_id
    assert len(set(ids.values())) == len(ids), ids


def test_the_seed_counts_where_the_weights_are_the_same_for_all_seeds() -> None:
    model = CausalLM(name="causal_lm", title="mine", repo="a/b", revision="0" * 40)
    first, second = (identify(cell(model=model, seed=seed)) for seed in (0, 1))
    assert first.key["data"] == second.key["data"]
    assert first.cell_id != second.cell_id


def test_the_same_cell_has_the_same_identity() -> None:
    assert identify(cell()) == identify(cell())
    spelled_out = GPTQ(name="gptq", percdamp=0.01, block_size=GPTQ(name="gptq").block_size)
    assert identify(cell(method=spelled_out)).cell_id == identify(cell()).cell_id


def test_an_identity_is_the_hash_of_its_parts() -> None:
    found = identify(cell())
    canonical = json.dumps(found.key, sort_keys=True, separators=(",", ":"))
    assert found.cell_id == hashlib.sha256(canonical.encode()).hexdigest()
    assert json.loads(canonical) == found.key


def test_why_a_cell_is_left_out_is_no_part_of_what_it_is() -> None:
    assert identify(cell(skip="takes too long")).cell_id == identify(cell()).cell_id


def test_an_identity_is_the_same_in_every_process_folder_and_environment(tmp_path: Path) -> None:
    script = (
        "from qbench.runner.identity import identify\n"
        "from qbench.suite.cell import Cell\n"
        "from qbench.tasks.causal_lm import ZooLM\n"
        "print(identify(Cell(ZooLM(name='llama-1m'), None, None, None, 0, ('loss',))).cell_id)"
    )
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "HOSTNAME": "elsewhere",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.strip() == identify(cell(quantizer=None, bits=None, method=None)).cell_id


def test_neither_host_nor_device_stands_in_the_key() -> None:
    text = json.dumps(identify(cell()).key)
    assert str(Path.home()) not in text
    assert not {"host", "device", "threads", "platform"} & set(identify(cell()).key)


def test_a_version_changes_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: identify(cell(**CHANGES[name])).cell_id for name in ("bits", "method")}
    monkeypatch.setattr(GPTQ, "version", 99)
    forget()
    assert identify(cell(**CHANGES["bits"])).cell_id != before["bits"]
    assert identify(cell(**CHANGES["method"])).cell_id == before["method"]  # rtn is none the newer


def _plugin(folder: Path, body: str) -> type[RoundToNearest]:
    (folder / "plugin_helper.py").write_text("FACTOR = 1\n")
    (folder / "plugin_method.py").write_text(
        "from qbench.methods.rtn import RoundToNearest\n\n\n"
        f"class Mine(RoundToNearest):\n    sources = ('plugin_helper',)\n    {body}\n"
    )
    sys.modules.pop("plugin_method", None)
    importlib.invalidate_caches()
    kind: type[RoundToNearest] = importlib.import_module("plugin_method").Mine
    return kind


def test_the_source_of_a_method_and_of_what_it_names_is_part_of_the_identity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    method = _plugin(tmp_path, "pass")(name="mine")
    found = identify(cell(method=method))
    assert set(found.key["method"]["sources"]) >= {"plugin_method", "plugin_helper", "qbench.methods.rtn"}
    for name in ("plugin_method.py", "plugin_helper.py"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text + "# changed\n")
        forget()
        assert identify(cell(method=method)).cell_id != found.cell_id, name
        (tmp_path / name).write_text(text)
    forget()
    assert identify(cell(method=method)).cell_id == found.cell_id


def _local(folder: Path, given: str) -> type[RoundToNearest]:
    found = find_file(folder / given)
    found.load()
    return found.names[0].target  # type: ignore[return-value]


LOCAL = """\
from qbench.methods.rtn import RoundToNearest
from qbench.plugin import register_method


@register_method("local")
class Local(RoundToNearest):
    sources = (*RoundToNearest.sources, ".shares")
"""


def test_a_source_named_with_a_dot_lies_beside_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "shares.py").write_text("SHARE = 1\n")
    (tmp_path / "local.py").write_text(LOCAL)
    kind = _local(tmp_path, "local.py")
    found = identify(cell(method=kind(name="local")))
    own = {"plugins/local", "plugins/shares"}
    assert {name for name in found.key["method"]["sources"] if not name.startswith("qbench.")} == own
    assert "qbench.methods.rtn" in found.key["method"]["sources"]
    (tmp_path / "shares.py").write_text("SHARE = 2\n")
    forget()
    assert identify(cell(method=kind(name="local"))).cell_id != found.cell_id


def test_files_that_a_plugin_imports_beside_it_are_sources_without_being_named(tmp_path: Path) -> None:
    plugin = LOCAL.replace('(*RoundToNearest.sources, ".shares")', "RoundToNearest.sources")

    def written(imports: str, share: int) -> str:
        (tmp_path / "shares.py").write_text("from .deep.more import MORE\nSHARE = 1\n")
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep" / "__init__.py").write_text("")
        (tmp_path / "deep" / "more.py").write_text(f"MORE = {share}\n")
        (tmp_path / "local.py").write_text(f"{plugin}\n    def share(self):\n        {imports}\n")
        kind = _local(tmp_path, "local.py")
        return identify(cell(method=kind(name="local"))).cell_id

    # Inside a function too, where nothing is imported yet when cells are planned.
    first, changed, again = (written("from .shares import SHARE", share) for share in (1, 2, 1))
    assert first == again != changed
    alone, still = (written("return 1", share) for share in (1, 2))
    assert alone == still


def test_every_file_of_a_package_folder_is_a_source(tmp_path: Path) -> None:
    def written(share: int) -> type[RoundToNearest]:
        folder = tmp_path / "mine"
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("from . import local\n")
        (folder / "local.py").write_text(
            LOCAL.replace('(*RoundToNearest.sources, ".shares")', "RoundToNearest.sources")
        )
        (folder / "deep" / "shares.py").write_text(f"SHARE = {share}\n")
        return _local(tmp_path, "mine")

    first, second, again = (identify(cell(method=written(share)(name="local"))) for share in (1, 2, 1))
    assert first.cell_id == again.cell_id != second.cell_id
    assert {"plugins/mine.local", "plugins/mine.*"} <= set(first.key["method"]["sources"])


def test_a_source_in_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RoundToNearest, "sources", ("no_such_package.module",))
    with pytest.raises(QBenchError, match=r"^module 'no_such_package.module' is named as a source but has no file$"):
        identify(cell(method=RoundToNearest(name="rtn")))


def test_a_source_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RoundToNearest, "sources", ("qbench.quant.nowhere",))
    with pytest.raises(QBenchError, match=r"^module 'qbench.quant.nowhere' is named as a source but has no file$"):
        identify(cell(method=RoundToNearest(name="rtn")))


@pytest.mark.parametrize(
    "module", ["qbench.quant.block_grid", "qbench.quant.qparams", "qbench.quant.grid", "qbench.quantizers.layout"]
)
def test_what_every_quantized_cell_goes_through_is_in_its_key(module: str) -> None:
    sources = identify(cell(method=RoundToNearest(name="rtn"))).key["quantizer"]["sources"]
    assert module in sources


@pytest.mark.parametrize("change", ["train", "calibration", "evaluation"])
def test_the_text_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    from qbench.tasks import corpus

    before = identify(cell()).cell_id
    monkeypatch.setitem(corpus.PINNED, change, "0" * 64)
    forget()
    assert identify(cell()).cell_id != before


def test_where_a_folder_lies_is_no_part_of_the_identity(tmp_path: Path) -> None:
    def model_in(place: Path, words: str) -> CausalLM:
        (place / "model").mkdir(parents=True)
        (place / "model" / "model.safetensors").write_bytes(b"weights")
        for name in ("config.json", "tokenizer.json"):
            (place / "model" / name).write_text("{}")
        (place / "texts").mkdir()
        for index in range(40):
            (place / "texts" / f"{index}.txt").write_text(f"{words} {index}. " * 20)
        options = {"name": "causal_lm", "title": "mine", "path": place / "model", "text": {"folder": place / "texts"}}
        return CausalLM.model_validate(options)

    ids = [
        identify(cell(model=model_in(tmp_path / name, words))).cell_id
        for name, words in (("a", "x"), ("b", "x"), ("c", "y"))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_missing_model_is_named_before_anything_runs(tmp_path: Path) -> None:
    model = CausalLM(name="causal_lm", title="mine", path=tmp_path / "nowhere")
    with pytest.raises(AssetError, match=r"nowhere does not exist$"):
        identify(cell(model=model))
