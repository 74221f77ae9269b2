"""How a suite writes what pydantic reads in a way of its own: numbers, switches, granularities, texts and images."""

from __future__ import annotations

from typing import Any

from qbench.suite.bounds import MAX_BITS, MIN_BITS
from qbench.suite.limits import MAX_KEY
from qbench.tasks.corpus import SOURCES
from qbench.tasks.images import NAMED
from qbench.tasks.text_sets import SETS

Json = dict[str, Any]

DEFINITIONS: dict[str, Json] = {
    "number": {
        "description": "A number, or a text that is one: YAML 1.1 reads `1e-3` as a text.",
        "type": ["number", "string"],
        "pattern": r"^(?=.*[0-9])\s*[+-]?[0-9_]*\.?[0-9_]*([eE][+-]?[0-9_]+)?\s*$",
        "patternErrorMessage": "allowed: a number",
    },
    "whole_number": {
        "description": "A whole number, or a text that is one.",
        "type": ["integer", "string"],
        "pattern": r"^\s*[+-]?[0-9][0-9_]*(\.0*)?\s*$",
        "patternErrorMessage": "allowed: a whole number",
    },
    "switch": {
        "description": "true or false; 0, 1 and the words `on`, `off`, `yes`, `no` are read too.",
        "type": ["boolean", "integer", "string"],
        "minimum": 0,
        "maximum": 1,
        "pattern": "^([01tTfFyYnN]|[tT][rR][uU][eE]|[fF][aA][lL][sS][eE]|[oO][nN]|[oO][fF][fF]|[yY][eE][sS]|[nN][oO])$",
        "patternErrorMessage": "allowed: true or false",
    },
}
"""Scalars as pydantic reads them, by the name of their definition in the schema; editors show the message."""


def _mapping(key: str, value: Json, **others: Json) -> Json:
    return {"type": "object", "properties": {key: value, **others}, "required": [key], "additionalProperties": False}


_SIZE: Json = {"type": "integer", "minimum": 1}
_TILE: Json = {"type": "array", "items": _SIZE, "minItems": 2, "maxItems": 2}
_IMAGES: Json = {"enum": sorted(NAMED)}
_BITS: Json = {"type": "integer", "minimum": MIN_BITS, "maximum": MAX_BITS}
_PATTERN: Json = {"type": "string", "minLength": 1, "maxLength": MAX_KEY}

WRITTEN: dict[str, list[Json]] = {
    "Granularity": [
        {"enum": ["per_tensor", "per_channel"]},
        _mapping("per_group", {"description": "Consecutive inputs of a row that share a scale.", **_SIZE}),
        _mapping("per_block", {"description": "Rows and inputs of a tile that shares a scale.", **_TILE}),
    ],
    "LayerBits": [
        {"type": "object", "propertyNames": _PATTERN, "additionalProperties": _BITS, "minProperties": 1},
        {
            "description": "As records have it.",
            "type": "array",
            "items": {"type": "array", "items": [_PATTERN, _BITS], "minItems": 2, "maxItems": 2},
            "minItems": 1,
        },
    ],
    "ThreeTexts": [
        {"enum": ["three_texts", "wikipedia"]},
        _mapping("source", {"const": "three_texts"}, domains={"type": "array", "items": {"enum": list(SOURCES)}}),
    ],
    "NamedText": [{"enum": sorted(SETS)}, _mapping("set", {"enum": sorted(SETS)}, folder={"type": "string"})],
    "ImageSource": [_IMAGES, _mapping("source", _IMAGES)],
}
"""Classes whose fields are not the keys of a suite, by name, and what is written there instead."""


def written_default(value: Any) -> Any:
    """Return how a suite writes a default that pydantic hands over as the fields of its class."""
    if not isinstance(value, dict):
        return value
    if "source" in value:
        return "wikipedia" if value.get("domains") else value["source"]
    if value.get("kind") in ("per_group", "per_block"):
        rows, inputs = value["block_rows"], value["group_size"]
        return {value["kind"]: inputs if rows is None else [rows, inputs]}
    return value.get("kind", value)
