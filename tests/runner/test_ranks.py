"""A cell whose training is shared: its record, and what becomes of it when a rank is lost."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import psutil
import pytest
import torch

from qbench.errors import CellError, DivergedError
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.runner import ranks
from qbench.runner.execute import execute
from qbench.runner.identity import SHARED_SOURCES, identify
from qbench.runner.meeting import LastWords, Meeting
from qbench.runner.memory import estimate
from qbench.runner.packed_file import read_packed
from qbench.runner.rank_memory import parts_of_ranks
from qbench.runner.session import Session
from qbench.runner.targets import make_problem, no_grid
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]


@pytest.fixture(scope="module")
def trouble(toys: ModuleType) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a method whose second rank does not live to the end."""
    module = importlib.import_module("rank_toys")
    yield lambda plan, folder="": module.Trouble(name="trouble", ranks=2, plan=plan, folder=str(folder))
    # A plugin of the tests must not be hashed with the cells of others.
    sys.modules.pop("rank_toys", None)


def test_a_shared_training_gives_the_record_of_one_process(llama: MakeCell, session: Session, tmp_path: Path) -> None:
    records, weights = [], []
    for count in (1, 2):
        method = StraightThroughQAT(name="ste_qat", steps=2, batch_size=4, ranks=count)
        planned = identify(llama(method))
        records.append(execute(planned, "s", session, tmp_path / f"{count}"))
        assert records[-1].status == "ok", records[-1].reason
        weights.append({name: layer.weight() for name, layer in read_packed(tmp_path / f"{count}").layers.items()})
        assert (set(SHARED_SOURCES) <= set(planned.key["runner"])) == (count == 2)
    alone, shared = records
    assert shared.cell_id != alone.cell_id
    assert shared.axes["method"] == "ste_qat[steps=2,batch_size=4,ranks=2]"
    assert shared.metrics == pytest.approx(alone.metrics, rel=1e-3)
    assert shared.traces["train_loss"] == pytest.approx(alone.traces["train_loss"], rel=1e-4)
    assert shared.cost.train_tokens == alone.cost.train_tokens
    assert shared.effective_bits == alone.effective_bits
    assert [row.name for row in shared.layers] == [row.name for row in alone.layers]
    assert "ranks" not in alone.facts
    assert shared.facts["ranks"]["count"] == 2
    assert shared.cost.peak_memory_bytes >= max(shared.facts["ranks"]["peak_memory_bytes"]) > 0
    for name, weight in weights[0].items():
        assert (weight == weights[1][name]).float().mean() > 0.999, name


