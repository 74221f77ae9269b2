"""docs/extending.md: a newcomer who types what stands there gets what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from qbench import plugin, registry
from qbench.suite.load import load_suite
from qbench.suite.plugins import find_file
from qbench.testing import check_method, check_quantizer

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {text.split("\n")[0].removeprefix("# "): text for language, text in BLOCKS if language in ("python", "yaml")}
COMMANDS = [line.removeprefix("$ ") for language, text in BLOCKS if language == "console" for line in text.splitlines()]


def test_every_block_is_a_file_a_command_or_a_table_of_entry_points() -> None:
    assert set(FILES) == {"percentile_clip.py", "mine.yaml", "curved.py", "quantiles.py", "keep_mean.py"}
    assert len(COMMANDS) == 3 and all(command.startswith("qbench ") for command in COMMANDS)
    (groups,) = [tomllib.loads(text)["project"]["entry-points"] for language, text in BLOCKS if language == "toml"]
    assert set(groups) == {known._group for known in (registry.QUANTIZERS, registry.METHODS)}
    assert len(BLOCKS) == len(FILES) + 2


def test_a_quantizer_takes_fifteen_lines() -> None:
    assert len(FILES["percentile_clip.py"].splitlines()) - 1 <= 15  # the first is the file's name


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh folder with the files of the page."""
    folder = tmp_path_factory.mktemp("typed")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def names(typed: Path, request: pytest.FixtureRequest) -> Iterator[tuple[registry.Registered, ...]]:
    found = find_file(typed / request.param)
    found.load()
    with registry.scope(found.names):
        yield found.names


@pytest.mark.parametrize("names", ["curved.py", "quantiles.py", "keep_mean.py"], indirect=True)
def test_the_examples_keep_the_contract(names: tuple[registry.Registered, ...]) -> None:
    (found,) = names
    if found.kind == "method":
        check_method(found.target)
    else:
        check_quantizer(found.target)


@pytest.mark.slow
def test_the_commands_end_in_a_leaderboard_with_the_new_name(typed: Path) -> None:
    check, listing, run = COMMANDS
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}

    def said(command: str, *more: str) -> str:
        program, *arguments = shlex.split(command)
        found = [str(Path(sys.executable).with_name(program)), *arguments, *more]
        done = subprocess.run(found, cwd=typed, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "conforms" in said(check)
    assert "percentile_clip.py" in said(listing)
    board = json.loads(said(run, "--device", "cpu", "--jobs", "1", "--json"))["leaderboard"]
    assert board["counts"] == {"expected": 7, "ok": 7}
    shown = said("qbench report --suite mine.yaml")
    for label in (
        "absmax[per_channel]",
        "percentile_clip[per_channel]",
        "percentile_clip[g64,q=99.9]",
        "plugins: quantizer percentile_clip from percentile_clip.py",
    ):
        assert label in shown.replace("\n    ", " ")


def test_the_suite_of_the_page_is_sound(typed: Path) -> None:
    suite = load_suite(str(typed / "mine.yaml"))
    assert [one.label() for one in suite.matrix[0].quantizers][1:] == [
        "percentile_clip[per_channel]",
        "percentile_clip[g64,q=99.9]",
    ]


def test_every_setting_that_is_named_is_there() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert rows == ["allowed_bits", "fixed_scales", "sees_inputs", "version", "sources"]
    assert all(hasattr(plugin.Quantizer, name) for name in rows)
    assert f"API_VERSION` is {plugin.API_VERSION}" not in PAGE  # the number has one place, the module
