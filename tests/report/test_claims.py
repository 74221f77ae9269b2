"""Verdicts in a terminal, on a page, and at the end of a run: nothing is left out but digits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qbench.claims.base import Claim, Judgement, SeedVerdict, combine
from qbench.claims.catalogue import all_claims
from qbench.report.claims import overview, render_claims, render_markdown, render_text

CLAIMS = {name: all_claims()[name] for name in ("C7", "C9", "C11")}


def of(claim: str, outcomes: str, model: str = "llama-1m") -> Judgement:
    seeds = {}
    for seed, outcome in enumerate(outcomes.split(", ")):
        lacks = ("probe inward at 2 bits",) if outcome == "not judged" else ()
        numbers = {"c_q": 0.2 + 0.01 * seed, "c_w": 0.0} if outcome in ("supports", "refutes") else {}
        why = f"|cos| is {seed}" if numbers else f"lacks {lacks[0]}" if lacks else "rounding fails at no bits"
        seeds[seed] = SeedVerdict(outcome, why, numbers, None if lacks else 2, lacks)  # type: ignore[arg-type]
    return combine(CLAIMS[claim], model, "mse[per_channel]", seeds)


JUDGED = [
    of("C7", "supports, supports, supports"),
    of("C7", "refutes, refutes, supports", "vit-mnist"),
    of("C9", "not applicable, not applicable, not applicable"),
    of("C9", "not applicable, not applicable, not applicable", "vit-mnist"),
    of("C9", "not judged, not judged, not judged", "mlp-mnist"),
]


def test_every_verdict_has_its_row_and_its_reason() -> None:
    text = render_text(JUDGED, CLAIMS)
    rows = [line.split() for line in text.partition("\n\n")[0].splitlines()[2:]]
    assert rows[:2] == [
        ["C7", "supported", "2", "3/3", "llama-1m/mse[per_channel]"],
        ["C7", "refuted", "2", "1/3", "vit-mnist/mse[per_channel]"],
    ]
    assert len(rows) == 4 and all(row[1:3] == ["not", "applicable"] for row in rows[2:])
    flat = " ".join(text.split())
    for one in JUDGED:
        if one.verdict != "not judged":
            assert one.why in flat
    assert "c_q .210 [.185,.235]" in flat


def test_a_terminal_has_80_columns() -> None:
    long = "resnet8-fashion[calibration_images=512,evaluation_images=5000]"
    judged = [*JUDGED, of("C7", "supports, supports, supports", long)]
    assert max(map(len, render_text(judged, CLAIMS).splitlines())) <= 80
    assert max(map(len, render_claims(judged).splitlines())) <= 80
    assert f"resnet8-fashion[..] = {long}" in render_text(judged, CLAIMS).replace("\n    ", " ")


def test_what_is_not_judged_is_named_with_what_it_lacks() -> None:
    for text in (
        render_text(JUDGED, CLAIMS),
        render_markdown({"theory": JUDGED}, CLAIMS, command="qbench claims theory"),
    ):
        flat = " ".join(text.split())
        assert "C9: mlp-mnist/mse[per_channel]: lacks probe inward at 2 bits" in flat
        assert "C11: nothing here that it is about (needs: " in flat


def test_models_of_which_the_same_is_said_stand_together() -> None:
    flat = " ".join(render_text(JUDGED, CLAIMS).split())
    assert "llama-1m/mse[per_channel], vit-mnist/mse[per_channel]: not applicable. The precondition" in flat


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_the_page_explains_every_claim(claim: Claim) -> None:
    page = render_markdown({"theory_llm": JUDGED, "theory_vision": []}, CLAIMS, command="qbench claims theory_llm")
    row = next(line for line in page.splitlines() if line.startswith(f"| {claim.id} "))
    assert claim.title in row
    assert page.startswith("# Claims\n\n- Made by: `qbench claims theory_llm`\n")
    assert "\n## theory_llm\n" in page and "## theory_vision\n\nNo claim could be judged." in page


def test_bars_do_not_break_the_page() -> None:
    page = render_markdown({"theory": JUDGED}, CLAIMS, command="qbench claims theory")
    found = [block.splitlines() for block in page.split("\n\n") if block.startswith("| claim")]
    assert len(found) == 3  # the claims, the verdicts at a glance, and one by one
    for lines in found:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "\\|cos\\| is 0" in page


def test_a_run_ends_with_a_line_for_each_claim_that_it_can_judge() -> None:
    lines = render_claims(JUDGED).splitlines()
    assert lines[0] == "claims:"
    decided = [one for one in JUDGED if one.verdict in ("supported", "refuted", "inconclusive")]
    assert sum(line.startswith(("C7 ", "C9 ")) for line in lines) == len(decided) > 0
    assert any(line.startswith("not applicable, a precondition is false: ") for line in lines)
    assert "not judged" not in " ".join(lines)  # C9 is, of other models
    only_gaps = render_claims(JUDGED[4:])
    assert only_gaps.splitlines()[1] == "1 claim not judged (C9): see `qbench claims` for what they need"
    assert render_claims([]) == "claims: none to judge"


def test_verdicts_at_a_glance() -> None:
    headers, rows = overview(JUDGED, CLAIMS)
    table = {row[0]: dict(zip(headers[1:], row[1:], strict=True)) for row in rows}
    assert list(table) == list(CLAIMS)
    for one in JUDGED:
        title = f"{one.model}/{one.quantizer}"
        if title in headers:
            assert table[one.claim][title] == one.verdict
    many = [replace(JUDGED[0], quantizer=f"lattice[step={step}]") for step in range(9)]
    headers, rows = overview(many, CLAIMS)
    assert headers == ["claim", JUDGED[0].model]
    assert next(row for row in rows if row[0] == JUDGED[0].claim) == [JUDGED[0].claim, f"9 {JUDGED[0].verdict}"]
