"""docs/claims.md says of every claim what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qbench.claims import thresholds
from qbench.claims.catalogue import BUILT_IN, all_claims
from qbench.claims.regimes import thresholds as regime_thresholds

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


def test_the_thresholds_of_the_basin_are_told() -> None:
    assert "tau = max(3 SE, .05)        tau_f = max(10 tau, .1 (L_chance - L_fp))" in PAGE
    assert regime_thresholds(0.02, 0.0, 10.0) == (pytest.approx(0.06), pytest.approx(1.0))
    assert thresholds.SEEDS == 3 and "fewer than three seeds" in PAGE
