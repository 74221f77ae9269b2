"""Between a record and its JSON: versions, migrations, and what to say when a file is not what it should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from qbench.errors import StoreError
from qbench.store.floats import dumps, has_words, revive
from qbench.store.record import SCHEMA_VERSION, Record

Migration = Callable[[dict[str, Any]], dict[str, Any]]


def _from_1(data: dict[str, Any]) -> dict[str, Any]:
    return data  # version 2 allows the status ``timeout``; all that was there has stayed as it was


MIGRATIONS: dict[int, Migration] = {1: _from_1}
"""From a version to the function that makes the next one of it. An old file must load for ever."""

_UNTYPED = ("key", "facts", "environment")


class CorruptRecordError(StoreError):
    """Data that is no record: the cell has to run again."""


def load_record(data: dict[str, Any]) -> Record:
    """Return the record that JSON data holds, brought up to the current layout.

    Parameters
    ----------
    data : dict
        A parsed record file, of this or of an older version.

    Raises
    ------
    CorruptRecordError
        The data is no record of any version.
    StoreError
        The record was written by a newer qbench: to run the cell again would destroy it.
    """
    return _validated(_revived(_migrated(data)))


def _migrated(data: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(data, dict) or not isinstance(data.get("schema_version"), int):
        raise CorruptRecordError("no schema_version")
    version: int = data["schema_version"]
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"schema_version {version} was written by a newer qbench (this one knows {SCHEMA_VERSION}): update qbench"
        )
    while version < SCHEMA_VERSION:
        if version not in MIGRATIONS:
            raise CorruptRecordError(f"schema_version {version} never existed")
        data = {**MIGRATIONS[version](data), "schema_version": version + 1}
        version += 1
    return data


def _revived(data: dict[str, Any]) -> dict[str, Any]:
    return {field: revive(value) if field in _UNTYPED else value for field, value in data.items()}


def _validated(data: dict[str, Any]) -> Record:
    try:
        return Record.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CorruptRecordError(f"{place}: {first['msg']}") from error


def parse_record(text: str) -> Record:
    """Return the record in a file's text.

    Raises
    ------
    CorruptRecordError, StoreError
        As `load_record`; text that is not JSON is corrupt.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptRecordError(f"not JSON ({error})") from error
    data = _migrated(data)
    # Few records hold such words, and a text is looked through sooner than all values of a key.
    return _validated(_revived(data) if has_words(text) else data)


def dump_record(record: Record) -> str:
    """Return a record as strict JSON: sorted keys, trailing newline, NaN and infinities spelled (see `floats`)."""
    return dumps(record.model_dump(), indent=1) + "\n"
