"""`qbench check`: text, JSON, exit codes, and what it says of a wrong call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from qbench import registry
from qbench.conformance import subjects
from qbench.conformance.contract import Report, Row
from qbench.methods.rtn import RoundToNearest

SOUND = """\
from qbench.plugin import QParams, Quantizer, register_quantizer

print("hello from the file")


@register_quantizer("clip")
class Clip(Quantizer):
    allowed_bits = (4,)
    share: float = 0.97

    def choose_qparams(self, blocks, grid):
        print("hello from the rule")
        largest = blocks.abs().amax(dim=1, keepdim=True) * self.share
        return QParams.from_range(-largest, largest, grid)
"""
BROKEN = """\
from qbench.plugin import Method, Quantizer, QParams, register_method, register_quantizer
from .clip import Clip


@register_quantizer("fragile")
class Fragile(Clip):
    def choose_qparams(self, blocks, grid):
        raise ValueError("no luck")


@register_method("nothing")
class Nothing(Method):
    def solve(self, problem):
        return None
"""
Write = Callable[..., str]


@pytest.fixture
def write(own_folder: Path) -> Write:
    """Return a function that writes plugin files and returns the last one's path."""

    def write(**texts: str) -> str:
        for name, text in texts.items():
            (own_folder / f"{name}.py").write_text(text, encoding="utf-8")
        return str(own_folder / f"{name}.py")

    return write


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what a test registers out of the others."""
    for one in (registry.QUANTIZERS, registry.METHODS):
        monkeypatch.setattr(one, "_references", dict(one._references))
    yield


def test_a_name_that_conforms(call: Any) -> None:
    said = call("check", "ternary")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split() == ["property", "result", "detail"]
    assert any(line.startswith("rounding twice changes nothing ") and " passed " in line for line in lines)
    assert lines[-1].startswith("quantizer ternary conforms (") and lines[-1].endswith("skipped)")
    assert max(map(len, lines)) <= 80


def test_a_method(call: Any) -> None:
    said = call("check", "rtn")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[-1].startswith("method rtn conforms (")


def test_json(call: Any) -> None:
    said = call("check", "ternary", "--json")
    found = json.loads(said.out)
    assert said.code == 0 and found["conforms"] is True
    (report,) = found["reports"]
    assert (report["kind"], report["name"], report["conforms"]) == ("quantizer", "ternary", True)
    assert {"property": "options survive JSON", "result": "passed", "detail": "4 cases"} in report["rows"]


def test_a_file_is_checked_whole(call: Any, write: Write) -> None:
    said = call("check", write(clip=SOUND, broken=BROKEN))
    assert said.code == 1
    verdicts = [line for line in said.out.splitlines() if " the contract" in line or " conform" in line]
    assert [line.split(" (")[0] for line in verdicts] == [
        "quantizer clip conforms",
        "quantizer fragile breaks the contract: raises nothing",
        "method nothing breaks the contract: returns a Solution",
        "1 of 3 conform",
    ]
    assert "ValueError: no luck (broken.py:8)" in " ".join(said.out.split())
    assert "hello" not in said.out


SWITCHING = """\
import torch
from qbench.plugin import Method, register_method, register_quantizer
from .clip import Clip


@register_quantizer("a_switch")
class Switch(Clip):
    def choose_qparams(self, blocks, grid):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(0)
        return super().choose_qparams(blocks, grid)


@register_quantizer("b_sound")
class Sound(Clip):
    pass


@register_method("a_switching_method")
class SwitchingMethod(Method):
    def solve(self, problem):
        torch.use_deterministic_algorithms(True)
        torch.set_grad_enabled(False)
        raise ValueError("no luck")
