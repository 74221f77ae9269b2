"""docs/claims.md says of every claim what the code says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.claims import thresholds
from qbench.claims.catalogue import BUILT_IN, all_claims
from qbench.claims.subject import subjects

PAGE = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
SECTIONS = {part.partition(":")[0]: " ".join(part.split()) for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]}


def test_the_page_has_the_claims_there_are_in_their_order() -> None:
    assert list(SECTIONS) == list(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_claim_is_told_as_it_is_judged(name: str) -> None:
    claim, told = all_claims()[name], SECTIONS[name]
    assert told.startswith(f"{name}: {claim.title} ")
    for label, text in (("Supports", claim.supports), ("Refutes", claim.refutes), ("Needs", claim.needs)):
        assert f"- {label}: {text}." in told
    source = {"abstract": "predicted by the abstract", "readers": "as reported by readers", "ours": "ours"}[
        claim.source
    ]
    assert f"- Source: {source}." in told


def test_the_thresholds_of_the_basin_are_told(bench: Callable[..., Any]) -> None:
    assert "tau = max(3 SE, tolerance)        tau_f = max(10 tolerance, .1 (L_chance - L_fp)) + 3 SE" in PAGE
    (words,) = subjects(bench(facts={"chance_loss": 12.85}).method(2, "rtn", 1.0).records.values())
    headroom = words.headroom
    assert headroom is not None and words.tau(0.01) == 0.05 and words.tau(0.1) == pytest.approx(0.3)
    assert words.tau_f(0.1) == pytest.approx(0.1 * headroom + 0.3)
    facts = {"chance_loss": 12.85, "chance_accuracy": 0.1}
    (images,) = subjects(bench(facts=facts).method(2, "rtn", 1.0).records.values())
    assert images.tau(0.01) == pytest.approx(0.02 * headroom) and images.tau_f(0.0) == pytest.approx(0.2 * headroom)
    (exact,) = subjects(bench(facts={"tolerance": 0.02}).method(2, "rtn", 1.0).records.values())
    assert (exact.tau(1.0), exact.tau_f(1.0)) == (0.02, pytest.approx(0.06))
    assert thresholds.SEEDS == 3 and "fewer than three seeds" in PAGE


FOUND = PAGE.partition("## What was found")[2].partition("\n## ")[0]
TABLE = (Path(__file__).parents[2] / "results" / "tables" / "claims.md").read_text(encoding="utf-8")
COLUMNS = {  # of the page: the run, and the subject that its table names
    "llama, absmax": ("theory_llm", "absmax[per_channel,asymmetric]"),
    "llama, mse": ("theory_llm", "mse[per_channel]"),
    "resnet, absmax": ("theory_vision", "absmax[per_channel,asymmetric]"),
    "resnet, mse": ("theory_vision", "mse[per_tensor]"),
}


def glance(run: str) -> list[dict[str, str]]:
    """Return the rows of a run's verdicts at a glance."""
    lines = [line for line in TABLE.partition(f"\n## {run}\n")[2].splitlines() if line.startswith("| ")]
    header, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]


@pytest.mark.parametrize("column", COLUMNS)
def test_the_verdicts_of_the_page_are_those_of_the_table(column: str) -> None:
    run, quantizer = COLUMNS[column]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in FOUND.splitlines() if line[:2] == "| "]
    header, told = lines[0], {line[0]: line for line in lines[1:]}
    rows = [row for row in glance(run) if row["claim"] in told]
    assert len(told) == 14 and [row["claim"] for row in rows][:14] == list(told)
    for row in rows[:14]:
        own = {value for name, value in row.items() if name.endswith(f"/{quantizer}")} - {"-"}
        assert own == {told[row["claim"]][header.index(column)]}, row["claim"]


def test_the_numbers_of_the_page_are_those_of_the_table() -> None:
    quoted = [code for code in re.findall(r"`([^`]+)`", FOUND) if re.search(r" -?\d*\.\d", code)]
    assert len(quoted) > 20
    assert [code for code in quoted if code not in TABLE] == []
