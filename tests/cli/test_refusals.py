"""What is wrong is said in one line on stderr, with exit code 2."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOUND = """\
name: mine
matrix:
  models: [llama-1m]
  quantizers: [absmax]
  bits: [4]
  methods: [rtn]
  seeds: 1
"""

Change = Callable[[str], str]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("methods: [rtn]", "methds: [rtn]"), "mine.yaml:6: `matrix.methds`: "),
        (lambda text: text.replace("[rtn]", "[rtm]"), "unknown method 'rtm': did you mean 'rtn'?"),
        (lambda text: text.replace("[llama-1m]", "[lama-1m]"), "unknown model 'lama-1m': did you mean 'llama-1m'?"),
        (lambda text: text.replace("[absmax]", "[absmin]"), "unknown quantizer 'absmin': did you mean 'absmax'?"),
        (lambda text: text.replace("bits: [4]", "bits: [0]"), "mine.yaml:5: `matrix.bits[0]`: given 0 (allowed: "),
        (lambda text: text.replace("[rtn]", "[rtn, rtn]"), "'rtn' is listed twice"),
        (lambda text: text + "metrics: [los]\n", "mine.yaml:8: `metrics[0]`: "),
        (
            lambda text: text.replace("[rtn]", "[{name: gptq, percdamp: -1}]"),
            "mine.yaml:6: `matrix.methods[0].percdamp`: ",
        ),
        (lambda text: text.replace("name: mine", "name: other"), "mine.yaml:1: `name`: "),
        (
            lambda text: text.replace("[llama-1m]", "[{name: causal_lm, title: t, repo: a/b, revision: main}]"),
            "'main' is not a full commit hash",
        ),
        (
            lambda text: text.replace("[llama-1m]", "[{name: causal_lm, title: t, path: m, text: wiki}]"),
            "'wiki' is not a text source",
        ),
        (
            lambda text: text.replace(
                "[llama-1m]", "[{name: causal_lm, title: t, path: m, text: {folder: x, size: 3}}]"
            ),
            "size",
        ),
        (lambda text: text.replace("[llama-1m]", "[{name: causal_lm, title: t, path: ../m}]"), "../m"),
        (
            lambda text: text.replace("[llama-1m]", "[{name: causal_lm, title: t, path: nowhere}]"),
            "nowhere does not exist",
        ),
        (lambda text: text + "\tx", "not valid YAML"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_suite_that_is_wrong(call: Any, change: Change, message: str, verb: str) -> None:
    Path("mine.yaml").write_text(change(SOUND))
    said = call(verb, "--suite", "mine.yaml")
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith("qbench: ") and message in said.err
    assert len(said.err.splitlines()) == 1
    assert not Path("results").exists() or not list(Path("results").rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "nowhere.yaml"), "qbench: nowhere.yaml: no such file"),
        (
            ("--suite", "smok"),
            "qbench: unknown suite 'smok': did you mean 'smoke'? (allowed: diagnose, llm_hub, llm_lowbit, ",
        ),
        (("--suite", "."), "unknown suite '.'"),
        (("--suite", "./"), "is a directory (allowed: a YAML file)"),
        (
            ("--suite", "mine.yaml", "--only", "bits"),
            "cannot read 'bits' in 'bits' (allowed: axis=value|value,axis=value)",
        ),
        (("--suite", "mine.yaml", "--only", "bit=4"), "unknown axis 'bit': did you mean 'bits'?"),
        (("--suite", "mine.yaml", "--only", "bits=3"), "unknown bits '3' (allowed: 4)"),
        (("--suite", "mine.yaml", "--only", "method=gptq"), "unknown method 'gptq'"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "plan", "report"])
def test_a_call_that_is_wrong(call: Any, verb: str, arguments: tuple[str, ...], message: str) -> None:
    Path("mine.yaml").write_text(SOUND)
    said = call(verb, *arguments)
    assert (said.code, said.out) == (2, ""), said
    # A report can be of a folder of records, too.
    of_folder = verb == "report" and Path(arguments[1]).is_dir()
    assert ("holds no records: name a folder" if of_folder else message) in said.err
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("run", "--suite", "mine.yaml", "--device", "gpu"),
            "qbench: --device 'gpu' is not a device (allowed: auto, cpu, cuda)",
        ),
        (("list", "method"), "qbench: unknown kind 'method': did you mean 'methods'?"),
        (("fetch", "shakspeare"), "qbench: unknown asset 'shakspeare': did you mean 'shakespeare'?"),
        (("pretrain", "llama-1b"), "qbench: unknown zoo model 'llama-1b': did you mean 'llama-1m'?"),
        (
            ("compare", "--suite", "mine.yaml"),
            "qbench: no baseline at results/baselines/mine.json: `qbench bless --suite mine.yaml`",
        ),
        (
            ("bless", "--suite", "mine.yaml"),
            "qbench: results/runs/mine holds no record of mine: `qbench run --suite mine.yaml`",
        ),
        (
            ("report", "--suite", "mine.yaml"),
            "qbench: results/runs/mine holds no record of mine: `qbench run --suite mine.yaml`",
        ),
        (("validate", "nowhere.yaml"), "qbench: nowhere.yaml: no such file"),
    ],
)
def test_other_verbs(call: Any, arguments: tuple[str, ...], message: str) -> None:
    Path("mine.yaml").write_text(SOUND)
    said = call(*arguments)
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith(message)
    assert len(said.err.splitlines()) == 1


def test_cuda_where_there_is_none(call: Any) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    Path("mine.yaml").write_text(SOUND)
    said = call("run", "--suite", "mine.yaml", "--device", "cuda")
    assert said.code == 2
    assert said.err.splitlines()[-1] == "qbench: --device cuda: torch finds no CUDA device (allowed here: auto, cpu)"
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("nonsense",),
        ("run", "--suite", "smoke", "--jobs", "0"),
        ("plan", "--suite", "smoke", "--seeds", "0"),
        ("run", "--what"),
    ],
)
def test_an_unreadable_call_shows_the_usage(call: Any, arguments: tuple[str, ...]) -> None:
    said = call(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Usage: qbench")
    assert "Traceback" not in said.err


def test_the_installed_command_says_the_same() -> None:
    command = Path(sys.executable).with_name("qbench")
    done = subprocess.run([command, "validate", "nowhere.yaml"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "qbench: nowhere.yaml: no such file\n")


def test_a_long_message_is_not_broken_into_lines(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    said = call("validate", f"{'deep/' * 30}nowhere.yaml")
    assert said.err == f"qbench: {'deep/' * 30}nowhere.yaml: no such file\n"


def test_a_folder_that_another_run_holds(call: Any) -> None:
    from qbench.store.folder import RunFolder

    Path("mine.yaml").write_text(SOUND)
    with RunFolder(Path("results/runs/mine")).lock():
        said = call("run", "--suite", "mine.yaml", "--device", "cpu")
    assert said.code == 2
    assert said.err.startswith("qbench: results/runs/mine is in use by process ")
    assert len(said.err.splitlines()) == 1


def test_a_suite_whose_model_or_text_is_not_there_is_not_sound(call: Any) -> None:
    for entry, message in (
        (
            "{name: causal_lm, title: mine, path: nowhere}",
            "qbench: mine.yaml: model mine: model folder {}/nowhere does not exist",
        ),
        (
            "{name: causal_lm, title: mine, path: model, text: {folder: nowhere}}",
            "qbench: mine.yaml: model mine: text folder {}/nowhere",
        ),
    ):
        Path("model").mkdir(exist_ok=True)
        Path("model/model.safetensors").touch()
        Path("mine.yaml").write_text(
            f"name: mine\nmatrix: {{models: [{entry}], quantizers: [absmax], bits: [4], methods: [rtn]}}\n"
        )
        said = call("validate", "mine.yaml")
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith(message.format(Path.cwd())), said.err


def test_a_suite_that_skips_everything_is_refused(call: Any) -> None:
    Path("mine.yaml").write_text(
        "name: mine\nmatrix: {models: [llama-1m], quantizers: [absmax], bits: [4], methods: [rtn], seeds: [7]}\n"
    )
    for verb in (("validate", "mine.yaml"), ("run", "--suite", "mine.yaml")):
        said = call(*verb)
        assert (said.code, said.out) == (2, "")
        assert said.err == "qbench: mine.yaml: every cell is skipped: llama-1m was trained with seeds 0 to 2 only\n"


def test_messages_are_printed_as_they_are(call: Any) -> None:
    assert call("validate", "a:fire:[bold].yaml").err == "qbench: a:fire:[bold].yaml: no such file\n"


@pytest.mark.parametrize("device", ["tpu", "cuda:7"])
def test_pretraining_on_a_device_there_is_not(call: Any, device: str) -> None:
    said = call("pretrain", "llama-1m", "--device", device)
    assert (said.code, said.err) == (
        2,
        f"qbench: --device {device!r} is not a device (allowed: auto, cpu, cuda)\n",
    )


def test_pretraining_into_a_file_is_refused_at_once(call: Any) -> None:
    Path("taken").touch()
    said = call("pretrain", "llama-1m", "--out", "taken")
    assert (said.code, said.err) == (2, "qbench: taken: File exists\n")
