"""What may be measured: names, tasks of lm-eval, and what is measured where nothing is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from qbench.suite.cell import Cell
from qbench.suite.metrics import BY_DEFAULT, NAMED, Metric, asked_of, measured_by, measured_by_default
from qbench.suite.schema import Suite
from qbench.tasks.causal_lm import CausalLM, ZooLM

PARSE = TypeAdapter(Metric)
MODEL = ZooLM(name="llama-1m")


@pytest.mark.parametrize("metric", [*NAMED, "lm_eval:arc_easy", "lm_eval:mmlu-pro.v2", "lm_eval:5_shot"])
def test_what_is_a_metric(metric: str) -> None:
    assert PARSE.validate_python(metric) == metric


@pytest.mark.parametrize("metric", ["lm_eval", "lm_eval:", "lm_eval:a b", "lm_eval:../x", "lm_eval:é", "arc_easy", 5])
def test_what_is_none(metric: object) -> None:
    with pytest.raises(ValidationError, match=r"allowed: .*lm_eval:TASK, loss"):
        PARSE.validate_python(metric)


def test_a_language_model_measures_any_task_and_nothing_of_it_by_default() -> None:
    assert measured_by(MODEL)[-1] == "lm_eval:TASK"
    assert measured_by_default([MODEL]) == ("loss", "bits_per_byte", "next_sentence")
    assert set(measured_by_default([MODEL])) < set(BY_DEFAULT)
    asked = ("accuracy", "lm_eval:piqa", "loss", "word_perplexity")
    assert asked_of(MODEL, asked) == ("lm_eval:piqa", "loss", "word_perplexity")


def test_a_model_that_knows_no_tasks(load: Callable[..., Suite]) -> None:
    text = "name: s\nmatrix:\n  models: [speaker, zoo]\n  quantizers: [grid]\n  methods: [near]\n  bits: 2\n"
    suite = load(text.replace("bits: 2", "bits: [2]") + "metrics: [loss, 'lm_eval:piqa']\n")
    speaker, zoo = suite.matrix[0].models
    assert asked_of(speaker, suite.metrics) == ("loss",)
    assert asked_of(zoo, suite.metrics) == ("loss", "lm_eval:piqa")


def test_a_cell_needs_the_hub_where_a_metric_does(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\n")
    model = CausalLM(name="causal_lm", path=tmp_path, lm_eval_folder=tmp_path)

    def needs(*metrics: str) -> bool:
        return Cell(model, None, None, None, 0, metrics).needs_hub()

    assert not needs("loss")
    assert not needs("loss", "lm_eval:mine")
    assert needs("loss", "lm_eval:arc_easy")
    assert not Cell(MODEL, None, None, None, 0, ("loss", "bits_per_byte")).needs_hub()
    assert Cell(MODEL, None, None, None, 0, ("lm_eval:mine",)).needs_hub()
