"""What the docstring of a class says about the class and its fields."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel

# To other parts of the code, which a reader of a suite does not look up.
_REFERENCE = re.compile(r"\s*\(see `[^`]+`\)|[;,] see `[^`]+`|\s*\bSee `[^`]+`\.")
_HEADING = re.compile(r"^(\S[^\n]*)\n-{3,}\n", re.MULTILINE)


def about(kind: type[Any]) -> str:
    """Return the first paragraph of a class's own docstring as a line of Markdown; empty where it has none."""
    return _in_a_line(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0])


def sections(kind: type[Any]) -> dict[str, str]:
    """Return the sections of a class's own NumPy docstring by their titles, as they stand there."""
    parts = _HEADING.split(inspect.cleandoc(kind.__doc__ or ""))[1:]
    return {title: text.strip("\n") for title, text in zip(parts[::2], parts[1::2], strict=True)}


def about_fields(kind: type[BaseModel]) -> dict[str, str]:
    """Return what is said of a model's fields in its own Attributes section and in those of its bases.

    Parameters
    ----------
    kind : type of BaseModel
        The nearest class that explains a field is heard.

    Returns
    -------
    dict of str to str
        A line of Markdown for each field that is explained; Python's None is called null, as in YAML.
    """
    said: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        said |= _attributes(sections(owner).get("Attributes", ""))
    return {name: said[name] for name in kind.model_fields if name in said}


def _attributes(section: str) -> dict[str, str]:
    parts = re.split(r"^(\w[^\n:]*?)(?: : [^\n]*)?$", section, flags=re.MULTILINE)[1:]
    found: dict[str, str] = {}
    for given, text in zip(parts[::2], parts[1::2], strict=True):
        names = [name.strip() for name in given.split(",")]
        said = re.sub(r"\bNone\b", "null", _REFERENCE.sub("", _in_a_line(inspect.cleandoc(text))))
        # What is said of several fields says of which, in their order.
        together = f"{', '.join(f'`{name}`' for name in names)}: " if len(names) > 1 else ""
        found |= dict.fromkeys(names, together + said)
    return found


def _in_a_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())
