"""What many records say of the ground they were made on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from qbench.store.record import Record


def shared_environment(records: Iterable[Record]) -> dict[str, str]:
    """Return each entry of the environments in words; values that differ between records stand side by side.

    Examples
    --------
    Two records, of torch 2.6 and 2.7, give ``{"torch": "2.6; 2.7"}``.
    """
    seen: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.environment.items():
            seen.setdefault(name, set()).add(_words(value))
    return {name: "; ".join(sorted(values)) for name, values in sorted(seen.items())}


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
