"""No method and no quantizer sees evaluation data: none is in what they are given, and who reaches for it fails."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch

from qbench.errors import CellError
from qbench.methods.problem import Problem
from qbench.methods.rtn import RoundToNearest
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quantizers.absmax import AbsMax
from qbench.runner.execute import execute
from qbench.runner.handed_over import HandedWatch, functions
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.runner.targets import make_problem
from qbench.suite.cell import Cell
from qbench.tasks import corpus, evaluation_fence
from qbench.tasks.causal_lm import ZooLM
from qbench.tasks.evaluation import announce
from qbench.tasks.image_classifier import ZooClassifier
from qbench.tasks.images import NAMED
from qbench.tasks.text import TextFolder, ThreeTexts

MODELS = {
    "language": ZooLM(name="llama-1m", evaluation_windows=4, calibration_windows=4, passages=2, choices=2),
    "images": ZooClassifier(name="mlp-digits", evaluation_images=40, calibration_images=16),
}


def reached(*given: object) -> dict[int, object]:
    """Return all objects that lead from the given ones, not through modules and classes: these are no one's to give."""
    found: dict[int, object] = {}
    waiting = list(given)
    while waiting:
        one = waiting.pop()
        if id(one) in found or isinstance(one, ModuleType | type):
            continue
        found[id(one)] = one
        if isinstance(one, FunctionType):
            # Not its globals, which are a module's.
            waiting += [one.__closure__, one.__defaults__, one.__kwdefaults__, one.__dict__]
        else:
            waiting += gc.get_referents(one)
            waiting += [one.untyped_storage()] if isinstance(one, torch.Tensor) else []
    return found


def storages(found: dict[int, object]) -> set[int]:
    return {one.untyped_storage().data_ptr() for one in found.values() if isinstance(one, torch.Tensor)}


@dataclass(frozen=True)
class Loaded:
    task: Any
    problem: Problem
    kept: tuple[object, ...]
    pixels: frozenset[int]


@pytest.fixture(scope="module", params=list(MODELS))
def loaded(request: pytest.FixtureRequest) -> Loaded:
    """Return a task that has evaluated, and a problem made of it."""
    model = MODELS[request.param]
    session = Session("cpu")
    cell = Cell(model, AbsMax(name="absmax"), 4, RoundToNearest(name="rtn"), 0, model.metrics)
    task = session.task(cell)
    task.evaluate(task.model, model.metrics)
    problem = make_problem(task, copy.deepcopy(task.model), cell, lambda place: session.grid(cell, place))
    kept = (
        task,
        task.evaluation,
        *([task._evaluation_documents, task._harness] if request.param == "language" else []),
    )
    return Loaded(task, problem, kept, frozenset(storages(reached(task.evaluation))))


def test_nothing_that_a_method_is_given_leads_to_evaluation_data(loaded: Loaded) -> None:
    batches = loaded.problem.train_batches(2, 0)
    given = reached(loaded.problem, batches, next(batches), loaded.problem.seed_of)
    assert not {id(one) for one in loaded.kept} & set(given)
    assert not loaded.pixels & storages(given)
    assert storages(reached(loaded.problem.calibration)) <= storages(given)


def test_the_walk_finds_what_the_task_itself_would_give_away(loaded: Loaded) -> None:
    assert id(loaded.task.evaluation) in reached(loaded.task.loss)
    assert loaded.pixels <= storages(reached(loaded.task.loss))


def test_the_data_a_method_is_given_is_cut_out_of_its_split_not_a_view_of_it(loaded: Loaded) -> None:
    own = sum(batch.numel() * batch.element_size() for batch in loaded.problem.calibration)
    assert loaded.problem.calibration[0].untyped_storage().nbytes() <= own


def test_what_is_handed_over_does_what_the_task_does(loaded: Loaded) -> None:
    task, problem, batch = loaded.task, loaded.problem, loaded.problem.calibration[0]
    assert torch.equal(problem.loss(task.model, batch), task.loss(task.model, batch))
    assert problem.predict is not None
    assert torch.equal(problem.predict(task.model, batch)[0], task.predict(task.model, batch)[0])
    assert problem.tokens_of(batch) == task.tokens_of(batch)


