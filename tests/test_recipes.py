"""The recipes of docs/scale.md do what they say, with stand-ins for Slurm and Ray, and name options that there are."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import typer

from qbench.cli import app

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "docs" / "recipes").iterdir())
SLURM = ROOT / "docs" / "recipes" / "slurm-ray.sh"

STAND_INS = {
    # A step starts its command on as many nodes as it is told; the command is `ray start`, which stays.
    "srun": """
for word in "$@"; do case "$word" in --nodes=*) nodes=${word#--nodes=};; esac; done
for _ in $(seq "$nodes"); do echo node >> "$STATE/nodes"; done
exec /bin/sleep 600""",
    "ray": "",
    "python": 'wc -l < "$STATE/nodes"',
    "hostname": 'if [ "${1:-}" = --ip-address ]; then echo "fe80::1 127.0.1.1 10.0.0.7"; else echo first; fi',
    "sleep": "exec /bin/sleep 0.05",
    "scontrol": "",
    "qbench": """
trap 'echo stopped >> "$STATE/calls"; exit 130' TERM
touch "$STATE/begun"
while [ ! -e "$STATE/end" ]; do /bin/sleep 0.05; done
exit 1""",
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return where commands are stand-ins that write down how they are called."""
    for name, body in STAND_INS.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/bash\necho "{name} $*" >> "$STATE/calls"\n{body}\n')
        program.chmod(0o755)
    job = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NUM_NODES": "4", "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "2"}
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        **job,
        "PATH": path,
        "STATE": str(tmp_path),
        "SUITE": "smoke",
        "SHARED": str(tmp_path),
        "HOME": str(tmp_path),
    }


def start(environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start the job, and return it when the run has begun."""
    job = subprocess.Popen(
        ["bash", str(SLURM)], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    begun, until = Path(environment["STATE"]) / "begun", time.monotonic() + 60
    while not begun.exists():
        assert job.poll() is None and time.monotonic() < until, "the run has not begun"
        time.sleep(0.02)
    return job


def finish(job: subprocess.Popen[str]) -> int:
    try:
        return job.wait(60)
    finally:
        os.killpg(job.pid, signal.SIGKILL)  # the nodes, which Slurm would end with the job
        assert job.stderr is not None
        job.stderr.close()


def calls(environment: dict[str, str], program: str) -> list[str]:
    lines = (Path(environment["STATE"]) / "calls").read_text().splitlines()
    return [line for line in lines if line.split()[0] == program]


def test_a_job_starts_a_cluster_and_runs_the_suite_on_it(environment: dict[str, str]) -> None:
    job = start(environment)
    (Path(environment["STATE"]) / "end").touch()
    assert finish(job) == 1, "the job ends as the run does"
    head, others = calls(environment, "srun")
    address = re.search(r"--address=(10\.0\.0\.7:\d+)", others)
    assert address is not None and "--nodes=3" in others and "--exclude=first" in others and "--num-gpus=2" in others
    assert "--nodes=1" in head and "--head" in head and f"--port={address[1].partition(':')[2]}" in head
    (run,) = calls(environment, "qbench")
    assert f"--executor ray --address {address[1]} " in run
    folder = f"{environment['SHARED']}/qbench/smoke"
    assert f"--out {folder} --spool {folder} " in run
    assert calls(environment, "scontrol") == []


def test_a_job_whose_time_is_over_ends_its_run_and_is_put_back(environment: dict[str, str]) -> None:
    job = start(environment)
    job.send_signal(signal.SIGTERM)
    assert finish(job) == 0
    assert calls(environment, "stopped") == ["stopped"]
    assert calls(environment, "scontrol") == ["scontrol requeue 123456"]


@pytest.mark.parametrize("missing", ["SUITE", "SHARED"])
def test_a_job_without_what_it_needs_says_so(environment: dict[str, str], missing: str) -> None:
    del environment[missing]
    done = subprocess.run(["bash", str(SLURM)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and missing in done.stderr


def test_options_of_the_recipes_and_of_the_page_are_there() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    texts = [path.read_text(encoding="utf-8").replace("\\\n", " ") for path in RECIPES]
    texts.append((ROOT / "docs" / "scale.md").read_text(encoding="utf-8"))
    called = [
        found for text in texts for found in re.findall(r"\bqbench (\w+)((?: [^\n#|`]*)?)", text) if found[0] in verbs
    ]
    assert {"run", "plan", "merge", "compare", "fetch"} <= {verb for verb, _ in called}
    for verb, arguments in called:
        allowed = {name for option in verbs[verb].params for name in option.opts}
        assert set(re.findall(r"(?<=\s)--[\w-]+", arguments)) <= allowed, (verb, arguments)


def test_every_recipe_is_on_the_page() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for recipe in RECIPES:
        assert f"(recipes/{recipe.name})" in page and recipe.read_text(encoding="utf-8") in page
