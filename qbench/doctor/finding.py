"""What an examination says: one line, and what to type where something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    level : {"ok", "warning", "broken"}
        ``broken``: qbench, or something that was installed for it, does not work as it is. ``warning``: it works, and
        may not do what is expected.
    name : str
        What was looked at.
    said : str
        What was found.
    cure : str
        What to type, or to do; empty where nothing is to be done.
    """

    level: Level
    name: str
    said: str
    cure: str = ""

    def line(self) -> str:
        """Return all of it in one line."""
        cure = f" -> {self.cure}" if self.cure else ""
        return f"{self.level:8} {self.name:12} {' '.join(self.said.split())}{cure}"


Examination = Callable[[], Iterable[Finding]]


def examine(name: str, examination: Examination) -> Iterator[Finding]:
    """Yield what an examination finds; where it cannot be made at all, that is a finding too."""
    try:
        yield from examination()
    except Exception as error:  # a machine can be broken in any way, and the other examinations have theirs to say
        said = " ".join(str(error).split())
        yield Finding("broken", name, f"cannot be looked at: {type(error).__name__}: {said:.300}")


def some(names: Iterable[str], most: int = 4) -> str:
    """Return names as a list in a line: the first ones, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
