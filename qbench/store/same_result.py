"""Whether two records tell of the same result, and in what they differ."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from qbench.store.floats import dumps
from qbench.store.record import Record

_FURTHER = ("documents", "layers", "effective_bits", "traces")


class Difference(NamedTuple):
    """Something that two records of one cell do not agree on.

    Attributes
    ----------
    what : str
        A metric's name, or ``documents``, ``layers``, ``effective_bits``, ``traces``, ``weights``.
    first, second : str
        Both values, in short; what is too long for a line is only counted.
    """

    what: str
    first: str
    second: str


def differences(first: Record, second: Record) -> list[Difference]:
    """Return in what two results differ; empty where all numbers and the weights are the same to the last bit.

    What a cell cost, when and on what ground it was run is no part of its result.
    """
    found = [
        Difference(name, _shown(first.metrics.get(name)), _shown(second.metrics.get(name)))
        for name in sorted(first.metrics.keys() | second.metrics.keys())
        if dumps(first.metrics.get(name)) != dumps(second.metrics.get(name))
    ]
    if first.weights_sha256 != second.weights_sha256:
        found.append(Difference("weights", *(str(one.weights_sha256)[:12] for one in (first, second))))
    one, other = first.model_dump(include=set(_FURTHER)), second.model_dump(include=set(_FURTHER))
    found += [
        Difference(name, _shown(one[name]), _shown(other[name]))
        for name in _FURTHER
        if dumps(one[name]) != dumps(other[name])
    ]
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | dict):
        return f"{len(value)} of them" if value else "none"
    return json.dumps(value) if not isinstance(value, float) else repr(value)
