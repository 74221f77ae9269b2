"""`qbench settings`: in what methods differ from a preset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SUITE = """\
name: mine
presets:
  short: {steps: 2, batch_size: 2}
  damped: {percdamp: 0.05}
matrix:
  models: [llama-1m]
  quantizers: [absmax]
  bits: [4]
  methods: [rtn, {name: gptq, preset: damped}, {name: ste_qat, steps: 5}]
"""


@pytest.fixture(autouse=True)
def suite() -> None:
    Path("mine.yaml").write_text(SUITE)


def differences(call: Any, *arguments: str) -> dict[str, Any]:
    said = call("settings", *arguments, "--json")
    assert (said.code, said.err) == (0, "")
    found: dict[str, Any] = json.loads(said.out)
    return {
        label: {one["option"]: (one["here"], one["preset"]) for one in rows["differences"]}
        for label, rows in found["methods"].items()
    }


def test_a_suite_against_the_defaults(call: Any) -> None:
    assert differences(call, "--suite", "mine.yaml") == {
        "rtn": {},
        "gptq[percdamp=0.05]": {"percdamp": (0.05, 0.01)},
        "ste_qat[steps=5]": {"steps": (5, 80)},
    }


def test_a_suite_against_a_preset_of_its_own(call: Any) -> None:
    found = differences(call, "--suite", "mine.yaml", "--against", "short")
    assert found["ste_qat[steps=5]"] == {"steps": (5, 2), "batch_size": (8, 2)}
    said = call("settings", "--suite", "mine.yaml", "--against", "short")
    assert "has no steps, batch_size" in said.out


def test_a_suite_against_published_settings(call: Any) -> None:
    found = differences(call, "--suite", "mine.yaml", "--against", "gptq_code")
    assert set(found) == {"gptq[percdamp=0.05]"}, "settings of GPTQ say nothing of other methods"
    assert found["gptq[percdamp=0.05]"]["percdamp"] == (0.05, 0.01)
    assert found["gptq[percdamp=0.05]"]["act_order"] == (True, False)
    said = call("settings", "-s", "mine.yaml", "--against", "gptq_code").out
    assert "against gptq_code: IST-DASLab/gptq @2d65066" in said
    assert "said there, and no option of the method here:" in said


def test_a_method_with_options(call: Any) -> None:
    given = ("gptq", "--option", "act_order=false", "--option", "group_scales=fresh", "--against", "gptq_code")
    assert differences(call, *given) == {"gptq[act_order=false,group_scales=fresh]": {}}
    assert "nothing differs" in call("settings", *given).out


def test_what_presets_there_are(call: Any) -> None:
    said = call("settings")
    assert said.code == 0
    assert "defaults" in said.out and "efficientqat_block_ap" in said.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gptq", "--suite", "mine.yaml"), "settings of what? name a method or --suite, not both"),
        (("--suite", "mine.yaml", "--option", "x=1"), "--option is for one method: name it"),
        (("gptq", "--against", "gptq_cod"), "unknown preset 'gptq_cod': did you mean 'gptq_code'?"),
        (("gptt",), "unknown method 'gptt': did you mean 'gptq'?"),
        (("gptq", "--option", "percdam=1"), "unknown option 'percdam' of gptq: did you mean 'percdamp'?"),
        (("gptq", "--option", "percdamp=9"), "percdamp: given 9 (allowed: 1.0 or less)"),
        (("rtn", "--against", "gptq_code"), "gptq_code is about gptq, and there is none here: rtn"),
    ],
)
def test_wrong_calls_are_one_line(call: Any, arguments: tuple[str, ...], said: str) -> None:
    found = call("settings", *arguments)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(f"qbench: {said}")
    assert found.err.count("\n") == 1