def test_a_killed_rank_costs_its_cell_alone(
    toy: MakeCell, trouble: Callable[..., Any], session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, with no process and no file left."""
    monkeypatch.setattr(ranks.tempfile, "tempdir", str(tmp_path))
    record = execute(identify(toy(trouble("die"))), "s", session, tmp_path / "weights")
    assert record.status == "failed"
    assert record.reason == (
        "rank 1 of 2 died without a word: killed, as the system does where memory runs out, or crashed (exit status -9)"
    )
    assert not list(tmp_path.glob("qbench-ranks-*"))
    assert not [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
    assert execute(identify(toy("rtn")), "s", session, tmp_path / "weights").status == "ok"


@pytest.mark.parametrize(
    ("codes", "words", "kind", "said"),
    [
        ([1, 1], {0: ("error", "Connection closed"), 1: ("failed", "no memory")}, CellError, "rank 1 of 2: no memory"),
        ([1, 1], {0: ("error", "Connection closed"), 1: ("diverged", "a loss is nan")}, DivergedError, "a loss is nan"),
        ([1, -9], {0: ("error", "Connection closed")}, CellError, "rank 1 of 2 died without a word"),
        ([None, 1], {1: ("error", "ValueError: no")}, CellError, "rank 1 of 2: ValueError: no"),
    ],
)
def test_the_reason_is_that_of_who_was_first_at_fault(
    tmp_path: Path,
    codes: list[int | None],
    words: dict[int, tuple[Literal["diverged", "failed", "error"], str]],
    kind: type[Exception],
    said: str,
) -> None:
    """And not that of those who lost a rank."""
    for rank, (sort, text) in words.items():
        Meeting(tmp_path).say(rank, LastWords(sort, text))
    found = ranks._reason(codes, Meeting(tmp_path))
    assert type(found) is kind
    assert str(found).startswith(said)


SCRIPT = """
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    import rank_toys
    import toys
    from qbench.quantizers.absmax import AbsMax
    from qbench.runner.execute import execute
    from qbench.runner.identity import identify
    from qbench.runner.session import Session
    from qbench.suite.cell import Cell

    method = rank_toys.Trouble(name="trouble", ranks=2, plan="sleep", folder=sys.argv[1])
    cell = Cell(toys.Toy(name="toy"), AbsMax(name="absmax"), 4, method, 0, ("loss",))
    execute(identify(cell), "s", Session("cpu"), Path(sys.argv[1]) / "weights")
"""


def test_ranks_end_with_the_worker(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    script = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), str(Path(__file__).parent)]
    # What a killed worker leaves in the system's folder for temporary files is to be ours.
    with subprocess.Popen(script, env=os.environ | {"TMPDIR": str(tmp_path)}) as worker:
        try:
            places = [tmp_path / f"pid-{rank}" for rank in range(2)]
            _wait_for(lambda: worker.poll() is not None or all(_is_written(place) for place in places))
            assert worker.poll() is None
            numbers = [int(place.read_text()) for place in places]
        finally:
            worker.kill()
    _wait_for(lambda: not any(psutil.pid_exists(number) and _runs(number) for number in numbers))


def _is_written(place: Path) -> bool:
    return place.exists() and place.read_text().endswith(" ")


def _runs(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE  # whoever took it over may be slow to bury it
    except psutil.NoSuchProcess:
        return False


def _wait_for(there: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_rank_needs_a_gpu(toy: MakeCell, trouble: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cell, session = toy(trouble("die")), Session("cpu")
    problem = make_problem(session.task(cell), session.model(cell), cell, lambda place: session.grid(cell, place))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        CellError, match=r"ranks: 2 needs a GPU for each rank, and torch finds 1 \(allowed here: up to 1\)"
    ):
        ranks.solve(cell, "cuda", problem)


def test_a_trajectory_is_refused(toy: MakeCell, trouble: Callable[..., Any], session: Session, tmp_path: Path) -> None:
    cell = replace(toy(trouble("die")), trajectory=3)
    record = execute(identify(cell), "s", session, tmp_path / "weights")
    assert record.status == "failed"
    assert record.reason is not None
    assert record.reason.endswith("(allowed: trajectory: 0)")


def test_memory_is_that_of_all_ranks_or_of_one_gpu() -> None:
    parts = {"models": 200, "latent weights": 90, "optimizer": 181, "teacher": 100, "activations": 40}
    together = parts_of_ranks(parts, 2, 100, own_device=False)
    assert together == parts | {"models of ranks": 200, "teacher": 200}
    on_gpu = parts_of_ranks(parts, 2, 100, own_device=True)
    halves = {"latent weights": 45, "optimizer": 91, "activations": 20}
    assert on_gpu == parts | halves | {"models of ranks": 100}


def test_a_shared_cell_is_told_its_memory(llama: MakeCell, session: Session) -> None:
    found = []
    for count in (1, 2):
        cell = llama(StraightThroughQAT(name="ste_qat", ranks=count))
        problem = make_problem(session.task(cell), session.model(cell), cell, lambda place: no_grid())
        found.append(estimate(cell, problem))
    alone, shared = found
    assert shared.parts["models of ranks"] == alone.parts["models"]
    assert shared.parts["latent weights"] == alone.parts["latent weights"]