def test_a_task_without_a_function_hands_none_over() -> None:
    class Bare:
        predict = None

        def loss(self) -> int:
            return 7

    handed = functions(Bare(), "loss", "predict", "nothing")
    assert handed["loss"] is not None
    assert handed["loss"]() == 7
    assert (handed["predict"], handed["nothing"]) == (None, None)


def test_a_task_is_let_go_with_the_last_function_that_was_handed_over() -> None:
    import weakref

    class Task:
        def loss(self) -> int:
            return 7

    task = Task()
    handed, gone = functions(task, "loss"), weakref.ref(task)
    del task
    assert gone() is not None
    del handed
    gc.collect()
    assert gone() is None


class TestFence:
    def test_reading_evaluation_data_raises(self) -> None:
        said = r"^it read the evaluation split of the three texts while it quantized"
        with pytest.raises(CellError, match=said), evaluation_fence.raised():
            corpus.load("evaluation")

    def test_other_splits_are_free(self) -> None:
        with evaluation_fence.raised():
            assert corpus.load("calibration")
            announce("train", "anything")

    def test_it_does_not_help_to_take_no_notice(self) -> None:
        with pytest.raises(CellError, match="it read the evaluation split of x"), evaluation_fence.raised():
            try:
                announce("evaluation", "x")
            except CellError:
                pass

    def test_it_does_not_help_to_say_something_else(self) -> None:
        with pytest.raises(CellError, match="it read the evaluation split of x"), evaluation_fence.raised():
            try:
                announce("evaluation", "x")
            except CellError:
                raise ValueError("no luck") from None

    def test_what_it_has_nothing_to_do_with_passes(self) -> None:
        with pytest.raises(ValueError, match="no luck"), evaluation_fence.raised():
            raise ValueError("no luck")

    @pytest.mark.parametrize("opened", ["read_bytes", "open", "bytes", "symlink"])
    def test_files_are_known_by_name(self, tmp_path: Path, opened: str) -> None:
        file, other = tmp_path / "data.bin", tmp_path / "other.bin"
        for one in (file, other):
            one.write_bytes(b"data")
        (tmp_path / "link").symlink_to(file)
        ways: dict[str, Callable[[], object]] = {
            "read_bytes": file.read_bytes,
            "open": lambda: open(str(file)).close(),  # noqa: PTH123 - as a stranger's code may
            "bytes": lambda: open(str(file).encode()).close(),  # noqa: PTH123
            "symlink": (tmp_path / "link").read_bytes,
        }
        with evaluation_fence.raised([file]):
            assert other.read_bytes() == b"data"
        said = r"^it read the evaluation data in data.bin while it quantized"
        with pytest.raises(CellError, match=said), evaluation_fence.raised([file]):
            ways[opened]()

    def test_it_is_down_before_and_after(self, tmp_path: Path) -> None:
        file = tmp_path / "data.bin"
        file.write_bytes(b"data")
        with pytest.raises(CellError), evaluation_fence.raised([file]):
            file.read_bytes()
        assert file.read_bytes() == b"data"
        announce("evaluation", "x")

    def test_fences_nest(self) -> None:
        with evaluation_fence.raised():
            with pytest.raises(CellError), evaluation_fence.raised():
                announce("evaluation", "inner")
            with evaluation_fence.lowered():
                announce("evaluation", "ours")
            with pytest.raises(CellError):
                announce("evaluation", "outer")
            evaluation_fence._fence.touched.clear()

    def test_a_watch_looks_through_it(self) -> None:
        class Watch:
            def wants(self, step: int) -> bool:
                return step == 1

            def see(self, step: int, weights: object) -> None:
                announce("evaluation", "x")

        handed = HandedWatch(Watch())
        with evaluation_fence.raised():
            assert (handed.wants(0), handed.wants(1)) == (False, True)
            handed.see(1, [])
        assert not hasattr(handed, "traces")


