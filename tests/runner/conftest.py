"""Cells to run: of the embedded model, and of a toy that loads in a moment."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from qbench.methods.base import Method
from qbench.methods.fine_tune import FineTuning
from qbench.methods.rtn import RoundToNearest
from qbench.quantizers.absmax import AbsMax
from qbench.runner.identity import PlannedCell, identify
from qbench.spec import Spec
from qbench.suite.cell import Cell

if TYPE_CHECKING:
    from qbench.runner.session import Session

MakeCell = Callable[..., Cell]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Run on one thread: the tensors are so small that a second one only waits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toys() -> Iterator[ModuleType]:
    """Return the toys, importable by that name in worker processes as well."""
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    yield importlib.import_module("toys")
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def lms() -> Iterator[ModuleType]:
    """Return saved language models, whole and streamed."""
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    yield importlib.import_module("streamed_lm")
    sys.path.remove(folder)


@pytest.fixture
def both(tmp_path: Path, lms: ModuleType) -> Callable[..., Any]:
    """Return a function that saves a language model and runs cells of it whole and block by block."""

    def both(family: str = "Llama", dtype: str = "float32", **options: Any) -> Any:
        return lms.Both(lms.saved_lm(tmp_path / "model", family, **options), dtype)

    return both


@pytest.fixture(scope="session")
def toy(toys: ModuleType) -> MakeCell:
    """Return a function that makes a cell of the toy: full precision, or by a method, given by name or as an object."""

    def make(method: str | Method | None = None, *, bits: int = 4, seed: int = 0, **model: Any) -> Cell:
        spec = toys.Toy(name="toy", **model)
        if method is None:
            return Cell(spec, None, None, None, seed, ("loss",))
        if isinstance(method, str):
            method = RoundToNearest(name="rtn") if method == "rtn" else toys.METHODS[method](name=method)
        return Cell(spec, AbsMax(name="absmax"), bits, method, seed, ("loss",))

    return make


@pytest.fixture(scope="session")
def images(toys: ModuleType) -> MakeCell:
    """Return a function that makes a cell of the classifier of images."""
    spec = importlib.import_module("image_toys").ImageToy

    def make(method: Spec | None = None, *, bits: int = 4, normed: bool = True, **quantizer: Any) -> Cell:
        model, metrics = spec(name="image_toy", normed=normed), ("loss", "accuracy")
        if method is None or isinstance(method, FineTuning):
            return Cell(model, None, None, method, 0, metrics)
        return Cell(model, AbsMax(name="absmax", **quantizer), bits, method, 0, metrics)

    return make


@pytest.fixture(scope="session")
def llama() -> MakeCell:
    """Return a function that makes a cell of the embedded model, with little data."""
    from qbench.tasks.causal_lm import ZooLM

    spec = ZooLM(name="llama-1m", evaluation_windows=8, calibration_windows=8, passages=2, choices=4)

    def make(method: Method | None = None, *, bits: int = 4, seed: int = 0, **quantizer: Any) -> Cell:
        if method is None:
            return Cell(spec, None, None, None, seed, ("loss",))
        return Cell(spec, AbsMax(name="absmax", **quantizer), bits, method, seed, ("loss",))

    return make


@pytest.fixture(scope="module")
def session() -> Session:
    """Return a session that the tests of a module share, as the cells of a worker do."""
    from qbench.runner.session import Session

    return Session("cpu")


@pytest.fixture
def planned() -> Callable[[list[Cell]], list[PlannedCell]]:
    return lambda cells: [identify(cell) for cell in cells]
