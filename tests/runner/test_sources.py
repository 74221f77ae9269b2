"""All code that a cell's numbers can come from is in its key, or there is a reason why it need not be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import qbench
from qbench.errors import QBenchError
from qbench.methods.fine_tune import FineTuning
from qbench.registry import METHODS, MODELS, PROBES, QUANTIZERS
from qbench.runner import identity, sources
from qbench.runner.sources import CANNOT_CHANGE_NUMBERS, closure, imports_of, source_sha256
from qbench.spec import Spec

# What a cell of some kind passes over beside `CANNOT_CHANGE_NUMBERS`, and why.
NO_GRID = "a cell without a quantizer lays no grid"
NO_TRAINING = "is only asked whether the method is one that trains"
NO_PROBE = "is not called in a cell without probe and trajectory"
NOT_SHARED = "is not called in a cell that one process trains"
WITHOUT_GRID = {
    f"qbench.{module}": NO_GRID
    for module in (
        "quant.block_grid",
        "quant.fused",
        "quant.grid",
        "quant.levels",
        "quant.qparams",
        "quant.scale_format",
        "quant.snapping",
        "quantizers.activations",
        "quantizers.base",
        "quantizers.granularity",
        "quantizers.layout",
    )
}
IN_RUNNER = {
    "qbench.geometry.scene": NO_PROBE,
    "qbench.geometry.base": NO_PROBE,
    "qbench.methods.fine_tune": NO_TRAINING,
    "qbench.methods.training_options": NO_TRAINING,
    "qbench.runner.probing": NO_PROBE,
    "qbench.runner.ranks": NOT_SHARED,
    "qbench.runner.streamed": "is called in cells of streamed models alone, which have it in their keys",
    "qbench.runner.streamed_moves": "is called in probes of streamed models alone, which have it in their keys",
    "qbench.runner.packed_file": "writes metadata by with_metadata, which is hashed by name; reading is a probe's",
}
IN_METHOD = {"qbench.methods.fine_tune": "is its control, which has a cell of its own"}
IN_PROBE = {"qbench.geometry.trajectory": "looks at trainings, and a probe trains nothing", **IN_RUNNER}
IN_IMAGES = {"qbench.tasks.text": "gives image_repository the type of one option"}


def hashed(spec: type[Spec]) -> set[str]:
    own = {kind.__module__ for kind in spec.__mro__ if issubclass(kind, Spec)}
    return own | set(spec.sources)


def missing(begin: set[str], known: set[str], reasons: dict[str, str]) -> list[str]:
    return sorted(closure(begin, {*CANNOT_CHANGE_NUMBERS, *reasons} - begin) - known)


RUNNER = set(identity.RUNNER_SOURCES)
ANY_QUANTIZER = set.intersection(*(hashed(QUANTIZERS.get(name)) for name in QUANTIZERS.names()))


@pytest.mark.parametrize("name", METHODS.names())
def test_of_methods(name: str) -> None:
    own = hashed(METHODS.get(name))
    assert not missing(own, own | RUNNER | ANY_QUANTIZER, IN_METHOD)


@pytest.mark.parametrize("name", QUANTIZERS.names())
def test_of_quantizers(name: str) -> None:
    own = hashed(QUANTIZERS.get(name))
    assert not missing(own, own | RUNNER, {})


@pytest.mark.parametrize("name", PROBES.names())
def test_of_probes(name: str) -> None:
    own = hashed(PROBES.get(name)) | set(identity.PROBE_SOURCES)
    assert not missing(own, own | RUNNER | ANY_QUANTIZER, {key: IN_PROBE[key] for key in set(IN_PROBE) - own})


@pytest.mark.parametrize("name", MODELS.names())
def test_of_tasks(name: str) -> None:
    own = hashed(MODELS.get(name))
    assert not missing(own, own | RUNNER, IN_IMAGES if "qbench.tasks.image_source" in own else {})


def test_of_the_runner() -> None:
    assert not missing(RUNNER, RUNNER | ANY_QUANTIZER, IN_RUNNER)


def test_of_trajectories() -> None:
    own = set(identity.TRAJECTORY_SOURCES)
    training = set.intersection(*(hashed(METHODS.get(name)) for name in ("ste_qat", "lsq", "latent_grad")))
    passed_over = {"qbench.runner.packed_file": "is read by probes", "qbench.geometry.base": "is the type of probes"}
    passed_over |= IN_METHOD
    assert not missing(own, own | training | RUNNER | ANY_QUANTIZER, passed_over)


def test_of_shared_trainings() -> None:
    own = set(identity.SHARED_SOURCES)
    training = set.intersection(*(hashed(METHODS.get(name)) for name in ("ste_qat", "lsq")))
    of_control = {"qbench.methods.fine_tune": "says itself, in the key of a control, where it counts"}
    assert not missing(own, own | training | RUNNER | ANY_QUANTIZER, of_control)


def test_of_streamed_models() -> None:
    own = set(identity.STREAMED_SOURCES)
    reasons = {name: reason for name, reason in IN_RUNNER.items() if name not in own}
    assert not missing(own, own | RUNNER | ANY_QUANTIZER | hashed(MODELS.get("causal_lm")), reasons)


@pytest.mark.parametrize("name", [name for name in PROBES.names() if PROBES.get(name).streams])
def test_of_probes_of_streamed_models(name: str) -> None:
    own = hashed(PROBES.get(name)) | set(identity.STREAMED_PROBE_SOURCES)
    known = own | RUNNER | set(identity.PROBE_SOURCES) | set(identity.STREAMED_SOURCES)
    reasons = {key: IN_PROBE[key] for key in set(IN_PROBE) - known}
    assert not missing(own, known | ANY_QUANTIZER | hashed(MODELS.get("causal_lm")), reasons)


def test_of_controls() -> None:
    own = hashed(FineTuning)
    assert not missing(own, own | RUNNER, WITHOUT_GRID)


def test_reasons_are_of_modules_that_are_there_and_met() -> None:
    met = set()
    for registry in (METHODS, QUANTIZERS, PROBES, MODELS):
        for name in registry.names():
            met |= closure(hashed(registry.get(name)), ())
    met |= closure(RUNNER, ())
    assert set(CANNOT_CHANGE_NUMBERS) - {"qbench.plugin"} <= met
    for reasons in (WITHOUT_GRID, IN_RUNNER, IN_METHOD, IN_PROBE, IN_IMAGES):
        assert set(reasons) <= met


@pytest.mark.parametrize(
    "name",
    [
        *identity.RUNNER_SOURCES,
        *identity.PROBE_SOURCES,
        *identity.TRAJECTORY_SOURCES,
        *identity.STREAMED_SOURCES,
        *identity.STREAMED_PROBE_SOURCES,
    ],
)
def test_the_runners_sources_are_there(name: str) -> None:
    assert len(source_sha256(name)) == 64


SCRIPT = """
import json, sys
from pathlib import Path
from qbench.registry import METHODS, MODELS, QUANTIZERS
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.suite.cell import Cell

