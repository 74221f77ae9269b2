"""Tasks in a folder: what their files say, where their rows lie, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qbench.errors import AssetError
from qbench.tasks.lm_eval_files import folder_sha256, local_tasks, task_config, task_rows

ROWS = [{"question": f"What is {n}?", "answer": str(n)} for n in range(3)]
TASK = """\
task: numbers
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one task."""
    place = tmp_path / "tasks"
    place.mkdir()
    (place / "numbers.yaml").write_text(TASK)
    (place / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    return place


def only(folder: Path) -> Path:
    (file,) = local_tasks(folder).values()
    return file


def test_tasks_are_known_by_the_name_in_their_file(folder: Path) -> None:
    (folder / "deeper").mkdir()
    (folder / "deeper" / "any.yaml").write_text("task: other\n")
    (folder / "base.yaml").write_text("test_split: test\n")
    (folder / "group.yaml").write_text("group: all\ntask: [numbers, other]\n")
    assert local_tasks(folder) == {"numbers": folder / "numbers.yaml", "other": folder / "deeper" / "any.yaml"}


def test_a_task_keeps_what_lm_eval_needs_and_not_where_its_rows_are(folder: Path) -> None:
    config = task_config(folder, only(folder))
    assert set(config) == {"task", "test_split", "output_type", "doc_to_text", "doc_to_target", "metric_list"}


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_rows_of_each_format(folder: Path, kind: str) -> None:
    file = folder / f"data.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), file)
    elif kind == "csv":
        file.write_text("question,answer\n" + "".join(f"{row['question']},a{row['answer']}\n" for row in ROWS))
    else:
        file.write_text(json.dumps(ROWS) if kind == "json" else "\n".join(map(json.dumps, ROWS)))
    named = TASK.replace("rows.jsonl", f"[data.{kind}, data.{kind}]")
    only(folder).write_text(named.replace("json\n", f"{kind.removesuffix('l')}\n", 1))
    rows = task_rows(folder, only(folder))
    assert list(rows) == ["test"]
    assert [row["question"] for row in rows["test"]] == [row["question"] for row in ROWS] * 2


def test_files_without_a_split_are_the_train_split(folder: Path) -> None:
    only(folder).write_text(TASK.replace("{test: rows.jsonl}", "rows.jsonl"))
    assert list(task_rows(folder, only(folder))) == ["train"]


def test_what_is_included_gives_way(folder: Path) -> None:
    (folder / "base.txt").write_text("num_fewshot: 2\ndescription: From the base.\n")
    only(folder).write_text(TASK + "include: base.txt\ndescription: Its own.\n")
    config = task_config(folder, only(folder))
    assert (config["num_fewshot"], config["description"]) == (2, "Its own.")
    (folder / "base.txt").write_text("include: numbers.yaml\n")
    with pytest.raises(AssetError, match=r"numbers.yaml includes itself$"):
        task_config(folder, only(folder))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("process_docs: !function code.run", "numbers.yaml:10: !function runs code (allowed: tasks of plain YAML)"),
        ("process_docs: !!python/name:os.system", "runs code (allowed: tasks of plain YAML)"),
        ("class: code.Task", "'class' is no key of a local task (allowed: "),
        ("use_prompt: promptsource:x", "'use_prompt' is no key of a local task"),
        ("unsafe_code: true", "'unsafe_code' is no key of a local task"),
        ("dataset_name: x", "'dataset_name' is no key of a local task: did you mean 'dataset_path'?"),
        ("include: ../outside.yaml", "'../outside.yaml' leads out of tasks (allowed: a path inside it)"),
        ("include: nowhere.yaml", "nowhere.yaml does not exist"),
        ("a: [", "no YAML: "),
    ],
)
def test_what_a_task_must_not_say(folder: Path, line: str, message: str) -> None:
    only(folder).write_text(TASK + line + "\n")
    (folder.parent / "outside.yaml").write_text("num_fewshot: 1\n")
    with pytest.raises(AssetError) as caught:
        task_config(folder, only(folder))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_metric_that_would_be_downloaded(folder: Path) -> None:
    only(folder).write_text(TASK.replace("metric: acc,", "metric: bleurt, hf_evaluate: true,"))
    with pytest.raises(AssetError, match="allowed: mappings with a metric of lm-eval's own"):
        task_config(folder, only(folder))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dataset_path: json", "dataset_path: allenai/ai2_arc", r"dataset_path 'allenai/ai2_arc' \(allowed: csv, json"),
        ("dataset_path: json", "dataset_path: parquet", r"data file .*rows.jsonl is no parquet of rows: "),
        ("rows.jsonl", "../rows.jsonl", r"'../rows.jsonl' leads out of tasks"),
        ("rows.jsonl", "/etc/hosts", r"'/etc/hosts' leads out of tasks"),
        ("rows.jsonl", "5", r"5 leads out of tasks"),
        ("rows.jsonl", "nowhere.jsonl", r"data file .*nowhere.jsonl does not exist"),
        ("rows.jsonl", "numbers.yaml", r"data file .*numbers.yaml is no json of rows: "),
        ("{data_files: {test: rows.jsonl}}", "{}", r"dataset_kwargs names no data_files"),
    ],
)
def test_rows_that_cannot_be_had(folder: Path, old: str, new: str, message: str) -> None:
    only(folder).write_text(TASK.replace(old, new))
    with pytest.raises(AssetError, match=message):
        task_rows(folder, only(folder))


def test_two_files_with_one_name(folder: Path) -> None:
    (folder / "again.yaml").write_text(TASK)
    with pytest.raises(AssetError, match=r"numbers.yaml: the task 'numbers' is defined by again.yaml too$"):
        local_tasks(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"lm_eval_folder .*nowhere does not exist$"):
        local_tasks(tmp_path / "nowhere")


def test_a_file_that_changes_is_read_again(folder: Path) -> None:
    before = folder_sha256(folder)
    assert set(before) == {"lm_eval/numbers.yaml", "lm_eval/rows.jsonl"}
    file = only(folder)
    file.write_text(TASK.replace("numbers", "figures and more"))
    assert list(local_tasks(folder)) == ["figures and more"]
    assert folder_sha256(folder) != before
