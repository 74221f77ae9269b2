"""The three ways to a stale result: changed code, another model or data, another seed. None serves an old record.

Each change reruns the cells that it touches and no other, and what is undone finds its old records again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from qbench.runner import identity, sources
from qbench.runner.execute import execute
from qbench.runner.planning import plan
from qbench.runner.run import run
from qbench.runner.session import Session
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.suite.enumerate import enumerate_cells
from qbench.suite.load import load_suite
from qbench.tasks.causal_lm import ZooLM

SUITE = """\
name: own
plugins: [mine, clip.py]
matrix:
  models:
    - name: causal_lm
      title: own model
      path: model
      text: {folder: texts}
      window: 32
      evaluation_windows: 4
      calibration_windows: 4
  quantizers: [absmax, clip]
  bits: [3]
  methods: [rtn, mine]
  seeds: [0]
metrics: [loss]
"""
METHOD = """\
from qbench.methods.rtn import RoundToNearest
from qbench.plugin import register_method


@register_method("mine")
class Mine(RoundToNearest):
    share: float = 1.0

    def solve(self, problem):
        from .deep import helper

        found = super().solve(problem)
        return helper.scaled(found, self.share)
"""
HELPER = """\
from dataclasses import replace

FACTOR = 1.01


def scaled(found, share):
    def layer(one):
        return replace(one, grid=one.grid.with_scale(one.grid.scale * FACTOR * share))

    return replace(found, layers={name: layer(one) for name, one in found.layers.items()})
"""
CLIP = """\
from qbench.plugin import QParams, register_quantizer
from qbench.quantizers.absmax import AbsMax


@register_quantizer("clip")
class Clip(AbsMax):
    def choose_qparams(self, blocks, grid):
        found = super().choose_qparams(blocks, grid)
        return QParams(found.scale * 0.90, found.zero_point)
"""
MODEL = "own model"
ALL = {
    f"{MODEL}/fp/s0",
    *(
        f"{MODEL}/{quantizer}[per_channel]/3b/{method}/s0"
        for quantizer in ("absmax", "clip")
        for method in ("rtn", "mine")
    ),
}
OF_MINE = {label for label in ALL if "/mine/" in label}
OF_CLIP = {label for label in ALL if "/clip" in label}


class InThisProcess:
    """An executor that begins anew each time, as a process does."""

    def __init__(self) -> None:
        self.session, self.executed = Session("cpu"), set[str]()

    def run(
        self, cells: Iterator[identity.PlannedCell], suite: str, weights_path: Callable[[str], Path], begun: object
    ) -> Iterator[Record]:
        for one in cells:
            self.executed.add(one.cell.label())
            yield execute(one, suite, self.session, weights_path(one.cell_id))


@dataclass(frozen=True)
class Place:
    """A folder with a suite, all that it names, and its records."""

    folder: Path

    def go(self) -> tuple[set[str], dict[str, Record]]:
        """Run the suite as a new process would; return the labels of what was executed, and all records by label."""
        for remembered in (identity._describe, identity._fingerprint, sources.source_sha256, sources.imports_of):
            remembered.cache_clear()
        cells = enumerate_cells(load_suite(str(self.folder / "own.yaml")))
        folder, executor = RunFolder(self.folder / "run"), InThisProcess()
        records = run(plan(cells, folder), "own", folder, executor, lambda record: None)  # type: ignore[arg-type]
        assert {record.status for record in records.values()} == {"ok"}, [r.reason for r in records.values()]
        return executor.executed, {record.label: record for record in records.values()}

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert text.count(old) == 1
        (self.folder / name).write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Return a place in which the suite was run."""
    folder = tmp_path_factory.mktemp("own")
    task = ZooLM(name="llama-1m", evaluation_windows=4).load(0, "cpu")
    task.model.save_pretrained(folder / "model")  # type: ignore[operator, union-attr]
    task.tokenizer.save_pretrained(folder / "model")  # type: ignore[union-attr]
    (folder / "texts").mkdir()
    for index in range(30):
        (folder / "texts" / f"{index}.txt").write_text(f"The story of number {index} begins and goes on. " * 20)
    (folder / "mine" / "deep").mkdir(parents=True)
    (folder / "mine" / "__init__.py").write_text("from . import method\n")
    (folder / "mine" / "method.py").write_text(METHOD)
    (folder / "mine" / "deep" / "__init__.py").write_text("")
    (folder / "mine" / "deep" / "helper.py").write_text(HELPER)
    (folder / "clip.py").write_text(CLIP)
    (folder / "own.yaml").write_text(SUITE)
    place = Place(folder)
    executed, _ = place.go()
    assert executed == ALL
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """Return this test's own copy."""
    shutil.copytree(made.folder, tmp_path / "own")
    return Place(tmp_path / "own")


def test_nothing_changed_and_nothing_is_run(place: Place) -> None:
    assert place.go()[0] == set()


def _weights(place: Place) -> None:
    file = place.folder / "model" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if "mlp" in name)
    save_file({**tensors, name: tensors[name] * 1.1}, file, metadata={"format": "pt"})


