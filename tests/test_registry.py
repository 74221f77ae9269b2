from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from qbench.errors import QBenchError, UnknownNameError
from qbench.registry import METHODS, MODELS, QUANTIZERS, Registry
from qbench.spec import Spec


class Rounding(Spec):
    pass


class Other(Spec):
    pass


HERE = f"{Rounding.__module__}:Rounding"


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    points: list[EntryPoint] = []
    monkeypatch.setattr(
        "qbench.registry.entry_points", lambda group: [point for point in points if point.group == group]
    )
    return points


def registry(**builtin: str) -> Registry:
    return Registry("method", "qbench.methods", builtin)


def test_a_reference_is_imported_when_it_is_asked_for(plugins: list[EntryPoint]) -> None:
    known = registry(here=HERE, later="no.such.module:Thing")
    assert known.names() == ["here", "later"]
    assert known.get("here") is Rounding
    assert known.get("here") is Rounding


def test_an_unknown_name(plugins: list[EntryPoint]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry(gptq=HERE, rtn=HERE).get("gtpq")
    assert str(caught.value) == "unknown method 'gtpq': did you mean 'gptq'? (allowed: gptq, rtn)"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "qbench.nowhere:Thing",
            "method 'x' cannot be loaded from qbench.nowhere:Thing: "
            "ModuleNotFoundError: No module named 'qbench.nowhere'",
        ),
        (
            "qbench.spec:Nothing",
            "method 'x' cannot be loaded from qbench.spec:Nothing: "
            "AttributeError: module 'qbench.spec' has no attribute 'Nothing'",
        ),
        ("qbench.registry:Registry", "method 'x': qbench.registry:Registry is not a subclass of qbench.spec.Spec"),
    ],
)
def test_a_reference_that_leads_nowhere(plugins: list[EntryPoint], reference: str, message: str) -> None:
    with pytest.raises(QBenchError) as caught:
        registry(x=reference).get("x")
    assert str(caught.value) == message


def test_any_failure_of_a_plugin_at_import_is_one_line(
    plugins: list[EntryPoint], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no licence key')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(QBenchError) as caught:
        registry(x="broken_plugin:Thing").get("x")
    assert str(caught.value) == "method 'x' cannot be loaded from broken_plugin:Thing: RuntimeError: no licence key"


def test_a_class_given_directly_is_checked_too(plugins: list[EntryPoint]) -> None:
    known = registry()
    known.register("x", Registry)  # type: ignore[arg-type]
    with pytest.raises(QBenchError) as caught:
        known.get("x")
    assert str(caught.value) == "method 'x': qbench.registry:Registry is not a subclass of qbench.spec.Spec"


def test_the_same_reference_can_be_registered_after_it_was_loaded(plugins: list[EntryPoint]) -> None:
    known = registry(x=HERE)
    assert known.get("x") is Rounding
    known.register("x", HERE)
    known.register("x", Rounding)
    assert known.get("x") is Rounding


def test_a_reference_to_something_that_is_no_class(plugins: list[EntryPoint]) -> None:
    with pytest.raises(QBenchError, match=r"^method 'x': .* is not a subclass of qbench\.spec\.Spec$"):
        registry(x="qbench.registry:METHODS").get("x")


def test_a_name_is_given_once(plugins: list[EntryPoint]) -> None:
    known = registry(x="a:A")
    known.register("x", "a:A")
    with pytest.raises(QBenchError) as caught:
        known.register("x", "b:B")
    assert str(caught.value) == "method 'x' is registered twice: a:A and b:B"
    known.register("y", Rounding)
    known.register("y", Rounding)
    with pytest.raises(QBenchError, match=r"^method 'y' is registered twice: "):
        known.register("y", Other)
    assert known.get("y") is Rounding


def test_plugins_add_names_to_their_own_kind(plugins: list[EntryPoint]) -> None:
    plugins.append(EntryPoint("mine", HERE, "qbench.methods"))
    plugins.append(EntryPoint("grid", HERE, "qbench.quantizers"))
    known = registry(rtn="a:A")
    assert known.names() == ["mine", "rtn"]
    assert known.get("mine") is Rounding


def test_a_plugin_cannot_take_a_name_that_is_taken(plugins: list[EntryPoint]) -> None:
    plugins.append(EntryPoint("rtn", HERE, "qbench.methods"))
    known = registry(rtn="a:A")
    for ask in (known.names, known.names, lambda: known.get("rtn")):  # the error is not forgotten after the first time
        with pytest.raises(QBenchError) as caught:
            ask()
        assert str(caught.value) == f"method 'rtn' is registered twice: a:A and {HERE}"


def test_registering_reads_no_plugins(plugins: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbench.registry.entry_points", lambda group: pytest.fail("read"))
    registry(rtn="a:A").register("mine", Rounding)


@pytest.mark.parametrize("known", [QUANTIZERS, METHODS, MODELS], ids=lambda known: known.kind)
def test_every_builtin_class_takes_its_name(known: Registry) -> None:
    for name in known.names():
        spec = known.get(name)
        assert issubclass(spec, Spec)
        assert "name" in spec.model_fields
        assert spec.__doc__, f"{known.kind} {name!r} says nothing of itself"
