"""Suites with plugins, through the command line and real processes: broken ones fail alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.store.folder import RunFolder

# A class each, so that a cell's failure can be that of nothing else.
BROKEN = '''\
import os
import sys
from dataclasses import replace

from qbench.plugin import (
    Codebook, IntegerGrid, IntegerQuantizer, Method, QParams, Quantizer, register_method, register_quantizer
)


class Sound(IntegerQuantizer):
    def choose_qparams(self, blocks, grid):
        low, high = blocks.aminmax(dim=1, keepdim=True)
        return QParams.from_range(low, high, grid)

    def changed(self, blocks, grid, **parts):
        found = Sound.choose_qparams(self, blocks, grid)
        own = {"scale": found.scale, "zero_point": found.zero_points()}
        return QParams(**{name: parts.get(name, lambda part: part)(part) for name, part in own.items()})


@register_quantizer("sound")
class Good(Sound):
    """Nothing is wrong with it."""


@register_quantizer("nan_scale")
class NaNScale(Sound):
    def choose_qparams(self, blocks, grid):
        return self.changed(blocks, grid, scale=lambda scale: scale * float("nan"))


@register_quantizer("negative_scale")
class NegativeScale(Sound):
    def choose_qparams(self, blocks, grid):
        return self.changed(blocks, grid, scale=lambda scale: -scale)


@register_quantizer("half_zero_point")
class HalfZeroPoint(Sound):
    symmetric: bool = False

    def choose_qparams(self, blocks, grid):
        return self.changed(blocks, grid, zero_point=lambda zero_point: zero_point + 0.5)


@register_quantizer("too_many_levels")
class TooManyLevels(Sound):
    def levels(self, bits):
        return IntegerGrid(8, symmetric=True)


@register_quantizer("wrong_shape")
class WrongShape(Sound):
    def choose_qparams(self, blocks, grid):
        return self.changed(blocks, grid, scale=lambda scale: scale[:1])


@register_quantizer("at_random")
class AtRandom(Sound):
    def choose_qparams(self, blocks, grid):
        import torch

        return self.changed(blocks, grid, scale=lambda scale: scale * (1 + torch.rand(1)))


@register_quantizer("changes_weights")
class ChangesWeights(Sound):
    def choose_qparams(self, blocks, grid):
        return super().choose_qparams(blocks.clamp_(-0.1, 0.1), grid)


@register_quantizer("raises")
class Raises(Sound):
    def choose_qparams(self, blocks, grid):
        raise RuntimeError("no luck\\nat all")


@register_quantizer("leaves")
class Leaves(Sound):
    def choose_qparams(self, blocks, grid):
        sys.exit(3)


@register_quantizer("interrupts")
class Interrupts(Sound):
    def choose_qparams(self, blocks, grid):
        raise KeyboardInterrupt("me")


@register_quantizer("never_ends")
class NeverEnds(Sound):
    def choose_qparams(self, blocks, grid):
        return self.choose_qparams(blocks, grid)


@register_quantizer("gives_nothing")
class GivesNothing(Sound):
    def choose_qparams(self, blocks, grid):
        return None


@register_quantizer("cannot_say")
class CannotSay(Sound):
    def refuses(self, bits):
        return bits / 0


class Book(Quantizer):
    def levels(self, bits):
        return Codebook(bits)

    def choose_table(self, blocks, grid):
        import torch

        return blocks.abs().amax(dim=1, keepdim=True) * torch.linspace(-1, 1, grid.count)


@register_quantizer("falling_codebook")
class FallingCodebook(Book):
    def choose_table(self, blocks, grid):
        return super().choose_table(blocks, grid).flip(1)


@register_quantizer("codebook_from_changed_weights")
class ChangingCodebook(Book):
    def choose_table(self, blocks, grid):
        return super().choose_table(blocks.zero_(), grid)


@register_quantizer("no_codebook")
class NoCodebook(Book):
    def choose_table(self, blocks, grid):
        return None


class Near(Method):
    def solve(self, problem):
        from qbench.plugin import LayerSolution, Solution, quantize

        return Solution({one.name: LayerSolution(self.codes(one, quantize), one.grid) for one in problem.layers})

    def codes(self, layer, quantize):
        return quantize(layer.matrix(), layer.grid)


@register_method("near")
class GoodNear(Near):
    """Nothing is wrong with it."""


@register_method("codes_between")
class CodesBetween(Near):
    def codes(self, layer, quantize):
        return super().codes(layer, quantize) + 0.5


@register_method("codes_beyond")
class CodesBeyond(Near):
    def codes(self, layer, quantize):
        return super().codes(layer, quantize) + 100


@register_method("turned")
class Turned(Near):
    def codes(self, layer, quantize):
        return super().codes(layer, quantize).T


@register_method("makes_its_own_grid")
class OwnGrid(Near):
    def solve(self, problem):
        from qbench.plugin import IntegerGrid

        found = super().solve(problem)
        finer = {
            name: replace(one, grid=replace(one.grid, levels=IntegerGrid(8, symmetric=True)))
            for name, one in found.layers.items()
        }
        return replace(found, layers=finer)


@register_method("leaves_the_process")
class LeavesTheProcess(Near):
    def solve(self, problem):
        sys.exit("bye")


@register_method("recursive")
class Recursive(Near):
    def solve(self, problem):
        return self.solve(problem)


@register_method("breaks_off")
class BreaksOff(Near):
    def solve(self, problem):
        os._exit(9)
'''

SUITE = """\
name: broken
plugins: [mine.py, other.py]
matrix:
  - models: [toy]
    quantizers: [{quantizers}]
    bits: [4]
    methods: [rtn]
  - models: [toy]
    quantizers: [absmax]
    bits: [4]
    methods: [gptq, near, {methods}]