model, quantizer, method = sys.argv[1:]
given = {"llama-1m": {"evaluation_windows": 4, "calibration_windows": 4}}.get(model, {})
spec = MODELS.get(model)(name=model, **given)
short = {"ste_qat": {"steps": 1}, "brecq": {"iterations": 1}}.get(method, {})
cell = Cell(spec, QUANTIZERS.get(quantizer)(name=quantizer), 3, METHODS.get(method)(name=method, **short), 0, ("loss",))
planned = identify(cell)
before = set(sys.modules)
record = execute(planned, "s", Session("cpu"), Path(sys.argv[0]).with_name("w.safetensors"))
assert record.status == "ok", record.reason
named = {name.partition(":")[0] for part in ("model", "method", "quantizer") for name in planned.key[part]["sources"]}
named |= {name.partition(":")[0] for name in planned.key["runner"]}
print(json.dumps(sorted({name for name in sys.modules if name.startswith("qbench.")} - named)))
"""


@pytest.mark.parametrize(
    ("model", "quantizer", "method"),
    [("llama-1m", "mse", "gptq"), ("llama-1m", "nf", "brecq"), ("mlp-digits", "fp", "ste_qat")],
)
def test_no_other_module_is_imported_when_a_cell_is_run(
    tmp_path: Path, model: str, quantizer: str, method: str
) -> None:
    """Ask the interpreter, which knows nothing of the closure."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", model, quantizer, method], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    known = {*CANNOT_CHANGE_NUMBERS, *IN_RUNNER, *IN_METHOD, *IN_IMAGES}
    # What these bring: nothing that a cell of this kind calls.
    known |= closure({"qbench.runner.probing", "qbench.methods.fine_tune", "qbench.tasks.text", "qbench.tasks.zoo"}, ())
    known |= closure({"qbench.runner.machine", "qbench.runner.identity", "qbench.registry"}, ())
    strange = set(json.loads(done.stdout)) - known
    empty = {
        name for name in strange if not Path(qbench.__path__[0], *name.split(".")[1:], "__init__.py").stat().st_size
    }
    assert not strange - empty