"""


def test_what_one_subject_sets_in_the_process_does_not_reach_the_next(call: Any, write: Write) -> None:
    before = torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    said = call("check", write(clip=SOUND, switching=SWITCHING))
    verdicts = [line.split(" (")[0] for line in said.out.splitlines() if line.startswith(("quantizer ", "method "))]
    state = "leaves torch's global state as it was"
    assert verdicts == [
        "quantizer clip conforms",
        f"quantizer a_switch breaks the contract: {state}, no chance from outside",
        "quantizer b_sound conforms",
        f"method a_switching_method breaks the contract: raises nothing, {state}",
    ]
    assert before == (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )


def test_an_option_that_must_be_given(call: Any, write: Write) -> None:
    path = write(clip=SOUND.replace("share: float = 0.97", "share: float"))
    said = call("check", "clip", "--plugin", path)
    assert said.code == 2
    assert "quantizer 'clip': 'share' is missing (say it with --option share=VALUE)" in said.err
    assert call("check", path, "--option", "share=0.97").code == 0


def test_a_file_that_conforms_and_prints(call: Any, write: Write) -> None:
    said = call("check", write(clip=SOUND), "--json")
    assert said.code == 0
    assert json.loads(said.out)["conforms"] is True
    assert "hello from the file" in said.err and "hello from the rule" in said.err


def test_a_broken_name_ends_with_1_in_json_too(call: Any, write: Write) -> None:
    said = call("check", "nothing", "--plugin", write(clip=SOUND, broken=BROKEN), "--json")
    assert said.code == 1
    found = json.loads(said.out)
    assert found["conforms"] is False and [report["name"] for report in found["reports"]] == ["nothing"]


def test_one_kind_of_a_file(call: Any, write: Write) -> None:
    said = call("check", write(clip=SOUND, broken=BROKEN), "--kind", "method")
    assert said.code == 1 and "clip" not in said.out
    assert said.out.splitlines()[-1].startswith("method nothing breaks the contract")


def test_what_a_file_brings_is_forgotten(call: Any, write: Write) -> None:
    assert call("check", write(clip=SOUND)).code == 0
    assert call("check", "clip").code == 2


def test_options(call: Any, write: Write) -> None:
    path = write(clip=SOUND)
    assert call("check", "clip", "--plugin", path, "--option", "share=0.99").code == 0
    said = call("check", path, "--option", "share=0.3", "--option", "granularity={per_group: 8}")
    assert said.code == 1
    assert "breaks the contract: constant blocks keep their value" in said.out and "; g8," in said.out


def test_all_names_a_line_each(call: Any, known: None, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.QUANTIZERS._references["gone"] = "no_such_module:Gone"
    checked: list[str] = []

    def check(spec: Any) -> Report:
        checked.append(spec.name)
        return Report(
            "method" if isinstance(spec, RoundToNearest) else "quantizer", spec.name, (Row("a", "passed", ""),)
        )

    monkeypatch.setattr(subjects, "check", check)
    said = call("check")
    lines = said.out.splitlines()
    assert said.code == 1
    assert set(checked) | {"gone"} == {*registry.QUANTIZERS.names(), *registry.METHODS.names()}
    assert "quantizer gone breaks the contract: can be made (0 passed, 1 failed)" in lines
    assert "method rtn conforms (1 passed)" in lines
    assert lines[-1] == f"{len(checked)} of {len(checked) + 1} conform"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["abmax"], "unknown quantizer or method 'abmax': did you mean 'absmax'?"),
        (["rtn", "--kind", "quantizer"], "unknown quantizer 'rtn'"),
        (
            ["absmax", "--kind", "quantiser"],
            "unknown kind 'quantiser': did you mean 'quantizer'? (allowed: method, qua",
        ),
        (["absmax", "--option", "symmetric"], "--option 'symmetric' is no option (allowed: KEY=VALUE, such as p=2.4)"),
        (["absmax", "--option", "symmetric={"], "--option 'symmetric={': the value is no YAML"),
        (["mse", "--option", "candidate=3"], "unknown option 'candidate' of mse: did you mean 'candidates'?"),
        (["mse", "--option", "p=few"], "quantizer 'mse': p: given 'few' (allowed: a number)"),
        (["--option", "p=2"], "--option is for one name, and"),
        (["none.py"], "none.py is not there"),
        (["absmax", "--plugin", "none.py"], "none.py is not there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_calls(call: Any, arguments: list[str], told: str) -> None:
    said = call("check", *arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("qbench: ") and told in said.err and said.err.count("\n") == 1


def test_a_file_that_raises_when_it_is_imported(call: Any, write: Write) -> None:
    said = call("check", write(early="x = 1\nraise RuntimeError('not yet')\n"))
    assert said.code == 2 and said.out == ""
    assert "early.py, line 2: RuntimeError: not yet" in said.err


def test_a_file_that_sets_torch_up_when_it_is_imported(call: Any, write: Write) -> None:
    said = call("check", write(early=f"import torch\ntorch.set_default_dtype(torch.float64)\n{SOUND}"))
    assert said.code == 2 and said.out == ""
    assert "early.py changes the default dtype of the process when it is imported (allowed: to leave" in said.err
    assert torch.get_default_dtype() == torch.float32


def test_a_file_that_registers_nothing(call: Any, write: Write) -> None:
    said = call("check", write(empty="x = 1\n"))
    assert said.code == 2 and said.out == ""
    assert "empty.py registers nothing (allowed: @register_quantizer or @register_method" in said.err


def test_a_name_of_both_kinds(call: Any, write: Write) -> None:
    text = BROKEN.replace("from .clip import Clip", "Clip = Quantizer").replace('"nothing"', '"fragile"')
    path = write(both=text)
    said = call("check", "fragile", "--plugin", path)
    assert said.code == 2
    assert "'fragile' is a quantizer and a method (say which: --kind quantizer or --kind method)" in said.err
    assert call("check", "fragile", "--plugin", path, "--kind", "method").code == 1
