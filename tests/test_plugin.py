"""What qbench.plugin offers: every name of it, without torch, and two decorators that refuse what cannot work."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from qbench import plugin, registry
from qbench.errors import QBenchError
from qbench.methods.base import Method
from qbench.quantizers.base import IntegerQuantizer, Quantizer
from qbench.spec import Spec

# Changing this list is changing what strangers' code is written against: think of API_VERSION.
NAMES = [
    "API_VERSION",
    "Block",
    "BlockGrid",
    "CellError",
    "Codebook",
    "Granularity",
    "IntegerGrid",
    "IntegerQuantizer",
    "LayerSolution",
    "LevelTable",
    "Levels",
    "Method",
    "Problem",
    "QBenchError",
    "QParams",
    "Quantizer",
    "Solution",
    "TargetLayer",
    "choose_grid",
    "dequantize",
    "fake_quantize",
    "quantize",
    "register_method",
    "register_quantizer",
]


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for known in (registry.QUANTIZERS, registry.METHODS):
        known.names()
        monkeypatch.setattr(known, "_references", dict(known._references))
    yield


def test_the_names() -> None:
    assert plugin.API_VERSION == 1
    assert plugin.__all__ == NAMES == dir(plugin)


def test_every_name_is_the_thing_itself() -> None:
    for name in set(NAMES) - {"API_VERSION"}:
        found = getattr(plugin, name)
        home = importlib.import_module(found.__module__)
        assert getattr(home, name) is found
        assert found.__doc__, name
    scope: dict[str, object] = {}
    exec("from qbench.plugin import *", scope)
    assert set(NAMES) <= set(scope)


def test_what_it_does_not_offer() -> None:
    with pytest.raises(AttributeError, match=r"^module 'qbench.plugin' has no attribute 'LocalExecutor'$"):
        plugin.LocalExecutor  # noqa: B018


def test_importing_it_loads_no_torch_and_asking_for_a_function_does() -> None:
    program = (
        "import sys\n"
        "from qbench.plugin import IntegerQuantizer, LevelTable, Method, QParams, register_quantizer\n"
        "assert 'torch' not in sys.modules\n"
        "from qbench.plugin import quantize\n"
        "assert 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_decorator_gives_a_name_and_the_class_back() -> None:
    class Mine(IntegerQuantizer):
        def choose_qparams(self, blocks, grid):  # type: ignore[no-untyped-def]
            raise NotImplementedError

    class Own(Method):
        def solve(self, problem):  # type: ignore[no-untyped-def]
            raise NotImplementedError

    assert plugin.register_quantizer("mine_of_tests")(Mine) is Mine
    assert plugin.register_method("own.of-tests+1")(Own) is Own
    assert registry.QUANTIZERS.get("mine_of_tests") is Mine
    assert registry.METHODS.get("own.of-tests+1") is Own
    assert plugin.register_quantizer("another_name")(Mine) is Mine


def test_a_class_that_is_made_again_takes_the_place_of_the_older() -> None:
    def make() -> type[Method]:
        class Own(Method):
            def solve(self, problem):  # type: ignore[no-untyped-def]
                raise NotImplementedError

        return plugin.register_method("own")(Own)

    first, second = make(), make()
    assert first is not second
    assert registry.METHODS.get("own") is second


class NoQuantizer(Spec):
    pass


class Unfinished(Quantizer):
    def choose_parameters(self) -> None:
        pass


class UnfinishedMethod(Method):
    pass


class Finished(Unfinished):
    def choose_table(self, blocks, grid):  # type: ignore[no-untyped-def]
        raise NotImplementedError


REFUSED = {
    "no quantizer": (plugin.register_quantizer, "mine", NoQuantizer, "is not a subclass of qbench.plugin.Quantizer"),
    "a method": (plugin.register_quantizer, "mine", UnfinishedMethod, "is not a subclass of qbench.plugin.Quantizer"),
    "no range rule": (plugin.register_quantizer, "mine", Unfinished, "does not write choose_qparams or choose_table"),
    "a quantizer": (plugin.register_method, "mine", Finished, "is not a subclass of qbench.plugin.Method"),
    "no procedure": (plugin.register_method, "mine", UnfinishedMethod, "does not write solve"),
}


@pytest.mark.parametrize(("register", "name", "kind", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_class_that_cannot_work_is_refused(register: object, name: str, kind: type, reason: str) -> None:
    with pytest.raises(QBenchError) as caught:
        register(name)(kind)  # type: ignore[operator]
    said = str(caught.value)
    assert said.endswith(f"'mine': {kind.__module__}:{kind.__qualname__} {reason}")
    assert "\n" not in said


def test_something_that_is_no_class_is_refused() -> None:
    with pytest.raises(QBenchError, match=r"^method 'mine': .* is not a subclass of qbench\.plugin\.Method$"):
        plugin.register_method("mine")(UnfinishedMethod(name="mine"))  # type: ignore[type-var]


def test_a_taken_name_is_refused_with_both_places() -> None:
    with pytest.raises(QBenchError) as caught:
        plugin.register_quantizer("absmax")(Finished)
    assert str(caught.value) == (
        "quantizer 'absmax' is registered twice: qbench.quantizers.absmax:AbsMax and "
        f"{Finished.__module__}:{Finished.__qualname__}"
    )
