"""`qbench claims` on a stored run: it judges what is there, and ends well whatever the verdicts are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qbench.claims.catalogue import all_claims

RUN = "results/runs/tiny"


@pytest.mark.parametrize("run", [["tiny.yaml"], ["--suite", "tiny.yaml"], [RUN], ["tiny.yaml", "--out", RUN]], ids=str)
def test_claims_of_a_suite_or_a_folder(stored: Path, call: Any, run: list[str]) -> None:
    said = call("claims", *run)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("== tiny ==\n")
    # Rounding, and a training of two steps: most is not judged, and all is named.
    told = said.out.partition("not judged:")[2]
    assert all(f"\n{name}: " in told or f"\n{name}  " in said.out for name in all_claims())


def test_claims_as_json(stored: Path, call: Any) -> None:
    said = call("claims", "tiny.yaml", "--only", "C9, C2", "--json")
    found = json.loads(said.out)["tiny"]
    assert [one["claim"] for one in found] == ["C2", "C9"]
    assert {one["verdict"] for one in found} <= {"not judged", "not applicable"}
    assert all(one["why"] for one in found)


def test_the_page_is_written_and_a_strangers_is_kept(stored: Path, call: Any) -> None:
    said = call("claims", "tiny.yaml", RUN, "--write")
    assert (said.code, said.out, said.err) == (0, "", "wrote results/tables/claims.md\n")
    page = Path("results/tables/claims.md")
    assert f"- Made by: `qbench claims tiny.yaml {RUN} --write`" in page.read_text()
    assert call("claims", "tiny.yaml", "--write").code == 0
    page.write_text("mine")
    said = call("claims", "tiny.yaml", "--write")
    assert said.code == 2 and "not overwritten" in said.err and page.read_text() == "mine"


def test_figures_are_drawn_for_each_run(stored: Path, call: Any) -> None:
    said = call("claims", "tiny.yaml", "--only", "C9", "--figures", "drawn")
    assert said.code == 0
    written = sorted(path.name for path in Path("drawn").rglob("*"))
    assert said.err == f"wrote {len([name for name in written if name.endswith('.svg')])} figures to drawn/tiny\n"
    assert all(path.read_text().startswith("<svg") for path in Path("drawn").rglob("*.svg"))


def test_markdown_is_printed(stored: Path, call: Any) -> None:
    assert call("claims", "tiny.yaml", "--markdown").out.startswith("# Claims\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "claims of what?"),
        (["tiny.yaml", "--only", "C77"], "unknown claim 'C77'"),
        (["tiny.yaml", "--only", "C7", "--write"], "leave out --only"),
        (["tiny.yaml", RUN, "--out", RUN], "--out is the folder of one suite's records"),
        (["no_such_suite"], "unknown suite 'no_such_suite'"),
        (["empty"], "empty holds no records"),
    ],
    ids=str,
)
def test_a_wrong_call_is_refused_in_one_line(stored: Path, call: Any, arguments: list[str], message: str) -> None:
    Path("empty").mkdir()
    said = call("claims", *arguments)
    assert (said.code, said.out) == (2, "")
    assert message in said.err and said.err.count("\n") == 1
