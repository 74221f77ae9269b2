"""A training that is broken off goes on from its last checkpoint, and ends in the bytes of one that was not."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors import safe_open

from qbench.errors import CellError, UnwritableError
from qbench.methods.checkpoints import Snapshot
from qbench.methods.fine_tune import FineTuning
from qbench.registry import METHODS
from qbench.runner.checkpoints import CheckpointFile, fingerprint
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.planning import plan
from qbench.runner.run import run
from qbench.runner.session import Session
from qbench.store.folder import RunFolder
from qbench.store.record import Record
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]
Execute = Callable[..., Record]

ALWAYS = 1e-9
BUDGET: dict[str, Any] = {"steps": 6, "batch_size": 4, "learning_rate": 0.02}
FREEZE = {"oscillation": "freeze", "oscillation_threshold": 0.002, "oscillation_momentum": 0.5}
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("ste_qat", {}),
    ("ste_qat", {"optimizer": "sgd"}),
    ("ste_qat", {"optimizer_state": "8bit"}),
    ("ste_qat", {"scale": "dynamic", **FREEZE}),
    ("lsq", {}),
    ("lsq", FREEZE),
    ("latent_grad", {}),
    ("noise_grad", {}),
    ("random_grad", {}),
    ("ft_then_ptq", {}),
]
TRUNK = {"cell": "c", "format": "1"}


class Broken(CheckpointFile):
    """Saves after each step, and breaks the training off after one of them."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(path, ALWAYS)
        self.step = step

    def save(self, snapshot: Snapshot) -> None:
        super().save(snapshot)
        if snapshot.facts["steps"] == self.step:
            raise RuntimeError("the power is gone")


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Record, Record]]:
    """Return a function that executes a cell unbroken, and broken off and taken up again: both records."""
    monkeypatch.setattr("qbench.methods.adamw_8bit.SMALLEST", 64)  # toys are small

    def again(cell: Cell, step: int = 3) -> tuple[Record, Record]:
        planned = identify(cell)
        path = tmp_path / f"{planned.cell_id}.safetensors"
        whole = execute(planned, "s", Session("cpu"), tmp_path / "whole")
        assert whole.status == "ok", whole.reason
        off = execute(planned, "s", Session("cpu"), tmp_path / "off", None, Broken(path, step))
        assert off.reason == "RuntimeError: the power is gone"
        with safe_open(path, framework="pt") as file:
            before = json.loads(file.metadata()["training"])["seconds"]
        resumed = execute(planned, "s", Session("cpu"), tmp_path / "resumed", None, CheckpointFile(path))
        assert resumed.status == "ok", resumed.reason
        assert resumed.facts.pop("resumed_at_step") == step
        # What is kept is the time with that of looking on, which a record leaves out.
        assert resumed.cost.method_seconds > (0 if cell.trajectory else before) and before > 0
        if whole.weights_sha256 is not None:
            assert (tmp_path / "whole").read_bytes() == (tmp_path / "resumed").read_bytes()
        return whole, resumed

    return again


def assert_same(whole: Record, resumed: Record) -> None:
    for name in ("metrics", "documents", "traces", "layers", "weights_sha256", "facts"):
        assert getattr(resumed, name) == getattr(whole, name), name
    assert resumed.cost.train_tokens == whole.cost.train_tokens
    assert resumed.cost.train_steps == whole.cost.train_steps


@pytest.mark.parametrize(("name", "options"), WAYS, ids=str)
def test_every_training_ends_in_the_same_bytes(
    toy: MakeCell, again: Callable[..., tuple[Record, Record]], name: str, options: dict[str, Any]
) -> None:
    method = METHODS.get(name).model_validate({"name": name, **BUDGET, **options})
    assert_same(*again(toy(method, bits=3)))


@pytest.mark.parametrize("step", [1, 6])
def test_it_goes_on_after_the_first_step_and_after_the_last(
    toy: MakeCell, again: Callable[..., tuple[Record, Record]], step: int
) -> None:
    assert_same(*again(toy(METHODS.get("ste_qat").model_validate({"name": "ste_qat", **BUDGET})), step))


@pytest.mark.parametrize("name", ["fine_tune", "lsq"])
def test_running_statistics_go_on(images: MakeCell, again: Callable[..., tuple[Record, Record]], name: str) -> None:
    options = {"name": name, **BUDGET, "bn_training": "update"}
    control = FineTuning.model_validate(options)
    assert_same(*again(images(control if name == "fine_tune" else METHODS.get(name).model_validate(options))))


