"""What cells need is what `memory` says of them, told without running any, and what they took is not far from it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.geometry.curvature import Curvature
from qbench.methods.fine_tune import FineTuning
from qbench.methods.gptq import GPTQ
from qbench.methods.rtn import RoundToNearest
from qbench.registry import METHODS
from qbench.runner import memory, streamed_memory
from qbench.runner.cell_memory import ShapeSession, bytes_needed
from qbench.runner.needs import Kind, Need, kind_of, needs
from qbench.runner.session import Session
from qbench.runner.targets import make_problem, no_grid
from qbench.store.archive import read_archive
from qbench.store.summary import Summary
from qbench.suite.cell import Cell
from qbench.suite.enumerate import enumerate_cells
from qbench.suite.load import load_suite
from qbench.tasks.causal_lm import CausalLM
from qbench.tasks.torchvision_ops import declare_missing_operators

MakeCell = Callable[..., Cell]
RECORDS = Path(__file__).parents[2] / "results" / "records"


@pytest.fixture
def lms(toys: ModuleType) -> ModuleType:
    """Return the makers of tiny language models, which lie beside the toys."""
    return importlib.import_module("streamed_lm")


def expected(cell: Cell, session: Session) -> int:
    task = session.task(cell)
    problem = make_problem(task, session.model(cell), cell, lambda place: no_grid())
    return memory.estimate(cell, problem).total


def measured(cell: Cell, peak: int, status: str = "ok") -> Summary:
    said: Any = status
    return Summary("0", cell.axes(), said, None, (), None, cell.is_probe, 1.0, peak, "")


def test_kinds_leave_out_quantizer_bits_and_seed(toy: MakeCell, toys: ModuleType) -> None:
    assert kind_of(toy("rtn", bits=2, seed=1)) == kind_of(toy("rtn")) == Kind("toy", "rtn", "quantized", False)
    probe = replace(toy("rtn"), method=None, probe=toys.Reader(name="reader"))
    control = replace(toy(), method=FineTuning(name="fine_tune"))
    kinds = [kind_of(cell) for cell in (toy(), toy("rtn"), control, probe, replace(toy("rtn"), trajectory=3))]
    assert [kind.form for kind in kinds] == ["fp", "quantized", "control", "probe", "quantized"]
    assert len(set(kinds)) == 5


def test_they_are_what_memory_says_and_what_was_measured_where_that_is_more(
    toy: MakeCell, llama: MakeCell, session: Session
) -> None:
    class Nowhere(RoundToNearest):  # a process that is started finds no class in a function
        pass

    trained = llama(METHODS.get("ste_qat").model_validate({"name": "ste_qat"}))
    cells = [toy(broken_seed=0), toy(), toy("rtn"), trained, toy(Nowhere(name="nowhere")), toy("rtn", seed=3)]
    skipped = replace(toy("rtn", pause=1.0), skip="not today")
    told = [measured(toy("rtn"), 5), measured(toy(), 1 << 40), measured(toy("rtn"), 1 << 40, "failed")]
    found = needs([*cells, skipped], told, "cpu")
    assert list(found) == [kind_of(cell) for cell in cells[:-1]]
    broken, fp, rtn, ste, nowhere = found.values()
    assert broken == Need(None, None, "unknown", "RuntimeError: the weights are gone")
    assert fp == Need(1 << 40, 0, "measured", None)
    assert rtn == Need(memory.PROCESS + expected(cells[2], session), 0, "shapes", None)
    assert ste == Need(memory.PROCESS + expected(trained, session), 0, "shapes", None)
    assert nowhere.source == "unknown" and "Nowhere" in (nowhere.reason or "")


def test_on_a_gpu_the_host_has_the_process_and_the_device_the_rest(llama: MakeCell, session: Session) -> None:
    cell = llama(RoundToNearest(name="rtn"))
    shapes = ShapeSession()
    host, device = bytes_needed(cell, shapes, "cuda")
    assert device == expected(cell, session) and memory.PROCESS < host < memory.PROCESS + device
    assert bytes_needed(cell, shapes, "auto") == (bytes_needed(cell, shapes, "cpu")[0], device)


def test_processes_that_share_a_training_are_counted(llama: MakeCell) -> None:
    method = METHODS.get("ste_qat").model_validate({"name": "ste_qat", "ranks": 2})
    shapes = ShapeSession()
    shared, alone = (
        bytes_needed(llama(one), shapes, "cpu")[0] for one in (method, method.model_copy(update={"ranks": 1}))
    )
    assert shared > alone + 2 * memory.PROCESS


def test_a_probe_needs_more_than_full_precision_and_second_derivatives_more_than_first(
    llama: MakeCell, toys: ModuleType
) -> None:
    shapes, point = ShapeSession(), llama(RoundToNearest(name="rtn"))
    probes = [
        replace(point, method=None, probe=probe, points=(point,))
        for probe in (toys.Reader(name="reader"), Curvature(name="curvature", samples=32))
    ]
    sizes = [bytes_needed(cell, shapes, "cpu")[0] for cell in (llama(None), *probes)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Mixtral"])
def test_a_folder_is_measured_without_its_weights(tmp_path: Path, lms: ModuleType, family: str) -> None:
    declare_missing_operators()
    folder = lms.saved_lm(tmp_path / "lm", family)
    spec = CausalLM.model_validate({"name": "causal_lm", "title": "lm", "path": folder, **lms.SMALL})
    shapes = ShapeSession()
    for method in (RoundToNearest(name="rtn"), METHODS.get("ste_qat").model_validate({"name": "ste_qat"})):
        cell = Cell(spec, lms.GRID, 3, method, 0, ("loss",))
        assert bytes_needed(cell, shapes, "cpu")[0] == memory.PROCESS + expected(cell, Session("cpu"))
        assert all(parameter.is_meta for parameter in shapes.task(cell).model.parameters())


def test_a_streamed_cell_needs_what_its_record_will_say(tmp_path: Path, lms: ModuleType) -> None:
    folder = lms.saved_lm(tmp_path / "lm")
    given = {"name": "causal_lm", "title": "lm", "path": folder, "device_map": "streamed", **lms.SMALL}
    shapes = ShapeSession()
    for method in (None, GPTQ(name="gptq")):
        grid = (None, None) if method is None else (lms.GRID, 3)
        cell = Cell(CausalLM.model_validate(given), *grid, method, 0, ("loss",))
        said = streamed_memory.estimate(shapes.task(cell), cell)["memory_estimate_bytes"]
        assert bytes_needed(cell, shapes, "cpu") == (said, 0)
        assert sum(bytes_needed(cell, shapes, "cuda")) == said


def test_published_peaks_are_those_that_are_expected_within_a_factor_of_two() -> None:
    peaks: dict[tuple[Any, Any], int] = {}
    for record in read_archive(RECORDS / "llm_lowbit.jsonl.xz").records:
        place = record.axes["model"], record.axes["method"]
        peaks[place] = max(peaks.get(place, 0), record.cost.peak_memory_bytes)
    shapes, ratios = ShapeSession(), {}
    for cell in enumerate_cells(load_suite("llm_lowbit"), 1):
        place = cell.axes()["model"], cell.axes()["method"]
        if place in peaks and place not in ratios:
            ratios[place] = bytes_needed(cell, shapes, "cpu")[0] / peaks[place]
    assert len(ratios) > 5
    assert all(0.5 < ratio < 2 for ratio in ratios.values()), ratios


SCRIPT = """
import sys
from qbench.runner.needs import needs
from qbench.suite.enumerate import enumerate_cells
from qbench.suite.load import load_suite

if __name__ == "__main__":
    cells = enumerate_cells(load_suite("smoke"))[:1]
    found = needs(cells, [], "cpu")
    assert [one.source for one in found.values()] == ["shapes"], found
    assert needs([], [], "cpu") == {}
    assert not {"torch", "ray"} & set(sys.modules)
"""


def test_the_process_that_asks_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
