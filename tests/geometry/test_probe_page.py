"""docs/probes.md names every probe with every option and every number that a record can hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qbench.geometry.base import Probe
from qbench.registry import PROBES

PAGE = (Path(__file__).parents[2] / "docs" / "probes.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
BUILT_IN = [name for name in PROBES.names() if PROBES.get(name).__module__.startswith("qbench.")]


def options_in(section: str) -> set[str]:
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`(\w+)`", " ".join(rows)))


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_option_is_explained_and_no_other(name: str) -> None:
    shared, fields = set(Probe.model_fields), set(PROBES.get(name).model_fields)
    assert options_in(SECTIONS["What all share"]) == shared - {"name"}
    own = options_in(SECTIONS[name])
    assert fields - shared <= own <= fields


@pytest.mark.parametrize("name", BUILT_IN)
def test_defaults_are_those_of_the_page(name: str) -> None:
    for option, field in PROBES.get(name).model_fields.items():
        (row,) = [line for line in SECTIONS[name].splitlines() if line.startswith(f"| `{option}`")] or [""]
        if isinstance(field.default, int | float) and row:
            assert row.rstrip(" |").endswith(f": {field.default}"), row