class TestClosure:
    def _package(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
        for name, text in files.items():
            path = folder.joinpath("made", *name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for place in (folder / "made").rglob("*"):
            if place.is_dir() and not (place / "__init__.py").exists():
                (place / "__init__.py").write_text("")
        if not (folder / "made" / "__init__.py").exists():
            (folder / "made" / "__init__.py").write_text("")
        monkeypatch.syspath_prepend(folder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "made"]:
            monkeypatch.delitem(sys.modules, name)
        imports_of.cache_clear()

    def test_it_follows_every_spelling(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._package(
            tmp_path,
            monkeypatch,
            a="import made.b\nfrom made import c\nfrom made.d import thing\nimport os\n"
            "from . import e\nfrom .f import *",
            b="def f():\n    from made.deep.g import x",
            c="",
            d="thing = 1",
            e="try:\n    from .h import y\nexcept ImportError:\n    pass",
            f="",
            h="",
            not_met="",
            deep__g="from ..i import z\nfrom qbench.seeds import derive_seed",
            i="",
        )
        found = closure({"made.a"})
        assert {f"made.{name}" for name in ("a", "b", "c", "d", "e", "f", "h", "i", "deep.g")} <= found
        assert "made.not_met" not in found
        assert "qbench.seeds" in found
        assert not any(name.startswith("os") for name in found)

    def test_what_is_for_types_alone_is_not_met(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made import b\nelse:\n    from made import c"
        )
        self._package(tmp_path, monkeypatch, a=text, b="", c="")
        assert closure({"made.a"}) - {"made"} == {"made.a", "made.c"}

    def test_what_is_passed_over_is_not_gone_through(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._package(tmp_path, monkeypatch, a="from made import b", b="from made import c", c="")
        assert closure({"made.a"}, {"made.b"}) - {"made"} == {"made.a"}

    def test_rings_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._package(tmp_path, monkeypatch, a="from made import b", b="from made import a")
        assert closure({"made.a"}) - {"made"} == {"made.a", "made.b"}

    def test_nothing_is_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._package(tmp_path, monkeypatch, a="from made import b", b="raise RuntimeError")
        closure({"made.a"})
        assert not {"made.a", "made.b"} & set(sys.modules)


class TestDefinitions:
    def test_a_definition_is_hashed_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(tmp_path)

        def written(text: str) -> str:
            (tmp_path / "defined.py").write_text(text)
            source_sha256.cache_clear()
            return source_sha256("defined:wanted")

        first = written("def wanted():\n    return 1\n\n\ndef other():\n    return 1\n")
        assert first == written("# more\ndef other():\n    return 2\n\n\ndef wanted():\n    return 1\n")
        assert first != written("def wanted():\n    return 2\n")
        with pytest.raises(
            QBenchError, match=r"^'defined:wanted' is named as a source, and defined defines no wanted$"
        ):
            written("x = 1\n")

    def test_what_settles_the_process_is_in_every_key(self) -> None:
        assert "qbench.runner.machine:settle" in identity.RUNNER_SOURCES
        assert sources.source_sha256("qbench.runner.machine:settle") != source_sha256("qbench.runner.machine")