@pytest.mark.parametrize("name", ["digits", "mnist_5k"])
def test_image_sources_announce(name: str) -> None:
    source = NAMED[name]()
    with evaluation_fence.raised():
        source.load("train")
    with pytest.raises(CellError, match=f"the evaluation split of {name}"), evaluation_fence.raised():
        source.load("evaluation")


def test_text_folders_announce_and_own_no_file_alone(tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"{index}.txt").write_text(f"words {index}. " * 20)
    source = TextFolder(folder=tmp_path)
    with evaluation_fence.raised(source.evaluation_files()):
        source.documents("calibration")
    said = f"the evaluation split of text folder {tmp_path.name}"
    with pytest.raises(CellError, match=said), evaluation_fence.raised():
        source.documents("evaluation")


def test_the_evaluation_text_and_its_tokens_are_files_behind_the_fence() -> None:
    task = MODELS["language"].load(0, "cpu")
    text, tokens = task.evaluation_files  # type: ignore[union-attr]
    assert [text] == ThreeTexts().evaluation_files() == [corpus.split_path("evaluation")]
    assert text.exists()
    task.evaluate(task.model, ("loss",))
    assert tokens.exists()
    before = {file: file.stat().st_atime_ns for file in tokens.parent.glob("*.safetensors")}
    assert tokens in before


class Reads(RoundToNearest):
    """Tunes itself on evaluation data, by one way or another."""

    way: str = "loader"

    def solve(self, problem: Problem) -> Any:
        ways[self.way](problem)
        return super().solve(problem)


def _search(problem: Problem) -> None:
    for one in gc.get_objects():
        if type(one).__name__ == "LanguageTask":
            one.evaluation_batches(2)


ways: dict[str, Callable[[Problem], object]] = {
    "loader": lambda problem: corpus.load("evaluation"),
    "file": lambda problem: corpus.split_path("evaluation").read_bytes(),
    "source": lambda problem: ThreeTexts().documents("evaluation"),
    "own copy of the task": lambda problem: MODELS["language"].load(0, "cpu").evaluation,  # type: ignore[union-attr]
    "search": _search,
}


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    yield Session("cpu")


@pytest.mark.parametrize("way", list(ways))
def test_a_method_that_reads_evaluation_data_fails_its_cell_with_one_line(
    session: Session, tmp_path: Path, way: str
) -> None:
    cell = Cell(MODELS["language"], AbsMax(name="absmax"), 4, Reads(name="reads", way=way), 0, ("loss",))
    record = execute(identify(cell), "s", session, tmp_path / "w.safetensors")
    assert record.status == "failed"
    assert record.reason is not None
    assert record.reason.startswith("it read the evaluation ")
    assert record.reason.endswith("while it quantized (allowed: calibration and training data)")
    assert "\n" not in record.reason
    assert not (tmp_path / "w.safetensors").exists()


class Peeks(AbsMax):
    """A quantizer that looks."""

    def choose_qparams(self, blocks: torch.Tensor, grid: Any) -> Any:
        corpus.load("evaluation")
        return super().choose_qparams(blocks, grid)


def test_a_quantizer_that_reads_evaluation_data_fails_its_cell(session: Session, tmp_path: Path) -> None:
    cell = Cell(MODELS["language"], Peeks(name="peeks"), 4, RoundToNearest(name="rtn"), 0, ("loss",))
    record = execute(identify(cell), "s", session, tmp_path / "w.safetensors")
    assert record.status == "failed"
    assert "it read the evaluation split of the three texts while it quantized" in str(record.reason)


def test_a_training_that_is_watched_passes(session: Session, tmp_path: Path) -> None:
    method = StraightThroughQAT(name="ste_qat", steps=2, batch_size=2)
    cell = Cell(MODELS["language"], AbsMax(name="absmax"), 4, method, 0, ("loss",), trajectory=2)
    record = execute(identify(cell), "s", session, tmp_path / "w.safetensors")
    assert record.status == "ok", record.reason
    assert record.traces["trajectory/deployed"]
