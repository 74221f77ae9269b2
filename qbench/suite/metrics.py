"""What a suite may measure, and which of it a model can."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from qbench.errors import nearest
from qbench.spec import Spec
from qbench.suite.problems import problems, shown
from qbench.suite.source import YamlPath

BY_DEFAULT = ("loss", "bits_per_byte", "next_sentence", "accuracy")
"""What is measured where a suite says nothing, as far as its models can."""

NAMED = (*BY_DEFAULT, "word_perplexity", "byte_perplexity")
"""The metrics with a name of their own."""

TASKS = "lm_eval"
"""What a model's ``metrics`` hold where it can be measured by any task of lm-eval."""

_ANY_TASK = f"{TASKS}:TASK"
_TASK = r"^lm_eval:[\w][\w.+-]*$"


def _parse(value: Any) -> str:
    if isinstance(value, str) and (value in NAMED or re.fullmatch(_TASK, value, re.ASCII)):
        return value
    text = value if isinstance(value, str) else shown(value)
    raise problems([(f"given {shown(value)}{nearest(text, (*NAMED, _ANY_TASK))}", ())])


Metric = Annotated[
    str,
    BeforeValidator(_parse),
    WithJsonSchema({"anyOf": [{"type": "string", "enum": list(NAMED)}, {"type": "string", "pattern": _TASK}]}),
]


def measured_by(model: Spec | type[Spec]) -> tuple[str, ...]:
    """Return what a model, or all of its class, can measure: its ``metrics``; everything where it does not say.

    That any task of lm-eval can be measured is returned as ``lm_eval:TASK``.
    """
    known = (*NAMED, TASKS)
    measures = getattr(model, "measures", None) if isinstance(model, Spec) else None
    said = getattr(model, "metrics", known) if measures is None else measures()
    return tuple(_ANY_TASK if metric == TASKS else metric for metric in known if metric in said)


def asked_of(model: Spec, asked: Sequence[str]) -> tuple[str, ...]:
    """Return those of the metrics a suite asks for that a model can measure, in the suite's order."""
    measured = measured_by(model)
    return tuple(metric for metric in asked if _kind(metric) in measured)


def all_measured(models: Iterable[Spec]) -> tuple[str, ...]:
    """Return what any of the models can measure."""
    found = {metric for model in models for metric in measured_by(model)}
    return tuple(metric for metric in (*NAMED, _ANY_TASK) if metric in found)


def measured_by_default(models: Iterable[Spec]) -> tuple[str, ...]:
    """Return what a suite with these models measures when it does not say."""
    return tuple(metric for metric in all_measured(models) if metric in BY_DEFAULT)


def check_measured(metrics: Sequence[str], models: Sequence[Spec]) -> None:
    """Make sure that each metric is measured by a model, and that each model measures one.

    Raises
    ------
    ValidationError
        With texts of ours (see `qbench.suite.problems`).
    """
    allowed = all_measured(models)
    found: list[tuple[str, YamlPath]] = [
        (f"{metric!r} is measured by no model of the suite{nearest(metric, allowed)}", (index,))
        for index, metric in enumerate(metrics)
        if _kind(metric) not in allowed
    ]
    if not found:
        found = [
            (f"none of these is measured by {model.label()}{nearest('', measured_by(model))}", ())
            for model in models
            if not asked_of(model, metrics)
        ]
    if found:
        raise problems(found)


def _kind(metric: str) -> str:
    return _ANY_TASK if metric.startswith(f"{TASKS}:") else metric
