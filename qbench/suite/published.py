"""Settings that papers and their code name, and in what a method's options differ from them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

from qbench.spec import Spec


class Published(BaseModel):
    """What one source says of a method's settings.

    Attributes
    ----------
    method : str
        The method's name in the registry.
    source : str
        Paper, or code with its commit.
    options : dict
        Those that qbench has under the same meaning.
    absent : tuple of str
        What the source says, and qbench keeps elsewhere or has not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    source: str
    options: dict[str, Any]
    absent: tuple[str, ...]


class OptionDifference(NamedTuple):
    """An option that is another than a preset has it.

    Attributes
    ----------
    option : str
        Its name.
    here, preset : object
        Both values.
    """

    option: str
    here: Any
    preset: Any


@cache
def published() -> Mapping[str, Published]:
    """Return all published settings by name."""
    raw = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    return {name: Published.model_validate(entry) for name, entry in raw.items()}


def defaults_of(spec: Spec) -> dict[str, Any]:
    """Return the options of a spec's class that have a default, at it."""
    fields = type(spec).model_fields.items()
    return {
        name: info.get_default(call_default_factory=True, validated_data={})
        for name, info in fields
        if name != "name" and not info.is_required()
    }


def option_differences(spec: Spec, preset: Mapping[str, Any]) -> list[OptionDifference]:
    """Return the options that differ from a preset's; those that it does not name are compared with nothing.

    Parameters
    ----------
    spec : Spec
        With all options resolved.
    preset : mapping of str to object
        Values by option; names that the spec does not have are left aside.
    """
    known = {name: value for name, value in preset.items() if name in type(spec).model_fields and name != "name"}
    # Read as the spec reads them: `1` is 1.0 where a number is meant, `none` a word where a word is.
    wanted = type(spec).model_validate({**spec.model_dump(), **known})
    return [
        OptionDifference(name, getattr(spec, name), getattr(wanted, name))
        for name in known
        if getattr(spec, name) != getattr(wanted, name)
    ]
