"""The exception tree.

::

    QBenchError                 what a user can mend; shown as one line, never as a traceback (exit code 2)
    ├── SuiteError              a suite file is wrong: carries the file, the line and the YAML path
    ├── UnknownNameError        a name no registry knows: carries the nearest known names
    ├── AssetError              a data or model file is missing or is not what was pinned
    ├── StoreError              a stored file cannot be read, or would be overwritten
    │   └── UnwritableError     a file cannot be written: no room, or no right to
    └── CellError               a cell cannot be executed as asked
        └── DivergedError       a loss or a weight became NaN or infinite
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

_LONGEST_NAME, _LONGEST_LIST, _MOST_COMPARED = 60, 260, 2000


class QBenchError(Exception):
    """Base of every error that a user can mend."""


class SuiteError(QBenchError):
    """A suite file that cannot be read as a suite.

    Parameters
    ----------
    message : str
        What was given and what is allowed.
    file : Path, optional
        The suite file.
    line : int, optional
        One-based line in that file.
    """

    def __init__(self, message: str, *, file: Path | None = None, line: int | None = None) -> None:
        self.file, self.line = file, line
        place = "" if file is None else f"{file}:{line}: " if line else f"{file}: "
        super().__init__(place + message)


class UnknownNameError(QBenchError):
    """A name that a registry does not know."""

    def __init__(self, kind: str, name: object, allowed: Iterable[str]) -> None:
        self.kind, self.name, self.allowed = kind, name, sorted(allowed)
        given = repr(name)
        given = given if len(given) <= _LONGEST_NAME else f"{given[: _LONGEST_NAME - 3]}..."
        super().__init__(f"unknown {kind} {given}{nearest(str(name), self.allowed)}")


class AssetError(QBenchError):
    """A file that is missing, or whose bytes are not the pinned ones."""


class StoreError(QBenchError):
    """A stored file that cannot be read or must not be overwritten."""


class UnwritableError(StoreError):
    """A file that cannot be written, because of the disk or of rights: no fault of what wanted to write it."""


class CellError(QBenchError):
    """A cell that cannot be executed as asked."""


class DivergedError(CellError):
    """A loss or a weight became NaN or infinite."""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest allowed name, then the allowed names, of many the first ones.

    Examples
    --------
    >>> nearest("gtpq", ["rtn", "gptq"])
    ": did you mean 'gptq'? (allowed: gptq, rtn)"
    """
    names = sorted(allowed)
    # What is far longer than a name is no misspelling of one, and comparing takes its time.
    compared = names if len(given) <= _LONGEST_NAME and len(names) <= _MOST_COMPARED else []
    close = difflib.get_close_matches(given, compared, n=1, cutoff=0.5)
    hint = f": did you mean {close[0]!r}?" if close else ""
    listed, length = 0, 0
    while listed < len(names) and (length := length + len(names[listed]) + 2) <= _LONGEST_LIST:
        listed += 1
    rest = len(names) - listed
    more = f" and {rest} others" if listed and rest else f"one of {rest} longer names" if rest else ""
    return f"{hint} (allowed: {', '.join(names[:listed]) or ('' if names else 'none')}{more})"
