"""lm-eval's tasks as metrics: from a suite's folder, the same numbers as by hand, and nothing that runs code."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from qbench.errors import AssetError, CellError
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.suite.cell import Cell
from qbench.tasks.causal_lm import ZooLM
from qbench.tasks.evaluation_fence import noted
from qbench.tasks.lm_eval_tasks import needs_hub, task_names

if TYPE_CHECKING:
    from qbench.tasks.language import LanguageTask

CHOICE = """\
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: data/rows.jsonl, train: data/shots.jsonl}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: label
doc_to_choice: "{{choices}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 2}
"""
ROWS = [
    {"question": f"{text} the", "choices": [" king", " zqx", " of", " Lord"], "label": index % 4}
    for index, text in enumerate(["And behold,", "So spake", "He went to", "In those days", "Sing of", "Then said"])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a task of four choices, one with examples before its questions, and one of texts."""
    place = tmp_path_factory.mktemp("tasks")
    (place / "data").mkdir()
    for name, rows in (("rows", ROWS), ("shots", ROWS[::-1] * 2)):
        (place / "data" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (place / "colours.yaml").write_text(CHOICE)
    (place / "shots.yaml").write_text("include: colours.yaml\ntask: shots\nnum_fewshot: 2\n")
    (place / "code.yaml").write_text(
        'include: colours.yaml\ntask: code\ndoc_to_text: "{{question.__class__.__mro__[1].__subclasses__()}}"\n'
    )
    (place / "foreign.yaml").write_text(
        CHOICE.replace("task: colours", "task: foreign").replace("metric: acc,", "metric: sacrilege,")
    )
    (place / "unsplit.yaml").write_text("include: colours.yaml\ntask: unsplit\ntest_split: validation\n")
    return place


def spec_of(folder: Path, limit: int | None = None) -> ZooLM:
    return ZooLM(
        name="llama-1m", evaluation_windows=4, calibration_windows=4, lm_eval_folder=folder, lm_eval_limit=limit
    )


@pytest.fixture(scope="module")
def task(folder: Path) -> LanguageTask:
    return spec_of(folder).load(0, "cpu")


def by_hand(task: LanguageTask, rows: list[dict[str, object]]) -> dict[str, float]:
    """Return the accuracies from the likelihood of each choice after its question."""
    right = {"acc": 0, "acc_norm": 0}
    encode = task.tokenizer.encode
    for row in rows:
        scored = []
        for choice in row["choices"]:  # type: ignore[attr-defined]
            ids = torch.tensor([encode(f"{row['question']} {choice}", add_special_tokens=False)])
            start = len(encode(str(row["question"]), add_special_tokens=False))
            with torch.no_grad():
                logs = task.model(input_ids=ids).logits[0].log_softmax(-1)
            scored.append(sum(float(logs[place - 1, ids[0, place]]) for place in range(start, ids.shape[1])))
        for name, values in (
            ("acc", scored),
            ("acc_norm", [value / len(choice) for value, choice in zip(scored, row["choices"], strict=True)]),  # type: ignore[call-overload]
        ):
            right[name] += max(range(4), key=values.__getitem__) == row["label"]
    return {f"colours/{name}": count / len(rows) for name, count in right.items()}


def test_a_local_task_gives_what_its_likelihoods_give(task: LanguageTask) -> None:
    found = task.evaluate(task.model, ("loss", "lm_eval:colours")).metrics
    expected = by_hand(task, ROWS)
    assert {name: value for name, value in found.items() if name.startswith("colours/")} == pytest.approx(expected)
    assert set(found) == {"loss/blocks128", "perplexity/blocks128", "colours/acc", "colours/acc_norm"}


def test_a_limit_is_the_first_questions(folder: Path) -> None:
    task = spec_of(folder, limit=1).load(0, "cpu")
    evaluation = task.evaluate(task.model, ("lm_eval:colours",))
    found = evaluation.metrics
    assert {name: value for name, value in found.items() if name.startswith("colours/")} == by_hand(task, ROWS[:1])
    assert evaluation.facts["lm_eval"]["colours"]["questions"] == 1


def test_examples_before_a_question_are_the_same_every_time(task: LanguageTask) -> None:
    import random

    random.seed(1)
    first = task.evaluate(task.model, ("lm_eval:shots", "lm_eval:colours"))
    random.seed(2)
    state = random.getstate()
    assert task.evaluate(task.model, ("lm_eval:shots", "lm_eval:colours")) == first
    assert random.getstate() == state
    assert {"shots/acc", "colours/acc"} <= set(first.metrics)


def test_end_to_end_a_cell_has_the_scores_in_its_record(folder: Path, tmp_path: Path) -> None:
    cell = Cell(spec_of(folder), None, None, None, 0, ("loss", "lm_eval:colours"))
    assert not cell.needs_hub()
    planned = identify(cell)
    record = execute(planned, "test", Session("cpu"), tmp_path / "weights")
    assert record.clean, record.reason
    assert 0 <= record.metrics["colours/acc"] <= 1
    read = record.facts["lm_eval"]["colours"]
    assert (read["version"], read["questions"], len(read["sha256"])) == (2, 6, 64)
    assert record.key["data"]["lm_eval/data/rows.jsonl"]
    assert record.key["metrics"] == ["loss", "lm_eval:colours"]


def test_that_questions_are_read_is_announced(task: LanguageTask) -> None:
    with noted() as read:
        task.evaluate(task.model, ("loss", "lm_eval:colours"))
    assert "the evaluation split of lm-eval's colours" in read


def test_a_template_that_reaches_behind_its_row_is_refused(task: LanguageTask) -> None:
    from lm_eval import utils

    before = utils.env
    with pytest.raises(CellError, match=r"^lm_eval: code cannot be measured: SecurityError: "):
        task.evaluate(task.model, ("lm_eval:code",))
    assert utils.env is before


def test_a_task_that_cannot_be_measured_is_one_line(task: LanguageTask) -> None:
    with pytest.raises(CellError, match=r"^lm_eval: unsplit cannot be measured: ") as caught:
        task.evaluate(task.model, ("lm_eval:unsplit",))
    assert len(str(caught.value).splitlines()) == 1


def test_a_metric_that_lm_eval_passes_over_is_missed(task: LanguageTask) -> None:
    with pytest.raises(
        CellError, match=r"^lm_eval:foreign gives no 'sacrilege' of its metric_list \(allowed: acc_norm"
    ):
        task.evaluate(task.model, ("lm_eval:foreign",))


def test_a_task_that_runs_code_is_refused_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CHOICE + "process_docs: !function code.run\n")
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')\n")
    with pytest.raises(AssetError, match=r"mine.yaml:14: !function runs code \(allowed: tasks of plain YAML\)$"):
        needs_hub("lm_eval:mine", tmp_path)