metrics: [loss]
"""

QUANTIZERS = {
    "nan_scale": "quantizer 'nan_scale' returned a scale that is not a positive finite number",
    "negative_scale": "quantizer 'negative_scale' returned a scale that is not a positive finite number",
    "half_zero_point": "quantizer 'half_zero_point' returned a zero point that is not an integer from 0 to 15",
    "too_many_levels": "quantizer 'too_many_levels' has 256 levels, more than 4 bits can tell",
    "wrong_shape": "quantizer 'wrong_shape' returned shapes (1, 1) and (16, 1), expected (16, 1) for both",
    "at_random": "quantizer 'at_random' gave another grid for the same weight: it is not deterministic",
    "changes_weights": "quantizer 'changes_weights' changed the weights it was given",
    "raises": "RuntimeError: no luck",
    "leaves": "SystemExit: 3",
    "interrupts": "KeyboardInterrupt: me",
    "never_ends": "RecursionError: maximum recursion depth exceeded",
    "gives_nothing": "quantizer 'gives_nothing' returned NoneType (allowed: QParams)",
    "falling_codebook": "quantizer 'falling_codebook' returned levels that do not rise, or are not finite",
    "codebook_from_changed_weights": "quantizer 'codebook_from_changed_weights' changed the weights it was given",
    "no_codebook": "quantizer 'no_codebook' returned NoneType (allowed: a tensor of levels)",
}
METHODS = {
    "codes_between": "layer 'blocks.0.0' has codes that are not levels of its grid",
    "codes_beyond": "layer 'blocks.0.0' has codes that are not levels of its grid",
    "turned": "layer 'blocks.0.0' has codes of shape (8, 16), expected (16, 8)",
    "makes_its_own_grid": "layer 'blocks.0.0' has codes that are not levels of its grid",
    "leaves_the_process": "SystemExit: bye",
    "recursive": "RecursionError: maximum recursion depth exceeded",
    "breaks_off": "its process died twice without a word: ",
}
# Imports where the suite is read, and in no worker.
ELSEWHERE = """\
from multiprocessing import parent_process

if parent_process():
    raise OSError("no licence")
"""
OTHER = ELSEWHERE + BROKEN.replace('("sound")', '("other")').partition('@register_quantizer("nan')[0]
OTHER_REASON = "other.py, line 4: OSError: no licence"
SOUND = {("None", "fp"), ("absmax", "rtn"), ("sound", "rtn"), ("absmax", "gptq"), ("absmax", "near")}

DRIVER = """\
import sys
import toys
from qbench.cli import main
if __name__ == "__main__":
    toys.install()
    sys.exit(main())
"""
RUN = ("run", "--suite", "broken.yaml", "--device", "cpu", "--jobs", "1")


@pytest.fixture(scope="module")
def broken_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return a folder in which a suite of broken plugins was run, and what that said."""
    folder = tmp_path_factory.mktemp("broken_run")
    quantizers, methods = ", ".join(["absmax", "sound", "cannot_say", "other", *QUANTIZERS]), ", ".join(METHODS)
    (folder / "broken.yaml").write_text(SUITE.format(quantizers=quantizers, methods=methods))
    for name, text in {"mine.py": BROKEN, "other.py": OTHER, "driver.py": DRIVER}.items():
        (folder / name).write_text(text)
    runner = str(Path(__file__).parents[1] / "runner")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([runner, *sys.path]), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "driver.py", *RUN]
    return folder, subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=280
    )


