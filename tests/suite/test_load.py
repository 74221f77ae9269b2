from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import qbench
from qbench.suite.load import find_suite, list_suites, load_suite
from qbench.suite.schema import Block, Suite

from .conftest import SUITE, Grid, Near, Train, Zoo


def test_everything_is_resolved(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load(
        SUITE
        + "about: A line\nexclude:\n  - when: {bits: 2, methods: [near]}\n    reason: ' too coarse '\nmetrics: [loss]\n"
    )
    block = suite.matrix[0]
    assert (suite.name, suite.about, suite.metrics, suite.file) == ("s", "A line", ("loss",), tmp_path / "s.yaml")
    assert block.models == (Zoo(name="zoo"),)
    assert block.quantizers == (Grid(name="grid"),)
    assert block.methods == (Near(name="near"), Train(name="train", steps=10))
    assert (block.bits, block.seeds) == ((4, 2), (0, 1))
    when = suite.exclude[0].when
    assert (when.bits, when.methods, when.models, when.quantizers, when.seeds) == ((2,), ("near",), (), (), ())
    assert suite.exclude[0].reason == "too coarse"


def test_defaults(load: Callable[..., Suite]) -> None:
    suite = load()
    assert (suite.about, suite.exclude, suite.presets) == ("", (), {})
    assert suite.metrics == ("loss", "bits_per_byte", "next_sentence", "accuracy")


@pytest.mark.parametrize(
    ("models", "metrics"),
    [
        ("[speaker]", ("loss", "bits_per_byte")),
        ("[seer]", ("loss", "accuracy")),
        ("[seer, speaker]", ("loss", "bits_per_byte", "accuracy")),
    ],
)
def test_by_default_all_that_the_models_measure(load: Callable[..., Suite], models: str, metrics: tuple[str]) -> None:
    assert load(SUITE.replace("[zoo]", models)).metrics == metrics


def test_seeds_may_be_listed(load: Callable[..., Suite]) -> None:
    assert load(SUITE.replace("seeds: 2", "seeds: [7, 3]")).matrix[0].seeds == (7, 3)


def test_one_block_and_a_list_of_it_are_the_same(load: Callable[..., Suite]) -> None:
    one = load()
    listed = load(SUITE.replace("matrix:\n  models", "matrix:\n- models"))
    assert listed.matrix == one.matrix


def test_explicit_options_win_over_the_preset(load: Callable[..., Suite]) -> None:
    text = SUITE.replace("{name: train, steps: 10}", "{name: train, preset: fast, steps: 7}, {preset: fast}")
    suite = load(f"{text}presets:\n  fast: {{name: train, steps: 5, rate: 2}}\n")
    assert suite.matrix[0].methods[1:] == (Train(name="train", steps=7, rate=2), Train(name="train", steps=5, rate=2))


def test_a_suite_is_frozen(load: Callable[..., Suite]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().name = "t"  # type: ignore[misc]


def test_a_dump_holds_all_options_and_no_place_on_this_machine(load: Callable[..., Suite], tmp_path: Path) -> None:
    dumped = load().model_dump(mode="json")
    assert dumped["matrix"][0]["methods"][1] == {"name": "train", "steps": 10, "rate": 0.1, "layers": []}
    assert str(tmp_path) not in str(dumped)


def test_a_suite_made_in_python_says_where_without_a_file() -> None:
    block = Block(
        models=(Zoo(name="zoo"),), quantizers=(Grid(name="grid"),), bits=(4,), methods=(Near(name="near"),), seeds=(0,)
    )
    suite = Suite(name="mine", matrix=(block,))
    assert suite.file is None
    assert str(suite.error(("matrix", 0, "bits"), "text")) == "`matrix[0].bits`: text"


def test_an_error_about_a_suite_has_file_and_line(load: Callable[..., Suite], tmp_path: Path) -> None:
    assert str(load().error(("matrix", "bits", 1), "text")) == f"{tmp_path}/s.yaml:5: `matrix.bits[1]`: text"


@pytest.mark.parametrize("given", ["mine.yaml", "mine.yml", "folder/mine", "./mine"])
def test_what_looks_like_a_path_is_one(given: str) -> None:
    assert find_suite(given) == Path(given)


def package_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "qbench").mkdir()
    monkeypatch.setattr(qbench, "__file__", str(folder / "qbench" / "__init__.py"))


def test_the_checkout_comes_before_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package_at(tmp_path, monkeypatch)
    assert list_suites() == {}
    shipped = tmp_path / "qbench" / "_suites" / "cnn.yaml"
    shipped.parent.mkdir()
    shipped.touch()
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "README.md").touch()
    assert list_suites() == {"cnn": shipped}
    for name in ("llm", "cnn"):
        (tmp_path / "suites" / f"{name}.yaml").touch()
    assert list_suites() == {"cnn": tmp_path / "suites" / "cnn.yaml", "llm": tmp_path / "suites" / "llm.yaml"}
    assert list(list_suites()) == ["cnn", "llm"]
    assert find_suite("llm") == tmp_path / "suites" / "llm.yaml"


def test_a_shipped_suite_loads_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package_at(tmp_path, monkeypatch)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "s.yaml").write_text(SUITE)
    assert load_suite("s").file == tmp_path / "suites" / "s.yaml"


def test_loading_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text(REAL)
    program = (
        "import sys\n"
        "from qbench.suite.enumerate import enumerate_cells\n"
        "from qbench.suite.load import load_suite\n"
        f"assert len(enumerate_cells(load_suite({str(tmp_path / 'real.yaml')!r}))) == 64\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


REAL = """\
name: real
presets:
  short: {steps: 20, batch_size: 8}
matrix:
  models: [llama-1m, {name: causal_lm, title: mine, path: model, text: {folder: text}}]
  quantizers:
    - {name: absmax, granularity: per_channel}
    - {name: mse, granularity: {per_group: 64}}
  bits: [4, 3, 2]
  methods: [rtn, {name: gptq, act_order: false}, adaround, {name: ste_qat, preset: short}, lsq]
  seeds: 1
exclude:
  - when: {models: mine, methods: [ste_qat, lsq]}
    reason: too slow
"""
