"""From the words of a call to a suite: a model with its data, quantizers, bits and probes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qbench.errors import QBenchError

if TYPE_CHECKING:
    from qbench.spec import Spec
    from qbench.suite.schema import Suite

_LONGEST_NAME = 60


def model_entry(model: str, data: str | None, option: Sequence[str]) -> dict[str, Any]:
    """Return what a suite would say of a model.

    Parameters
    ----------
    model : str
        A name of `qbench list models`, ``hf:ORG/REPO@COMMIT``, ``hf:FOLDER``, or ``torchvision:NAME``.
    data : str, optional
        What it reads: the option ``text`` of a language model, ``images`` of a classifier.
    option : sequence of str
        ``KEY=VALUE``, further options.

    Raises
    ------
    QBenchError
        There is no such model, it has no data to choose, or an option is none.
    """
    from qbench.cli.check import read_options
    from qbench.registry import MODELS
    from qbench.suite.hub_model import FULL_NAME, PREFIX

    name, _, inner = model.partition(":")
    entry: dict[str, Any] = {"name": model}
    if name == "torchvision" and inner:
        entry = {"name": "torchvision", "model": inner}
    entry |= read_options(list(option))
    if data is not None:
        kind = MODELS.get(FULL_NAME if model.startswith(PREFIX) else entry["name"])
        field = next((field for field in ("text", "images") if field in kind.model_fields), None)
        if field is None:
            raise QBenchError(f"--data {data!r}: {model} has data of its own, and no others to choose")
        entry[field] = _value(data, "--data", "a name, or {folder: PATH}")
    return entry


def quantizer_entry(given: str) -> Any:
    """Return what a suite says of a quantizer: a name, or YAML such as ``{name: mse, granularity: per_tensor}``."""
    return _value(given, "--quantizer", "a name, or {name: mse, granularity: per_tensor}")


def _value(given: str, option: str, allowed: str) -> Any:
    from qbench.suite.source import read_value

    try:
        return read_value(given)
    except QBenchError:
        raise QBenchError(f"{option} {given!r} is no YAML (allowed: {allowed})") from None


def bits_of(given: str) -> list[int]:
    """Return the bits that a call asks for, such as ``8,4,3,2``, falling.

    Raises
    ------
    QBenchError
        They are no whole numbers from 1 to 8.
    """
    parts = [part.strip() for part in given.split(",")]
    if not all(part in {"1", "2", "3", "4", "5", "6", "7", "8"} for part in parts):
        raise QBenchError(f"--bits {given!r} (allowed: whole numbers from 1 to 8, such as 8,4,3,2)")
    return sorted({int(part) for part in parts}, reverse=True)


def suite_of(name: str, blocks: Sequence[dict[str, Any]]) -> Suite:
    """Return a suite of blocks, none of which was read from a file.

    Raises
    ------
    QBenchError
        Something in it is wrong; one line says what.
    """
    from pydantic import ValidationError

    from qbench.suite.problems import explain
    from qbench.suite.schema import Suite

    try:
        return Suite.model_validate({"name": name, "matrix": list(blocks), "metrics": ["loss"]})
    except ValidationError as error:
        message, place = explain(error, Suite)[0]
        named = {"models": "MODEL", "quantizers": "--quantizer"}
        about = next((f"{named[str(key)]}: " for key in place if key in named), "")
        raise QBenchError(f"{about}{message}") from None


def folder_name(model: Spec) -> str:
    """Return what the folder of a model's diagnosis is called."""
    plain = re.sub(r"[^\w.=-]+", "-", model.label()).strip("-")
    return f"diagnose-{plain[:_LONGEST_NAME]}"