def test_a_language_model_goes_on_with_its_trajectory_or_with_quantized_inputs(
    llama: MakeCell, again: Callable[..., tuple[Record, Record]]
) -> None:
    method = METHODS.get("lsq").model_validate({"name": "lsq", "steps": 4, "batch_size": 2, "distillation": 0.5})
    whole, resumed = again(dataclasses.replace(llama(method), trajectory=4), 2)
    assert whole.traces["trajectory/step"][-1] == 4
    assert_same(whole, resumed)
    assert_same(*again(llama(method, activations={"bits": 8, "scale": "static"}), 2))


@pytest.fixture
def kept(tmp_path: Path) -> CheckpointFile:
    """Return a file with a snapshot in it."""
    file = CheckpointFile(tmp_path / "deep" / "one.safetensors", ALWAYS)
    file.begin(TRUNK)
    tensors = {
        "a.weight": torch.randn(3, 5),
        "a.half": torch.randn(4).bfloat16(),
        "b": torch.arange(7).to(torch.uint8),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(2.0, dtype=torch.float64),
        "turned": torch.randn(3, 5).T,
        "mask": torch.tensor([True, False]),
    }
    file.save(Snapshot(tensors, {"steps": 3, "losses": [0.1, 1 / 3, 2e-300]}))
    return file


def test_what_is_written_is_read(kept: CheckpointFile) -> None:
    before = kept.load()
    other = CheckpointFile(kept.path)
    other.begin(TRUNK)
    found = other.load()
    assert before is not None and found is not None and found.facts == {"steps": 3, "losses": [0.1, 1 / 3, 2e-300]}
    assert found.tensors.keys() == before.tensors.keys() and other.resumed_at == 3
    assert all(torch.equal(value, before.tensors[name]) for name, value in found.tensors.items())
    assert {name: value.dtype for name, value in found.tensors.items()}["a.half"] == torch.bfloat16
    assert found.tensors["turned"].shape == (5, 3) and found.tensors["one"].shape == ()
    assert sorted(found.part("a")) == ["half", "weight"]
    assert [path.name for path in kept.path.parent.iterdir()] == ["one.safetensors"]
    assert CheckpointFile(kept.path.with_name("other")).load() is None


def test_it_is_due_when_its_time_has_come() -> None:
    assert not CheckpointFile(Path("x"), 0).due() and not CheckpointFile(Path("x"), 1000).due()
    assert CheckpointFile(Path("x"), ALWAYS).due()


def test_the_time_of_writing_is_not_the_method_s(kept: CheckpointFile, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    file = CheckpointFile(kept.path, 60)
    file.begin(TRUNK)
    now[0] += 50
    assert file.elapsed() == 50 and not file.due()
    now[0] += 10
    assert file.due()
    monkeypatch.setattr("qbench.runner.checkpoints._write", lambda *_: now.append(now.pop() + 7))
    file.save(Snapshot({}, {"steps": 1}))
    assert file.elapsed() == 60 and not file.due()
    later = CheckpointFile(kept.path)
    later.begin(TRUNK)
    later.load()
    now[0] += 5
    assert later.elapsed() == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize(("part", "word"), [("torch", "torch"), ("threads", "number of threads"), ("cell", "cell")])
def test_another_ground_is_refused(kept: CheckpointFile, part: str, word: str) -> None:
    environment = {"torch": "2.0", "threads": 2, "device": "cpu"}
    kept.begin(fingerprint("c", environment))
    kept.save(Snapshot({}, {"steps": 1}))
    now = fingerprint("c", environment) | {part: "other"}
    kept.begin(now)
    was = fingerprint("c", environment)[part]
    with pytest.raises(CellError) as error:
        kept.load()
    assert f" is of a training on another {word} (was {was}, is other): " in str(error.value)
    how = " (processes share out the cores: --jobs sets it)" if part == "threads" else ""
    assert str(error.value).endswith(f"the same {word} goes on from it{how}, and --fresh begins the cell again")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "folder"])
def test_a_damaged_file_is_refused(kept: CheckpointFile, damage: str) -> None:
    data = bytearray(kept.path.read_bytes())
    if damage == "cut":
        del data[-5:]
    elif damage == "flipped":
        data[-3] ^= 1
    elif damage == "empty":
        data.clear()
    elif damage == "text":
        data[:] = b"not a checkpoint at all"
    kept.path.write_bytes(data)
    if damage == "folder":
        kept.path.unlink()
        kept.path.mkdir()
    with pytest.raises(CellError, match=r"one\.safetensors is no checkpoint \(.+\); --fresh begins the cell again$"):
        kept.load()


