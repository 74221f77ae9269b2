"""The same cell gives the same bytes, whatever ran before it; and randomness has a name, the same for all methods."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import qbench
from qbench.methods.adaround import AdaRound
from qbench.methods.block_ap import BlockAP
from qbench.methods.brecq import BRECQ
from qbench.methods.gptq import GPTQ
from qbench.methods.lsq import LearnedStepSize
from qbench.methods.noise_grad import NoiseGradient
from qbench.methods.random_grad import RandomGradient
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.runner.targets import make_problem
from qbench.store.record import Record
from qbench.store.same_result import differences
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]
PURPOSES = {"seed_of", "derive_seed", "_seed_of"}


@pytest.fixture(scope="module")
def cells(toy: MakeCell) -> list[Cell]:
    short = {"steps": 3, "batch_size": 2}
    methods = [
        GPTQ(name="gptq"),
        AdaRound(name="adaround", iterations=5),
        BRECQ(name="brecq", iterations=5),
        BlockAP(name="block_ap", epochs=1),
        StraightThroughQAT(name="ste_qat", **short),
        LearnedStepSize(name="lsq", **short),
        NoiseGradient(name="noise_grad", **short),
        RandomGradient(name="random_grad", **short),
        "spoils",
        "noisy",
        None,
    ]
    return [toy(method, seed=seed) for seed in (0, 1) for method in methods]


def run(cells: list[Cell], folder: Path) -> dict[str, Record]:
    session = Session("cpu")
    found = {}
    for cell in cells:
        planned = identify(cell)
        found[planned.cell_id] = execute(planned, "s", session, folder / planned.cell_id)
    return found


@pytest.mark.parametrize("order", ["backwards", 1, 2, "each alone"])
def test_the_order_of_cells_changes_no_byte(cells: list[Cell], tmp_path: Path, order: str | int) -> None:
    first = run(cells, tmp_path)
    assert {record.status for record in first.values()} == {"ok"}
    if order == "each alone":
        again = {key: record for cell in cells for key, record in run([cell], tmp_path).items()}
    else:
        shuffled = cells[::-1] if order == "backwards" else random.Random(order).sample(cells, len(cells))
        again = run(shuffled, tmp_path)
    assert first.keys() == again.keys()
    assert {
        first[key].label: differences(first[key], again[key]) for key in first if differences(first[key], again[key])
    } == {}


def test_the_state_that_a_cell_finds_changes_no_byte(cells: list[Cell], tmp_path: Path) -> None:
    first = run(cells[:8], tmp_path)
    random.seed(99)
    torch.manual_seed(99)
    torch.rand(1000)
    again = run(cells[:8], tmp_path)
    assert not any(differences(first[key], again[key]) for key in first)


def test_a_stream_is_the_same_for_two_methods_and_another_for_each_purpose_seed_and_model(toy: MakeCell) -> None:
    def problem(cell: Cell) -> Callable[[str], int]:
        session = Session("cpu")
        task = session.task(cell)
        return make_problem(task, task.model, cell, lambda place: session.grid(cell, place)).seed_of

    one, other = problem(toy("rtn")), problem(toy(GPTQ(name="gptq"), bits=2))
    purposes = sorted(named())
    assert [one(purpose) for purpose in purposes] == [other(purpose) for purpose in purposes]
    streams = [problem(toy("rtn", seed=seed, pause=pause)) for seed in (0, 1) for pause in (0.0, 0.001)]
    drawn = [stream(purpose) for stream in streams for purpose in purposes]
    assert len(set(drawn)) == len(drawn) == 4 * len(purposes)


def named() -> dict[str, set[str]]:
    """Return the purposes that streams are named by in the code of what is computed, and in which modules."""
    found: dict[str, set[str]] = {}
    root = Path(qbench.__path__[0])
    for room in ("methods", "tasks", "geometry", "runner", "quantizers", "quant"):
        for path in sorted((root / room).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    if name in PURPOSES and isinstance(node.args[0].value, str):
                        found.setdefault(node.args[0].value, set()).add(f"{room}.{path.stem}")
    return found


# Where two modules draw from one stream on purpose: what they do is to be compared on the same draws.
SHARED = {
    "reconstruction": {"methods.block_rounding", "methods.block_training"},
    "calibration": {"tasks.language", "tasks.image_task"},
    # One cell goes through one of them, or its ranks do, and they are to draw the same.
    "method": {"runner.execute", "runner.rank", "runner.streamed", "runner.streamed_moves"},
    "pretrain-batches": {"tasks.pretrain_images", "tasks.pretrain_language"},
}


def test_no_two_modules_share_a_stream_by_accident() -> None:
    found = named()
    assert {"method", "calibration", "train-batches", "reconstruction", "adaround"} <= set(found)
    assert {purpose: modules for purpose, modules in found.items() if len(modules) > 1} == {
        purpose: modules for purpose, modules in SHARED.items() if len(modules) > 1
    }


def test_no_code_draws_from_a_generator_without_a_seed() -> None:
    """Nothing computed asks a global generator, but what a worker seeds for methods before each of them."""
    drawn = set()
    root = Path(qbench.__path__[0])
    draws = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial"}
    for room in ("methods", "tasks", "geometry", "runner", "quantizers", "quant"):
        for path in sorted((root / room).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in draws
                    and getattr(node.func.value, "id", "") in ("torch", "random", "np")
                    and not any(keyword.arg == "generator" for keyword in node.keywords)
                ):
                    drawn.add(f"{room}.{path.stem}")
    # First weights, which pretraining seeds the process for, and a checkpoint is written over.
    assert drawn == {"tasks.image_models"}
