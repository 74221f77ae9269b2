"""What a reader sees, to the letter: a change of these pages has to be meant."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.report.latex import render_latex
from qbench.report.leaderboard import Leaderboard
from qbench.report.markdown import render_markdown
from qbench.report.run import Run
from qbench.report.table_csv import render_csv
from qbench.report.text import render_text
from qbench.store.record import Record

MakeRecord = Callable[..., Record]

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def run(make_record: MakeRecord) -> Run:
    """Return three methods at two bitwidths, two seeds; each kind of flaw once."""
    flaws: dict[str, dict[str, Any]] = {
        "llama-1m/mse/2b/gptq/s1": {"fallback": "rtn: Cholesky failed at damping 1"},
        "llama-1m/mse/4b/lsq/s0": {"status": "diverged", "reason": "train loss became NaN at step 17"},
        "llama-1m/mse/4b/lsq/s1": {"status": "failed", "reason": "out of memory"},
    }
    excess = {
        ("rtn", 4): 0.028,
        ("gptq", 4): 0.02,
        ("lsq", 4): 0.01,
        ("rtn", 2): 0.6,
        ("gptq", 2): 0.48,
        ("lsq", 2): 0.21,
    }
    records = [make_record(f"llama-1m/fp/s{seed}") for seed in range(2)]
    for (method, bits), value in excess.items():
        for seed in range(2):
            label = f"llama-1m/mse/{bits}b/{method}/s{seed}"
            values = [value * factor * (1 - 0.2 * seed) for factor in (0.98, 1.02, 1.01, 0.99)]
            records.append(make_record(label, values, **flaws.get(label, {})))
    expected: list[dict[str, Any]] = [{**record.axes, "skip": None} for record in records]
    for bits in (4, 2):
        axes = {"model": "llama-1m", "quantizer": "mse", "bits": bits, "method": "ste_qat[steps=100]"}
        expected += [{**axes, "seed": seed, "skip": "keeps the suite under 15 minutes"} for seed in range(2)]
    return Run("tiny", [record for record in records if record.label != "llama-1m/mse/4b/gptq/s1"], expected)


@pytest.fixture(scope="module")
def board(run: Run) -> Leaderboard:
    return run.board


@pytest.mark.parametrize(("name", "render"), [("leaderboard.txt", render_text), ("leaderboard.md", render_markdown)])
def test_the_leaderboard(board: Leaderboard, name: str, render: Callable[[Leaderboard], str]) -> None:
    assert render(board) == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run_of_images(make_image_record: MakeRecord) -> Run:
    """Return a classifier that loses most to batch norm, three seeds, one of them failed once."""
    rows = {
        ("rtn", 4, "keep"): (0.004, 0.983),
        ("rtn[bn=recalibrate]", 4, "recalibrate"): (0.002, 0.984),
        ("gptq", 4, "keep"): (0.003, 0.983),
        ("ste_qat", 4, "update"): (0.001, 0.985),
        ("rtn", 2, "keep"): (2.1, 0.152),
        ("rtn[bn=recalibrate]", 2, "recalibrate"): (0.31, 0.731),
        ("gptq", 2, "keep"): (0.9, 0.602),
        ("ste_qat", 2, "update"): (0.005, 0.983),
    }
    records = [make_image_record(f"resnet8-mnist/fp/s{seed}", accuracy=0.984 + 0.001 * seed) for seed in range(3)]
    records += [make_image_record(f"resnet8-mnist/fine_tune/s{seed}", -0.004, 0.986, bn="update") for seed in range(3)]
    for (method, bits, bn), (value, accuracy) in rows.items():
        for seed in range(3):
            flaw = {"status": "failed", "reason": "out of memory"} if (method, bits, seed) == ("gptq", 2, 1) else {}
            values = [value * factor * (1 - 0.05 * seed) for factor in (0.98, 1.02, 1.01, 0.99)]
            label = f"resnet8-mnist/mse/{bits}b/{method}/s{seed}"
            records.append(make_image_record(label, values, accuracy + 0.002 * seed, bn=bn, **flaw))
    return Run("images", records, [record.axes for record in records], command="qbench run --suite tiny")


@pytest.fixture(scope="module")
def board_of_images(run_of_images: Run) -> Leaderboard:
    return run_of_images.board


@pytest.mark.parametrize(("name", "render"), [("images.txt", render_text), ("images.md", render_markdown)])
def test_the_leaderboard_of_a_classifier(
    board_of_images: Leaderboard, name: str, render: Callable[[Leaderboard], str]
) -> None:
    assert render(board_of_images) == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_page_says_how_it_was_made(board: Leaderboard) -> None:
    assert "- Made by: `nox -s tables`\n" in render_markdown(board, command="nox -s tables")


def test_latex(run: Run, run_of_images: Run) -> None:
    assert render_latex([run, run_of_images]) == (GOLDEN / "leaderboards.tex").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "cells"), [("entries.csv", False), ("cells.csv", True)])
def test_csv(run: Run, run_of_images: Run, name: str, cells: bool) -> None:
    found, kept = (
        list(csv.reader(text.splitlines()))
        for text in (render_csv([run, run_of_images], cells=cells), (GOLDEN / name).read_text(encoding="utf-8"))
    )
    assert found[0] == kept[0] and len(found) == len(kept)
    for ours, theirs in zip(found, kept, strict=True):
        for word, other in zip(ours, theirs, strict=True):
            # Sums in another order, on another machine, differ in their last digits.
            assert word == other or float(word) == pytest.approx(float(other), rel=1e-9, abs=1e-12), ours
