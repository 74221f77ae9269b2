"""`qbench run`, from a suite file to a leaderboard, and what it ends with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.store.folder import RunFolder

TOY = """\
name: toy_suite
matrix:
  models: [toy]
  quantizers: [absmax]
  bits: [4]
  methods: [rtn, METHOD]
  seeds: 1
metrics: [loss]
"""
RUN = ("run", "--suite", "tiny.yaml", "--device", "cpu")
RUN_TOY = ("run", "--suite", "toy_suite.yaml", "--device", "cpu", "--jobs", "1")


def told(said: Any) -> list[str]:
    """Return what was said but how far the run is, which takes long enough for that on a machine with other work."""
    return [line for line in said.err.splitlines() if not line.endswith((" left", ", estimating"))]


def test_a_first_run_prints_its_leaderboard(first_run: tuple[Path, Any]) -> None:
    folder, said = first_run
    assert said.code == 0, said.err
    assert said.err.startswith(
        "tiny: 5 cells to run, 0 from the records in results/runs/tiny, 1 skipped by the suite\n"
    )
    assert said.out.startswith("tiny: 6 cells: 5 ok, 1 skipped")
    for words in ("llama-1m", "rtn", "ste_qat", "4 bits", "2 bits", "nothing to recover at 4 bits", "inside", "failed"):
        assert words in said.out, words
    assert "no baseline at results/baselines/tiny.json: `qbench bless --suite tiny.yaml` makes one" in said.out
    records = RunFolder(folder / "results" / "runs" / "tiny").read_all()
    assert len(records) == 5
    for record in records.values():
        assert record.clean, record.reason
        assert {"loss/blocks128", "bits_per_byte/rolling128", "next_sentence/acc"} <= set(record.metrics)


def test_a_first_run_says_nothing_but_what_it_does(first_run: tuple[Path, Any]) -> None:
    _, last = told(first_run[1])
    assert re.fullmatch(r"5 of 5 cells, \d+ (s|min|min \d+ s)", last)


def test_a_second_run_has_nothing_to_do(stored: Path, call: Any, first_run: tuple[Path, Any]) -> None:
    said = call(*RUN)
    assert said.code == 0
    assert said.err == "tiny: 0 cells to run, 5 from the records in results/runs/tiny, 1 skipped by the suite\n"
    assert said.out == first_run[1].out


def test_a_second_run_starts_no_process_and_loads_no_torch(stored: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys\n"
        f"sys.argv = ['qbench', *{RUN!r}]\n"
        "from qbench.cli import main\n"
        "code = main()\n"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval'} & set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_the_leaderboard_as_json(stored: Path, call: Any) -> None:
    said = call(*RUN, "--json")
    found = json.loads(said.out)
    assert found["comparison"] is None
    assert found["leaderboard"]["suite"] == "tiny"
    assert {one["verdict"] for one in found["claims"]} <= {"not judged", "not applicable"}
    assert {"C1", "C9", "C14"} <= {one["claim"] for one in found["claims"]}
    assert found["leaderboard"]["counts"] == {"expected": 6, "ok": 5, "skipped": 1}


def test_some_cells_only(stored: Path, call: Any) -> None:
    said = call(*RUN, "--only", "method=rtn,bits=2")
    assert said.code == 0
    assert said.err.startswith("tiny: 0 cells to run, 2 from the records")
    assert "ste_qat" not in said.out


def test_a_corrupt_record_is_named_and_run_again(toys: ModuleType, call: Any) -> None:
    Path("toy_suite.yaml").write_text(TOY.replace(", METHOD", ""))
    assert call(*RUN_TOY).code == 0
    folder = RunFolder(Path("results/runs/toy_suite"))
    before = folder.read_all()
    hurt = next(cell_id for cell_id, record in before.items() if record.axes["method"] == "rtn")
    folder.record_path(hurt).write_text("{")
    said = call(*RUN_TOY)
    assert said.code == 0, said.err
    warning, plan, last = told(said)
    assert re.fullmatch(rf"warning: \S+/{hurt}\.json is no record \(.*\): its cell is run again", warning)
    assert plan.startswith("toy_suite: 1 cells to run, 1 from the records")
    assert last.startswith("1 of 1 cells, ")
    again = folder.read_all()
    assert again[hurt].metrics == before[hurt].metrics
    assert again[hurt].weights_sha256 == before[hurt].weights_sha256


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("raises", "toy/absmax[per_channel]/4b/raises/s0: failed: RuntimeError: no luck today"),
        ("falls_back", None),
    ],
)
def test_a_cell_that_is_not_clean_ends_with_one(toys: ModuleType, call: Any, method: str, line: str | None) -> None:
    Path("toy_suite.yaml").write_text(TOY.replace("METHOD", method))
    said = call(*RUN_TOY)
    assert said.code == 1
    assert "Traceback" not in said.out + said.err
    *lines, last = told(said)[1:]
    assert lines == ([] if line is None else [line])
    assert last.startswith("3 of 3 cells, " + ("" if line is None else "1 failed, "))
    assert ("a layer fell back" if line is None else "no luck today") in said.out or "rtn: dead layer" in said.out
    if method == "raises":
        again = call(*RUN_TOY)
        assert again.err.startswith("toy_suite: 1 cells to run, 2 from the records")
        assert again.code == 1


def test_what_a_method_prints_does_not_get_into_the_json(toys: ModuleType, tmp_path: Path) -> None:
    import subprocess
    import sys

    Path("toy_suite.yaml").write_text(TOY.replace("METHOD", "prints"))
    Path("driver.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(str(toys.__file__)).parent)!r})\nimport toys\n"
        "from qbench.cli import main\nif __name__ == '__main__':\n    toys.install()\n    sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "driver.py", *RUN_TOY, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["leaderboard"]["counts"] == {"expected": 3, "ok": 3}
    assert "hello from Python" in done.stderr and "hello from below" in done.stderr


def test_a_baseline_that_cannot_be_read_is_told_of_before_anything_runs(toys: ModuleType, call: Any) -> None:
    Path("toy_suite.yaml").write_text(TOY.replace(", METHOD", ""))
    baseline = Path("results/baselines/toy_suite.json")
    baseline.parent.mkdir(parents=True)
    baseline.write_text("{")
    said = call(*RUN_TOY)
    assert said.code == 2
    assert said.err.startswith(f"qbench: {baseline} is no baseline: not JSON")
    assert not Path("results/runs").exists()


def test_a_broken_model_fails_its_row_and_nothing_else(toys: ModuleType, call: Any) -> None:
    suite = (
        TOY.replace("[toy]", "[{name: toy, broken_seed: 0}]").replace("seeds: 1", "seeds: 2").replace(", METHOD", "")
    )
    Path("toy_suite.yaml").write_text(suite)
    said = call(*RUN_TOY)
    assert said.code == 1
    _, failure, last = told(said)
    assert failure == "toy[broken_seed=0]/fp/s0: failed: RuntimeError: the weights are gone"
    assert last.startswith("4 of 4 cells, 1 failed, ")
    assert said.out.startswith("toy_suite: 4 cells: 2 ok, 1 failed, 1 skipped")