def test_what_cannot_be_written_is_told_and_leaves_the_last_one(kept: CheckpointFile, monkeypatch: Any) -> None:
    before = kept.path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnwritableError, match=r"cannot write .*: No space left on device \(make room there\)"):
        kept.save(Snapshot({}, {"steps": 4}))
    assert kept.path.read_bytes() == before
    assert len(list(kept.path.parent.iterdir())) == 1


class Leaves:
    """An executor whose cells leave a checkpoint and end as they are told to."""

    def __init__(self, folder: RunFolder, status: str) -> None:
        self.folder, self.status, self.found = folder, status, list[bool]()

    def run(self, cells: Any, suite: str, weights_path: Any, begun: Any) -> Any:
        for one in cells:
            path = self.folder.checkpoint_path(one.cell_id)
            self.found.append(path.exists())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            yield one.not_executed(suite, self.status, "so it is", "2026-01-01")


def test_checkpoints_go_with_what_ends_and_with_fresh_and_stay_with_what_failed(toy: MakeCell, tmp_path: Path) -> None:
    folder, cells = RunFolder(tmp_path), [toy("rtn")]

    def go(status: str, *, fresh: bool = False) -> tuple[list[bool], int]:
        executor: Any = Leaves(folder, status)
        run(plan(cells, folder, fresh=fresh), "toy", folder, executor, lambda record: None)
        return executor.found, len(folder.checkpoints())

    assert go("failed") == ([False], 1)
    assert go("timeout") == ([True], 1)
    assert go("failed", fresh=True) == ([False], 1)
    assert go("diverged") == ([True], 0)
    assert go("failed") == ([False], 1)
    (tmp_path / "checkpoints" / ".half.safetensors.x.tmp").touch()
    assert len(folder.checkpoints()) == 1
    with folder.lock():
        pass
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    assert list(folder.scan().records) == [identify(cells[0]).cell_id]
    assert go("ok") == ([True], 0)


SUITE = """
name: slow
matrix:
  models: [toy]
  quantizers: [absmax]
  bits: [4]
  methods: [{name: ste_qat, steps: 1000, batch_size: 4}]
  seeds: 1
metrics: [loss]
"""
DRIVER = """
import sys
import toys
from qbench.cli import main
if __name__ == "__main__":
    toys.install()
    sys.exit(main())
"""
PATIENCE = 240


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.timeout(600)
def test_a_killed_worker_and_a_killed_run_go_on(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(SUITE)
    (tmp_path / "driver.py").write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}

    def start(out: str, every: float) -> subprocess.Popen[str]:
        command = [sys.executable, "driver.py", "run", "--suite", "slow.yaml", "--device", "cpu", "--jobs", "1"]
        command += ["--out", out, "--checkpoint-every", str(every)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stdout=pipe, stderr=pipe)

    def step_reached(out: str) -> int:
        for path in (tmp_path / out / "checkpoints").glob("[!.]*"):
            try:
                with safe_open(path, framework="pt") as file:
                    return int(json.loads(file.metadata()["training"])["facts"]["steps"])
            except OSError:
                return 0
        return 0

    def kill_at(driver: subprocess.Popen[str], out: str, step: int) -> None:
        end = time.monotonic() + PATIENCE
        while step_reached(out) <= step:
            assert driver.poll() is None and time.monotonic() < end
            time.sleep(0.01)

    with start("whole", 0) as driver:
        _, said = driver.communicate(timeout=PATIENCE)
        assert driver.returncode == 0, said
    assert not (tmp_path / "whole" / "checkpoints").exists()
    with start("off", 0.05) as driver:
        kill_at(driver, "off", 0)
        (worker,) = [
            one
            for one in psutil.Process(driver.pid).children(recursive=True)
            if "resource_tracker" not in " ".join(one.cmdline())
        ]
        reached = step_reached("off")
        worker.send_signal(signal.SIGKILL)
        kill_at(driver, "off", reached + 1)  # tried again, and gone on
        reached = step_reached("off")
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    with start("off", 0.05) as driver:
        _, said = driver.communicate(timeout=PATIENCE)
        assert driver.returncode == 0, said
    whole, off = (RunFolder(tmp_path / out).read_all() for out in ("whole", "off"))
    assert whole.keys() == off.keys() and len(off) == 3  # full precision, the control and the method
    resumed = [record.facts.pop("resumed_at_step") for record in off.values() if "resumed_at_step" in record.facts]
    assert max(resumed) >= reached > 1
    for cell_id, record in off.items():
        assert_same(whole[cell_id], record)
    assert list((tmp_path / "off" / "checkpoints").iterdir()) == []
