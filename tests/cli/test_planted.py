"""Defects that are planted in a plugin after its baseline was blessed: each turns `compare` or `check` red."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

QBENCH = Path(sys.executable).with_name("qbench")

PLUGIN = '''\
from qbench.plugin import (
    IntegerQuantizer, LayerSolution, Method, QParams, Solution, quantize, register_method, register_quantizer
)


@register_quantizer("mine")
class Mine(IntegerQuantizer):
    """Three quarters of the range."""

    symmetric: bool = False

    def choose_qparams(self, blocks, grid):
        low, high = blocks.aminmax(dim=1, keepdim=True)
        found = QParams.from_range(0.75 * low, 0.75 * high, grid)
        return QParams(found.scale * 1.00, found.zero_points() + 0)


@register_method("best_of")
class BestOf(Method):
    """Of several ways to round, the one with the least loss on some batches."""

    def batches(self, problem):
        return list(problem.calibration)

    def solve(self, problem):
        import torch

        found = None
        for shift in (0.0, 0.1, -0.1, 0.2, -0.2):
            layers = {}
            for layer in problem.layers:
                weight = layer.matrix().clone()
                scale = layer.grid.scale.repeat_interleave(weight.shape[1] // layer.grid.scale.shape[1], dim=1)
                layers[layer.name] = LayerSolution(quantize(weight + shift * scale, layer.grid), layer.grid)
            solution = Solution(layers, calibration_tokens=problem.calibration_tokens)
            loss = self.loss(problem, solution)
            found = min(found or (loss, shift, solution), (loss, shift, solution), key=lambda one: one[:2])
        return found[2]

    def loss(self, problem, solution):
        import torch

        kept = {layer.name: layer.matrix().clone() for layer in problem.layers}
        with torch.no_grad():
            for layer in problem.layers:
                layer.write(solution.layers[layer.name].weight())
            loss = sum(float(problem.loss(problem.model, batch)) for batch in self.batches(problem))
            for layer in problem.layers:
                layer.write(kept[layer.name])
        return loss
'''

SUITE = """\
name: gate
plugins: [mine.py]
matrix:
  models: [{name: llama-1m, evaluation_windows: 32, calibration_windows: 8}]
  quantizers: [mine]
  bits: [4, 3, 2]
  methods: [rtn, best_of]
metrics: [loss]
"""

MODEL = "llama-1m[calibration_windows=8,evaluation_windows=32]"
FULL = f"{MODEL}/fp/s0"
LABELS = (
    FULL,
    *(f"{MODEL}/mine[per_channel,asymmetric]/{b}b/{method}/s0" for b in (4, 3, 2) for method in ("rtn", "best_of")),
)

# What is planted: the text in the plugin, and what takes its place.
TWO_PERCENT = ("found.scale * 1.00", "found.scale * 1.02")
OFF_BY_ONE = ("found.zero_points() + 0", "(found.zero_points() + 1).clamp(max=max(grid.zero_points))")
ON_EVALUATION_DATA = (
    "        return list(problem.calibration)\n",
    """\
        import torch
        from qbench.tasks import corpus

        texts = [document.text for document in corpus.load("evaluation")]
        numbers = torch.tensor([ord(letter) % 512 for text in texts for letter in text[:300]])
        return list(numbers[: len(numbers) // 64 * 64].view(-1, 64)[:32].split(8))
""",
)

# Each test starts qbench a few times, and each start imports torch.
pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a plugin, a suite and the blessed baseline of both."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "mine.py").write_text(PLUGIN)
    (folder / "gate.yaml").write_text(SUITE)
    done = qbench(folder, "run", "--suite", "gate.yaml", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    done = qbench(folder, "bless", "--suite", "gate.yaml", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def qbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(
        [QBENCH, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def planted(gate: Path, text: str, defect: str) -> None:
    assert PLUGIN.count(text) == 1
    (gate / "mine.py").write_text(PLUGIN.replace(text, defect))


def verdicts(gate: Path) -> dict[str, list[str]]:
    """Return the cells of each verdict in a comparison, which has to be red."""
    done = qbench(gate, "compare", "--suite", "gate.yaml", "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for row in json.loads(done.stdout)["rows"]:
        found.setdefault(row["verdict"], []).append(row["label"])
    return found


def test_nothing_planted_is_green(gate: Path) -> None:
    (gate / "mine.py").write_text(PLUGIN)
    for fresh in ((), ("--fresh",)):
        assert qbench(gate, "run", "--suite", "gate.yaml", *fresh).returncode == 0
        done = qbench(gate, "compare", "--suite", "gate.yaml", "--exact", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert {row["verdict"] for row in json.loads(done.stdout)["rows"]} == {"same"}


@pytest.mark.parametrize("defect", [TWO_PERCENT, OFF_BY_ONE], ids=["steps 2 % too wide", "zero point off by one"])
def test_a_quantizer_that_became_worse_turns_red(gate: Path, defect: tuple[str, str]) -> None:
    planted(gate, *defect)
    done = qbench(gate, "run", "--suite", "gate.yaml")
    assert done.returncode == 1, "a run that regressed must not end with 0"
    found = verdicts(gate)
    changed = [label for verdict in ("worse", "moved", "better") for label in found.get(verdict, [])]
    assert sorted(changed) == sorted(set(LABELS) - {FULL})
    assert found["same"] == [FULL], "what the defect does not touch is not blamed"


def test_a_method_that_sees_evaluation_data_turns_both_red(gate: Path) -> None:
    planted(gate, *ON_EVALUATION_DATA)
    done = qbench(gate, "check", "mine.py", "--kind", "method")
    assert done.returncode == 1
    assert "evaluation" in done.stdout
    done = qbench(gate, "run", "--suite", "gate.yaml")
    assert done.returncode == 1
    assert "evaluation" in done.stderr
    found = verdicts(gate)
    assert sorted(found["failed"]) == sorted(label for label in LABELS if "best_of" in label)
    assert sorted(found["same"]) == sorted(label for label in LABELS if "best_of" not in label)
