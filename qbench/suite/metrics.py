"""What a suite may measure, and which of it a model can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from qbench.errors import nearest
from qbench.spec import Spec
from qbench.suite.problems import problems
from qbench.suite.source import YamlPath

Metric = Literal["loss", "bits_per_byte", "next_sentence", "accuracy"]


def measured_by(model: Spec | type[Spec]) -> tuple[Metric, ...]:
    """Return what a model, or all of its class, can measure: its ``metrics``; everything where it does not say."""
    known = get_args(Metric)
    said = getattr(model, "metrics", known)
    return tuple(metric for metric in known if metric in said)


def all_measured(models: Iterable[Spec]) -> tuple[Metric, ...]:
    """Return what any of the models can measure."""
    found = {metric for model in models for metric in measured_by(model)}
    return tuple(metric for metric in get_args(Metric) if metric in found)


def check_measured(metrics: Sequence[Metric], models: Sequence[Spec]) -> None:
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
        if metric not in allowed
    ]
    if not found:
        found = [
            (f"none of these is measured by {model.label()}{nearest('', measured_by(model))}", ())
            for model in models
            if not set(metrics) & set(measured_by(model))
        ]
    if found:
        raise problems(found)