def test_which_tasks_need_the_hub(folder: Path) -> None:
    assert task_names(("loss", "lm_eval:colours", "lm_eval:arc_easy")) == ["colours", "arc_easy"]
    assert not needs_hub("lm_eval:colours", folder)
    assert needs_hub("lm_eval:arc_easy", folder)
    assert needs_hub("lm_eval:colours", None)
    assert not needs_hub("loss", None)


def test_a_file_of_questions_is_behind_the_fence(folder: Path, task: LanguageTask) -> None:
    assert folder / "data" / "rows.jsonl" in task.evaluation_files


@pytest.mark.slow
def test_tasks_of_the_hub(task: LanguageTask, monkeypatch: pytest.MonkeyPatch) -> None:
    # lm-eval's own files, ten seconds to read; its data cannot be had here.
    with pytest.raises(CellError, match=r"^unknown task of lm-eval 'arc_eazy'.*"):
        task.evaluate(task.model, ("lm_eval:arc_eazy",))
    with pytest.raises(CellError, match=r"^lm_eval: arc_easy cannot be measured: ") as caught:
        task.evaluate(task.model, ("lm_eval:arc_easy",))
    assert len(str(caught.value).splitlines()) == 1
    import datasets

    rows = [
        {
            "question": row["question"],
            "choices": {"text": row["choices"], "label": list("ABCD")},
            "answerKey": "ABCD"[int(str(row["label"]))],
        }
        for row in ROWS
    ]
    asked: list[tuple[str, str]] = []

    def load(path: str, name: str, **_: object) -> datasets.DatasetDict:
        asked.append((path, name))
        return datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split in ("train", "test")})

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = task.evaluate(task.model, ("lm_eval:arc_easy", "lm_eval:colours")).metrics
    assert asked == [("allenai/ai2_arc", "ARC-Easy")]
    assert {name for name in found if "/acc" in name} == {
        f"{name}/{score}" for name in ("arc_easy", "colours") for score in ("acc", "acc_norm")
    }
    assert all(0 <= found[f"arc_easy/{score}"] <= 1 for score in ("acc", "acc_norm"))


def test_perplexities_of_a_word_and_a_byte_are_of_one_likelihood() -> None:
    spec = ZooLM(name="llama-1m", evaluation_windows=4, calibration_windows=4, passages=1)
    task = spec.load(0, "cpu")
    found = task.evaluate(task.model, ("word_perplexity", "byte_perplexity")).metrics
    text = task.text.documents("evaluation")[0].text
    words, count = len(re.split(r"\s+", text)), len(text.encode())
    nats = math.log(found["byte_perplexity/rolling128"]) * count
    assert math.log(found["word_perplexity/rolling128"]) * words == pytest.approx(nats)
