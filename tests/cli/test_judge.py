"""`qbench diagnose --judge`: forecasts beside what was measured, as a page, as JSON, and as corrections."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qbench.cli.diagnosing import known
from qbench.diagnosis import shipped
from qbench.store.folder import RunFolder


@pytest.fixture
def planted() -> Iterator[ModuleType]:
    """Return what makes records with a truth planted in them."""
    place = Path(__file__).parents[1] / "diagnosis" / "conftest.py"
    spec = importlib.util.spec_from_file_location("planted_diagnosis", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


LOST = {8: 0.001, 4: 0.04, 3: 0.3, 2: 4.0}


def publish(planted: ModuleType) -> None:
    """Store what was measured of models of three families, and their margins."""
    measured, margins = RunFolder(Path("results/records/lowbit")), RunFolder(Path("results/records/diagnose"))
    for model in ("llama-1m", "resnet8-mnist", "mlp-mnist"):
        full = planted.make_record("fp", model=model)
        for folder in (measured, margins):
            folder.write(full)
        for bits, lost in LOST.items():
            margins.write(planted.make_margin(bits, [lost, lost], [0.5 * lost, 0.5 * lost], model=model))
            for method, share in (("rtn", 1.0), ("gptq", 0.5), ("ste_qat", 0.4)):
                measured.write(planted.make_record(method, bits, share * lost, model=model))


def test_the_judge_has_nothing_to_object_to_where_stand_ins_are_right(
    call: Any, planted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(planted)
    said = call("diagnose", "--judge")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("# diagnose\n\n- Made by: `qbench diagnose --judge --write`\n")
    assert "3 pairs of a model and a quantizer at 12 bitwidths, of 3 families: llama, mlp, resnet." in said.out
    headings = [line for line in said.out.splitlines() if line.startswith("## ")]
    assert len(headings) == len(set(headings)) == 7
    held = json.loads(call("diagnose", "--judge", "--json").out)
    for method in ("rtn", "second-order"):
        score = held["failing"][f"diagnose, {method}"]
        assert (score["pairs"], score["exact"]) == (3, 1.0)
    assert held["corrections"]["rtn"]["spread"] == pytest.approx(0.0, abs=1e-6)
    assert {pair["family"] for pair in held["pairs"]} == {"llama", "mlp", "resnet"}

    monkeypatch.setattr(shipped, "path", lambda: Path("corrections.json"))
    wrote = call("diagnose", "--judge", "--write")
    assert (wrote.code, wrote.out) == (0, "")
    assert wrote.err == "wrote results/tables/diagnose.md\nwrote corrections.json\n"
    assert Path("results/tables/diagnose.md").read_text() == said.out
    assert shipped.families() == ["llama", "mlp", "resnet"]
    assert vars(shipped.corrections()["qat"]) == pytest.approx(held["corrections"]["qat"], abs=1e-6)


def test_a_page_of_others_is_not_overwritten(call: Any, planted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(planted)
    monkeypatch.setattr(shipped, "path", lambda: Path("corrections.json"))
    Path("results/tables").mkdir()
    Path("results/tables/diagnose.md").write_text("mine\n")
    said = call("diagnose", "--judge", "--write")
    assert (said.code, said.out) == (2, "")
    assert said.err == "qbench: results/tables/diagnose.md was not made by qbench: it is not overwritten\n"
    assert not Path("corrections.json").exists()


def test_what_a_run_measured_goes_before_what_is_published_method_by_method(planted: ModuleType) -> None:
    publish(planted)
    own = [planted.make_record("fp"), planted.make_record("rtn", 3, 0.25)]
    found = known(None, ["llama-1m"], own)
    assert {place[0] for place, _ in found} == {"llama-1m"}
    methods = found[("llama-1m", "mse", "keep", 0), 3].methods
    assert methods["rtn"].excess == pytest.approx(0.25)
    assert methods["qat"].excess == pytest.approx(0.12)
