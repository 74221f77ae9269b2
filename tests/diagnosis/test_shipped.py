"""The corrections that come with qbench are there, and are written as they are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qbench.diagnosis import shipped
from qbench.diagnosis.correction import METHODS, Correction


def test_there_is_one_for_each_method() -> None:
    found = shipped.corrections()
    assert tuple(found) == METHODS
    for one in found.values():
        assert 0 <= one.slope <= 2 and one.spread >= 0 and one.decay >= 0
    assert found["rtn"].decay == found["second_order"].decay == 0
    assert shipped.families() == sorted(set(shipped.families())) and shipped.families()


def test_the_file_is_what_is_written_of_it() -> None:
    assert shipped.path().read_text() == shipped.to_json(shipped.corrections(), shipped.families())


def test_what_is_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "path", lambda: tmp_path / "corrections.json")
    fitted = {method: Correction(0.123456789, 0.5, 0.25) for method in METHODS}
    assert shipped.write(fitted, {"vit", "llama"}) == tmp_path / "corrections.json"
    assert shipped.families() == ["llama", "vit"]
    assert shipped.corrections()["qat"] == Correction(0.123457, 0.5, 0.25)
    # The same corrections give the same file, whatever order they come in.
    before = json.loads(shipped.path().read_text())
    shipped.write(dict(reversed(fitted.items())), ["llama", "vit"])
    assert json.loads(shipped.path().read_text()) == before
