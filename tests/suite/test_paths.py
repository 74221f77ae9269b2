from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.errors import SuiteError
from qbench.suite.paths import resolve_inside
from qbench.suite.schema import Suite

from .conftest import SUITE

REFUSED = {
    "": "the path is empty (allowed: a path inside the suite's folder)",
    "/etc/passwd": "the path '/etc/passwd' is absolute (allowed: a path inside the suite's folder)",
    "C:\\models": "the path 'C:\\\\models' is absolute (allowed: a path inside the suite's folder)",
    "\\\\host\\share": "the path '\\\\\\\\host\\\\share' is absolute (allowed: a path inside the suite's folder)",
    "..": "the path '..' leaves the suite's folder (allowed: a path inside it)",
    "a/../../b": "the path 'a/../../b' leaves the suite's folder (allowed: a path inside it)",
    "../suites-of-others": "the path '../suites-of-others' leaves the suite's folder (allowed: a path inside it)",
    "out/model": "the path 'out/model' leaves the suite's folder (allowed: a path inside it)",
    "in/../out": "the path 'in/../out' leaves the suite's folder (allowed: a path inside it)",
    "a\0b": "the path 'a\\x00b' cannot be followed: embedded null byte",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "suites"
    (inside / "model").mkdir(parents=True)
    (tmp_path / "suites-of-others").mkdir()
    (inside / "out").symlink_to(tmp_path)
    (inside / "in").symlink_to(inside / "model")
    return inside


@pytest.mark.parametrize("given_path", REFUSED)
def test_no_path_leaves_the_folder(folder: Path, given_path: str) -> None:
    with pytest.raises(SuiteError) as caught:
        resolve_inside(folder, given_path)
    assert str(caught.value) == REFUSED[given_path]


def test_a_loop_of_links_is_refused(folder: Path) -> None:
    (folder / "loop").symlink_to(folder / "loop")
    with pytest.raises(SuiteError, match="the path 'loop/model' cannot be followed: "):
        resolve_inside(folder, "loop/model")


@pytest.mark.parametrize("given_path", ["model", "./model", "model/../model", "in", "in/../model"])
def test_what_stays_inside_is_resolved(folder: Path, given_path: str) -> None:
    assert resolve_inside(folder, given_path) == folder / "model"


def test_the_folder_itself_and_what_is_not_there_yet(folder: Path) -> None:
    assert resolve_inside(folder, ".") == folder
    assert resolve_inside(folder, "new/file") == folder / "new" / "file"


def test_the_suite_folder_may_be_a_link_itself(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    assert resolve_inside(folder.parent / "link", "model") == folder / "model"


@given(parts=st.lists(st.sampled_from(["..", ".", "model", "out", "in", "x", "", "/"]), max_size=6))
def test_a_resolved_path_is_always_inside(parts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("root") / "suites"
    (root / "model").mkdir(parents=True)
    (root / "out").symlink_to(root.parent)
    (root / "in").symlink_to(root / "model")
    try:
        found = resolve_inside(root, "/".join(parts))
    except SuiteError:
        return
    assert found == found.resolve()
    assert found.is_relative_to(root.resolve())


def suite_with(model: str) -> str:
    return SUITE.replace("models: [zoo]", f"models:\n    - {model}")


def test_paths_of_a_model_are_resolved_at_any_depth(load: Callable[..., Suite], tmp_path: Path) -> None:
    model = "{name: disk, path: a, text: {folder: b, repo: c, parts: [{path: [d, e]}]}}"
    spec = load(suite_with(model)).matrix[0].models[0]
    assert spec.model_dump() == {
        "name": "disk",
        "path": tmp_path / "a",
        "text": {
            "folder": str(tmp_path / "b"),
            "repo": "c",
            "parts": [{"path": [str(tmp_path / "d"), str(tmp_path / "e")]}],
        },
    }


@pytest.mark.parametrize(
    ("model", "where"),
    [
        ("{name: disk, path: ../a}", "path"),
        ("{name: disk, text: {folder: ../a}}", "text.folder"),
        ("{name: disk, text: {parts: [1, {path: ../a}]}}", "text.parts[1].path"),
        ("{name: disk, text: {parquet: ../a}}", "text.parquet"),
        ("{name: disk, text: {parquet: [a, ../a]}}", "text.parquet[1]"),
        ("{name: disk, text: {parquet: a, evaluation_parquet: ../a}}", "text.evaluation_parquet"),
        ("{name: disk, text: {lm_eval_folder: ../a}}", "text.lm_eval_folder"),
    ],
)
def test_a_path_that_leaves_is_refused_with_its_place(refusal: Callable[..., str], model: str, where: str) -> None:
    reason = "the path '../a' leaves the suite's folder (allowed: a path inside it)"
    assert refusal(suite_with(model)) == f"s.yaml:4: `matrix.models[0].{where}`: {reason}"


def test_a_path_from_a_preset_is_resolved_too(load: Callable[..., Suite], refusal: Callable[..., str]) -> None:
    text = suite_with("{name: disk, preset: here}")
    assert load(f"{text}presets:\n  here: {{path: a}}\n").matrix[0].models[0].path.name == "a"
    reason = "the path '/a' is absolute (allowed: a path inside the suite's folder)"
    assert refusal(f"{text}presets:\n  here:\n    path: /a\n") == f"s.yaml:11: `presets.here.path`: {reason}"
