"""Claims of other distributions come in by the entry-point group, and what is wrong with one is said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from qbench.claims import catalogue
from qbench.claims.base import Claim
from qbench.errors import QBenchError


@dataclass(frozen=True)
class Point:
    name: str
    target: Any
    value: str = "other.claims:CLAIM"

    def load(self) -> Any:
        if isinstance(self.target, Exception):
            raise self.target
        return self.target


OWN = replace(catalogue.all_claims()["C9"], id="X1", judge=lambda claim, subjects: [])


def install(monkeypatch: pytest.MonkeyPatch, *points: Point) -> None:
    monkeypatch.setattr(catalogue, "entry_points", lambda group: points if group == "qbench.claims" else ())


def test_a_claim_of_another_distribution_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Point("X1", OWN))
    assert list(catalogue.all_claims()) == [*catalogue.BUILT_IN, "X1"]
    assert catalogue.judge([], only=["X1"]) == []


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (Point("C9", replace(OWN, id="C9")), "claim 'C9' is there twice"),
        (Point("X2", OWN), "no Claim of that id"),
        (Point("X1", "text"), "no Claim of that id"),
        (Point("X1", ImportError("gone")), "claim 'X1' cannot be loaded: ImportError: gone"),
    ],
)
def test_what_is_wrong_with_a_claim_is_said(monkeypatch: pytest.MonkeyPatch, point: Point, message: str) -> None:
    install(monkeypatch, point)
    with pytest.raises(QBenchError, match=message):
        catalogue.all_claims()


def test_the_built_in_claims_are_in_their_modules() -> None:
    assert all(isinstance(claim, Claim) and claim.id == name for name, claim in catalogue.all_claims().items())
