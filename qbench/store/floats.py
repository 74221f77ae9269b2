"""The floats that JSON has no word for: NaN and the infinities are spelled as strings.

The words are those that JavaScript and pydantic read back as numbers: ``"NaN"``, ``"Infinity"``, ``"-Infinity"``.
So a stored file is strict JSON, and a diverged loss is still in it.
"""

from __future__ import annotations

import json
import math
from typing import Any

from qbench.store.indented import indented

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def spell(value: Any) -> Any:
    """Return JSON-like data with every NaN and infinity replaced by its word; tuples become lists."""
    if isinstance(value, dict):
        return {str(key): spell(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [spell(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def revive(value: Any) -> Any:
    """Return JSON data with those words as floats again: for untyped data, where no schema does it.

    A string that is exactly one of the three words cannot be told from a float.
    """
    if isinstance(value, dict):
        return {key: revive(item) for key, item in value.items()}
    if isinstance(value, list):
        return [revive(item) for item in value]
    return _WORDS.get(value, value) if isinstance(value, str) else value


def has_words(text: str) -> bool:
    """Return whether a text, JSON as `dumps` writes it, may hold such a word."""
    return '"NaN"' in text or 'Infinity"' in text


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Return strict JSON with sorted keys."""
    if indent == 1:
        try:
            return indented(value)
        except ValueError:  # few data hold what has to be spelled: it is looked for only then
            return indented(spell(value))
    return json.dumps(spell(value), sort_keys=True, indent=indent, allow_nan=False, ensure_ascii=False)