@pytest.fixture
def broken(broken_run: tuple[Path, object], toys: ModuleType, own_folder: Path) -> Path:
    """Return this test's own copy of that folder, which is also the present one."""
    shutil.copytree(broken_run[0], own_folder, dirs_exist_ok=True)
    return own_folder


@pytest.mark.slow
def test_broken_plugins_fail_alone_and_say_why(broken_run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = broken_run
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    stored = RunFolder(folder / "results/runs/broken").read_all().values()
    found = {(str(one.axes["quantizer"]).partition("[")[0], str(one.axes["method"])): one for one in stored}
    assert {place for place, record in found.items() if record.clean} == SOUND
    assert found["sound", "rtn"].metrics == found["absmax", "near"].metrics == found["absmax", "rtn"].metrics
    wanted = {(name, "rtn"): reason for name, reason in QUANTIZERS.items()}
    wanted |= {("absmax", name): reason for name, reason in METHODS.items()}
    wanted["other", "rtn"] = OTHER_REASON
    assert set(found) == SOUND | set(wanted)
    for place, reason in wanted.items():
        told = str(found[place].reason)
        assert found[place].status == "failed"
        assert told.removeprefix("layer 'blocks.0.0': ").startswith(reason.removeprefix("layer 'blocks.0.0': ")), place
        assert f"/{place[1]}/s0: failed: {told}" in done.stderr
    words = " ".join(done.stdout.split())  # wherever lines are broken
    assert "cannot_say or rtn cannot say whether it fits: ZeroDivisionError: division by zero" in words


def test_every_verb_knows_the_plugins_of_a_suite(broken: Path, call: Any) -> None:
    assert call(*RUN, "--only", "quantizer=sound").code == 0
    assert call("validate", "broken.yaml").out.startswith(
        "broken: sound: 28 cells (1 of them full precision), 1 skipped"
    )
    plan = json.loads(call("plan", "--suite", "broken.yaml", "--only", "quantizer=sound", "--json").out)
    assert plan["run"] == [] and len(plan["stored"]) == 2
    assert "sound[per_channel]" in call("report", "--suite", "broken.yaml").out
    assert "sound" not in json.loads(call("list", "quantizers", "--json").out)["quantizers"]
    listed = json.loads(call("list", "quantizers", "--suite", "broken.yaml", "--json").out)["quantizers"]
    assert listed["sound"] == {"origin": "mine.py", "about": "Nothing is wrong with it."}
    said = call(*RUN, "--only", "quantizer=unsound")
    assert said.code == 2 and "did you mean 'sound'?" in said.err


def planned(call: Any, suite: str = "broken.yaml") -> dict[str, str]:
    """Return the ids of cells to be run, by what tells them apart."""
    found = json.loads(call("plan", "--suite", suite, "--out", "nowhere", "--json").out)["run"]
    return {one["label"]: one["cell_id"] for one in found}


def test_a_changed_plugin_is_run_again_and_nothing_else(broken: Path, call: Any) -> None:
    before = planned(call)
    assert len(before) == len(QUANTIZERS) + len(METHODS) + 6
    Path("other.py").write_text(OTHER + "# changed\n")
    changed = {label for label, cell_id in planned(call).items() if before[label] != cell_id}
    assert changed == {"toy/other[per_channel]/4b/rtn/s0"}
    Path("other.py").write_text(OTHER)
    assert planned(call) == before


def test_where_a_plugin_lies_is_no_part_of_what_it_is(broken: Path, call: Any) -> None:
    Path("elsewhere").mkdir()
    for name in ("mine.py", "other.py", "broken.yaml"):
        shutil.copy(name, "elsewhere")
    assert planned(call, "elsewhere/broken.yaml") == planned(call)


@pytest.mark.parametrize("verb", [("run", "--suite"), ("plan", "--suite"), ("validate",), ("report", "--suite")])
def test_a_plugin_that_cannot_be_imported_is_told_of_in_one_line(call: Any, verb: tuple[str, ...]) -> None:
    Path("mine.py").write_text(BROKEN + "\n\nraise RuntimeError('not today')\n")
    Path("broken.yaml").write_text(SUITE.format(quantizers="absmax", methods="rtn").replace(", other.py", ""))
    said = call(*verb, "broken.yaml")
    line = len(BROKEN.splitlines()) + 3
    assert (said.code, said.out) == (2, "")
    assert said.err == f"qbench: broken.yaml:2: `plugins[0]`: mine.py, line {line}: RuntimeError: not today\n"
