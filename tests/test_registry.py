from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from qbench.errors import QBenchError, UnknownNameError
from qbench.registry import METHODS, MODELS, QUANTIZERS, Registered, Registry, scope
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
    with pytest.raises(QBenchError) as caught:
        known.register("x", Registry)  # type: ignore[arg-type]
    assert str(caught.value) == "method 'x': qbench.registry:Registry is not a subclass of qbench.spec.Spec"
    assert known.names() == []


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


def test_a_name_that_two_want_is_refused_and_no_other(plugins: list[EntryPoint]) -> None:
    plugins.append(EntryPoint("rtn", HERE, "qbench.methods"))
    plugins.append(EntryPoint("mine", HERE, "qbench.methods"))
    known = registry(rtn="a:A")
    assert known.names() == ["mine", "rtn"]
    for _ in range(2):  # the error is not forgotten after the first time
        with pytest.raises(QBenchError) as caught:
            known.get("rtn")
        assert str(caught.value) == f"method 'rtn' is registered twice: a:A and {HERE} of {Rounding.__module__}"
    assert known.get("mine") is Rounding


def test_a_package_may_hand_on_what_its_decorator_named(plugins: list[EntryPoint]) -> None:
    plugins.append(EntryPoint("mine", f"{Rounding.__module__.partition('.')[0]}:Rounding", "qbench.methods"))
    plugins.append(EntryPoint("other", f"{Rounding.__module__}:Other [extra]", "qbench.methods"))
    known = registry()
    assert known.names() == ["mine", "other"]
    known.register("mine", Rounding)
    assert known.get("mine") is Rounding
    assert known.get("other") is Other


def test_a_class_of_another_kind_is_refused(plugins: list[EntryPoint]) -> None:
    plugins.append(EntryPoint("mine", HERE, "qbench.methods"))
    known = Registry("method", "qbench.methods", {}, base="qbench.plugin:Method", needs=("solve",))
    with pytest.raises(QBenchError, match=r"^method 'mine': \S+:Rounding is not a subclass of qbench\.plugin\.Method$"):
        known.get("mine")


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a[b]", "a=b", "-a", "a/b"])
def test_a_name_that_suites_and_filters_cannot_say(plugins: list[EntryPoint], name: str) -> None:
    with pytest.raises(QBenchError, match=r": the name is none \(allowed: letters, digits and the signs _ \. \+ -\)$"):
        registry().register(name, Rounding)


@pytest.mark.parametrize(
    "end", ["raise SystemExit(3)", "raise GeneratorExit", "raise KeyboardInterrupt(3)", "def again(): again()\nagain()"]
)
def test_a_module_may_fail_in_any_way(
    plugins: list[EntryPoint], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    (tmp_path / "ending_plugin.py").write_text(end)
    monkeypatch.syspath_prepend(tmp_path)
    known = registry(x="ending_plugin:Thing", y=HERE)
    with pytest.raises(QBenchError, match=r"^method 'x' cannot be loaded from ending_plugin:Thing: \w+(: .+)?$"):
        known.get("x")
    assert known.get("y") is Rounding


def test_an_interrupt_by_the_user_is_no_failure_of_a_module(
    plugins: list[EntryPoint], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "slow_plugin.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        registry(x="slow_plugin:Thing").get("x")


def test_what_a_module_prints_is_kept_out_of_tables(
    plugins: list[EntryPoint], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talking_plugin.py").write_text(f"from {Rounding.__module__} import Rounding\nprint('hello')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry(x="talking_plugin:Rounding").get("x") is Rounding
    assert capsys.readouterr() == ("", "hello\n")


def test_where_a_name_comes_from(plugins: list[EntryPoint]) -> None:
    plugins.append(EntryPoint("mine", HERE, "qbench.methods"))
    known = registry(rtn=HERE)
    known.register("direct", Other)
    assert known.origin("rtn") == "built in"
    assert known.origin("mine") == known.origin("direct") == Rounding.__module__


def test_names_of_a_scope_are_forgotten_when_they_are_of_local_plugins() -> None:
    kind = type("Local", (METHODS.get("rtn"),), {"__module__": "qbench_plugins.p0.local"})
    names = METHODS.names()
    with scope([Registered("method", "here_only", kind)]) as added:
        assert METHODS.get("here_only") is kind
        assert added() == ()
        METHODS.register("and_this", kind)
        assert [one.name for one in added()] == ["and_this"]
    assert METHODS.names() == names
    with (
        pytest.raises(QBenchError, match=r"^method 'rtn' is registered twice: "),
        scope([Registered("method", "rtn", kind)]),
    ):
        pass
    assert METHODS.names() == names


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
