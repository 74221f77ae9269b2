"""What is wrong with a value, as pydantic errors whose text says what was given and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from qbench.errors import nearest
from qbench.suite.source import YamlPath

_PROBLEM = "suite_problem"

_ALLOWED = {
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "at least one entry",
    "string_too_short": "text that is not empty",
}


def problems(found: Sequence[tuple[str, YamlPath]]) -> ValidationError:
    """Return an error to raise inside a validator: texts, each with its place below the validated value."""
    return ValidationError.from_exception_data(
        "suite",
        [
            InitErrorDetails(type=PydanticCustomError(_PROBLEM, "{text}", {"text": text}), loc=loc, input=None)
            for text, loc in found
        ],
    )


def explain(error: ValidationError, model: type[BaseModel], owner: str = "") -> list[tuple[str, YamlPath]]:
    """Say each of pydantic's errors in our words.

    Parameters
    ----------
    error : ValidationError
        What pydantic raised; texts made by `problems` pass unchanged.
    model : type of BaseModel
        The model that was validated; its fields are the allowed keys.
    owner : str
        The registry name whose options the keys are; empty for keys of the suite itself.

    Returns
    -------
    list of (str, tuple)
        Each text with the place it speaks of.
    """
    found = error.errors(include_url=False)
    around = {details["loc"][:depth] for details in found for depth in range(len(details["loc"]))}
    return [_explain(details, model, owner) for details in found if not _is_echo(details, around)]


def shown(value: object) -> str:
    """Return a value as its author would know it again, in at most 60 characters."""
    if value is None:
        return "nothing"
    try:
        text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, date) else repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = "a number too long to show"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _explain(details: ErrorDetails, model: type[BaseModel], owner: str) -> tuple[str, YamlPath]:
    kind, loc, given, context = details["type"], details["loc"], details["input"], details.get("ctx", {})
    if kind == _PROBLEM:
        return details["msg"], loc
    if kind == "missing":
        return f"{str(loc[-1])!r} is missing", loc[:-1]
    if kind == "extra_forbidden":
        within = ".".join([owner, *map(str, loc[:-1])]) if owner else ""
        return _unknown_key(str(loc[-1]), _keys(model, loc[:-1]), within), loc
    if kind == "literal_error":
        text = given if isinstance(given, str) else shown(given)
        return f"given {shown(given)}{nearest(text, _quoted(context['expected']))}", loc
    if kind in ("value_error", "assertion_error"):
        return " ".join(str(context["error"]).split()), loc
    if kind in _ALLOWED:
        return f"given {shown(given)} (allowed: {_ALLOWED[kind].format(**context)})", loc
    return f"given {shown(given)}: {' '.join(details['msg'].split())}", loc


def _is_echo(details: ErrorDetails, around: set[YamlPath]) -> bool:
    # pydantic does not count items that are wrong, and then calls the list too short as well.
    if details["type"] == "default_factory_not_called":  # what it is made from is wrong, and that is told
        return True
    return details["type"] == "too_short" and details["loc"] in around


def _unknown_key(key: str, allowed: list[str], owner: str) -> str:
    if owner:
        return f"unknown option {shown(key)} of {owner}{nearest(key, (name for name in allowed if name != 'name'))}"
    return f"unknown key {shown(key)}{nearest(key, allowed)}"


def _quoted(text: str) -> list[str]:
    # A choice that YAML writes as a word is one that Python writes as a capitalised name.
    return [word or name.lower() for word, name in re.findall(r"'([^']*)'|\b(True|False)\b", text)]


def _keys(model: type[BaseModel], loc: YamlPath) -> list[str]:
    for key in loc:
        field = model.model_fields.get(str(key))
        if field is not None:
            model = next(_models_in(field.annotation), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