def _text(place: Place) -> None:
    for index in range(30):
        (place.folder / "texts" / f"{index}.txt").write_text(f"Another story of {index} is told and ends. " * 20)


CHANGES: dict[str, tuple[Callable[[Place], object], set[str]]] = {
    "a plugin's own file": (
        lambda place: place.replace("mine/method.py", "share: float = 1.0", "share: float = 0.9"),
        OF_MINE,
    ),
    "a helper in its package": (lambda place: place.replace("mine/deep/helper.py", "1.01", "1.10"), OF_MINE),
    "a lone file": (lambda place: place.replace("clip.py", "0.90", "0.80"), OF_CLIP),
    "its version": (lambda place: place.replace("clip.py", "Clip(AbsMax):", "Clip(AbsMax):\n    version = 2"), OF_CLIP),
    "weights": (_weights, ALL),
    "text": (_text, ALL),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_reruns_what_it_touches_and_no_more(place: Place, change: str) -> None:
    make, touched = CHANGES[change]
    _, before = place.go()
    make(place)
    executed, after = place.go()
    assert executed == touched
    for label, record in after.items():
        assert (record.cell_id == before[label].cell_id) == (label not in touched)
    if change != "its version":
        # New numbers, not the old ones under a new name.
        assert all(after[label].documents != before[label].documents for label in touched)
    assert place.go()[0] == set()


@pytest.mark.parametrize("file", ["mine/method.py", "mine/deep/helper.py", "model/model.safetensors", "texts/3.txt"])
def test_what_is_undone_finds_its_records_again(place: Place, file: str) -> None:
    _, before = place.go()
    kept = (place.folder / file).read_bytes()
    if file.endswith(".safetensors"):
        _weights(place)
    else:
        (place.folder / file).write_bytes(kept + b"\n# more\n")
    assert place.go()[0]
    (place.folder / file).write_bytes(kept)
    executed, after = place.go()
    assert executed == set()
    assert after == before


def test_an_older_file_with_a_newer_date_is_the_older_file(place: Place) -> None:
    for file in place.folder.rglob("*"):
        if file.is_file() and "run" not in file.parts:
            os.utime(file, (2_000_000_000, 2_000_000_000))
    assert place.go()[0] == set()


def test_another_seed_is_another_cell(place: Place) -> None:
    _, before = place.go()
    place.replace("own.yaml", "seeds: [0]", "seeds: [0, 1]")
    executed, after = place.go()
    assert executed == {label.replace("/s0", "/s1") for label in ALL}
    assert {label: after[label] for label in ALL} == before


def test_a_model_elsewhere_with_the_same_bytes_is_the_same(place: Place) -> None:
    (place.folder / "more").mkdir()
    shutil.move(place.folder / "model", place.folder / "more" / "model")
    place.replace("own.yaml", "path: model", "path: more/model")
    assert place.go()[0] == set()


def test_a_helper_of_an_installed_package_counts_without_being_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "installed_one"
    (folder / "deep").mkdir(parents=True)
    for name in ("__init__.py", "deep/__init__.py"):
        (folder / name).write_text("")
    (folder / "method.py").write_text(METHOD.replace('@register_method("mine")\n', ""))
    (folder / "deep" / "helper.py").write_text(HELPER)
    (tmp_path / "aside.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)

    import importlib

    from qbench.quantizers.absmax import AbsMax
    from qbench.suite.cell import Cell

    kind = importlib.import_module("installed_one.method").Mine

    def key() -> dict[str, str]:
        for remembered in (identity._describe, sources.source_sha256, sources.imports_of):
            remembered.cache_clear()
        cell = Cell(ZooLM(name="llama-1m"), AbsMax(name="absmax"), 3, kind(name="mine"), 0, ("loss",))
        found: dict[str, str] = identity.identify(cell).key["method"]["sources"]
        return found

    before = key()
    own = {"installed_one", "installed_one.method", "installed_one.deep", "installed_one.deep.helper"}
    assert {name for name in before if not name.startswith("qbench")} == own
    for name in ("deep/helper.py", "deep/__init__.py", "__init__.py", "method.py"):
        text = (folder / name).read_text()
        (folder / name).write_text(text + "\nMORE = 1\n")
        assert key() != before, name
        (folder / name).write_text(text)
    assert key() == before


@pytest.mark.slow
def test_by_the_command_line(made: Place, tmp_path: Path) -> None:
    place = Place(tmp_path / "own")
    shutil.copytree(made.folder, place.folder)

    def run_it() -> str:
        command = [
            Path(sys.executable).with_name("qbench"),
            "run",
            "--suite",
            "own.yaml",
            "--out",
            "run",
            "--jobs",
            "1",
        ]
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        done = subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return next(line for line in done.stderr.splitlines() if line.startswith("own: "))

    assert run_it().startswith("own: 0 cells to run, 5 from the records")
    place.replace("mine/deep/helper.py", "1.01", "1.10")
    assert run_it().startswith("own: 2 cells to run, 3 from the records")
    _weights(place)
    assert run_it().startswith("own: 5 cells to run, 0 from the records")
    place.replace("own.yaml", "seeds: [0]", "seeds: [0, 1]")
    assert run_it().startswith("own: 5 cells to run, 5 from the records")
