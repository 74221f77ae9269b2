"""The workflows and recipes of such: pinned, without rights they do not need; the gate does what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT / ".github" / "workflows", ROOT / "docs" / "recipes")
WORKFLOWS = {path.name: path for folder in FOLDERS for path in sorted(folder.glob("*.yml"))}
GATE = "quantizer-check.yml"

each_workflow = pytest.mark.parametrize("name", WORKFLOWS)


def read(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8"))
    return found


def triggers(name: str) -> dict[str, Any]:
    found: dict[str, Any] = read(name)[True]  # YAML 1.1 reads the key `on` so
    return found


def steps(name: str) -> Iterator[dict[str, Any]]:
    for job in read(name)["jobs"].values():
        yield from job.get("steps", [])


@each_workflow
def test_actions_are_pinned_by_commit(name: str) -> None:
    used = re.findall(r"uses: (.+)", WORKFLOWS[name].read_text(encoding="utf-8"))
    for action in used:
        assert action.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action), action


@each_workflow
def test_nothing_may_write(name: str) -> None:
    assert read(name)["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in read(name)["jobs"].values())
    assert all(step["with"]["persist-credentials"] is False for step in steps(name) if "checkout@" in str(step))


@each_workflow
def test_what_strangers_give_is_never_put_into_a_script(name: str) -> None:
    for step in steps(name):
        assert "${{" not in step.get("run", "")


@each_workflow
def test_sessions_that_are_called_exist(name: str) -> None:
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    for step in steps(name):
        for called in re.findall(r"^nox -s ([\w ]+)", step.get("run", ""), re.MULTILINE):
            assert all(re.search(rf"^def {session}\(", noxfile, re.MULTILINE) for session in called.split()), called


def test_own_ci_calls_the_gate_with_inputs_that_it_has() -> None:
    call = read("ci.yml")["jobs"]["plugin"]
    assert call["uses"] == f"./.github/workflows/{GATE}"
    inputs = triggers(GATE)["workflow_call"]["inputs"]
    assert set(call["with"]) <= set(inputs)
    assert all(name in call["with"] for name, one in inputs.items() if one.get("required"))


def test_the_page_explains_every_input_and_its_example_is_sound() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    inputs = triggers(GATE)["workflow_call"]["inputs"]
    table = [line for line in page.splitlines() if line.startswith("| `")]
    assert {name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])} == set(inputs)
    example = next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "name: gate" in block)
    assert len(example.strip().splitlines()) <= 11, "a line for the file's name, and ten"
    assert set(yaml.safe_load(example)["jobs"]["gate"]["with"]) <= set(inputs)


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the example as the calling repository has it, with a folder of programs beside it."""
    folder = tmp_path_factory.mktemp("caller")
    shutil.copytree(ROOT / "tests" / "plugin_example", folder / "plugin_example")
    return folder


def run_steps(caller: Path, wanted: tuple[str, ...], **more: str) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run steps of the gate as the runner does, on the example; each ends where a command of it fails."""
    given = read("ci.yml")["jobs"]["plugin"]["with"]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(caller / "plugin_example" / "installed"),
        "SUITE": given["suite"],
        "PLUGIN": given["plugin"],
        "ONLY": "",
        "OMP_WAIT_POLICY": "passive",
        **more,
    }
    found = {}
    for step in steps(GATE):
        if step.get("name") in wanted:
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
            found[step["name"]] = subprocess.run(
                command, cwd=caller / "plugin_example", env=environment, capture_output=True, text=True, check=False
            )
    return found


def test_the_gate_is_green_on_the_example_and_red_on_a_change(caller: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile"]
    home, summary = caller / "plugin_example", caller / "summary.md"
    sources = caller / "sources"  # building leaves files beside the sources
    shutil.copytree(home, sources)
    options = ["--quiet", "--disable-pip-version-check", "--target", str(home / "installed")]
    subprocess.run([*pip, *options, str(sources)], check=True)

    green = run_steps(caller, ("The contract", "The suite", "The baseline"), GITHUB_STEP_SUMMARY=str(summary))
    assert {name: done.returncode for name, done in green.items()} == {
        "The contract": 0,
        "The suite": 0,
        "The baseline": 0,
    }, {name: done.stdout + done.stderr for name, done in green.items()}
    assert "example" in summary.read_text() and "<!-- qbench: example -->" in (home / "qbench-comment.md").read_text()

    rule = home / "installed" / "qbench_example" / "sigma_clip.py"
    rule.write_text(rule.read_text().replace("self.sigmas * sigma", "0.9 * self.sigmas * sigma"))
    red = run_steps(caller, ("The suite", "The baseline"))
    assert red["The suite"].returncode == 0, "a regression is told by the step with the files"
    assert red["The baseline"].returncode == 1
    comment = (home / "qbench-comment.md").read_text()
    assert "sigma_clip" in comment and "absmax" not in comment, "changed cells only"
    assert "<failure" in (home / "qbench-junit.xml").read_text()


def test_a_suite_that_is_wrong_is_red_at_once(caller: Path) -> None:
    done = run_steps(caller, ("The suite",), SUITE="no_such.yaml")["The suite"]
    assert done.returncode == 2
    assert "no_such.yaml" in done.stderr and "Traceback" not in done.stderr


def test_the_example_has_a_baseline_with_measured_noise() -> None:
    path = ROOT / "tests" / "plugin_example" / "results" / "baselines" / "example.json"
    devices = json.loads(path.read_text())["devices"]
    assert "cpu x86_64" in devices
