"""Numbered footnotes: one a distinct reason, with how many cells it speaks of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """One footnote.

    Attributes
    ----------
    number : int
        From 1, in the order of first mention.
    kind : str
        ``failed``, ``diverged``, ``timeout``, ``skipped``, ``fallback``, ``not comparable``.
    reason : str
        Why, in one line.
    cells : tuple of str
        Labels it speaks of.
    """

    number: int
    kind: str
    reason: str
    cells: tuple[str, ...]


class NoteBook:
    """Hands out the numbers while a leaderboard is made."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], list[str]] = {}

    def add(self, kind: str, reason: str, label: str) -> int:
        """Return the number of the note with this reason, which now speaks of this cell too."""
        cells = self._cells.setdefault((kind, " ".join(reason.split())), [])
        if label not in cells:
            cells.append(label)
        return list(self._cells).index((kind, " ".join(reason.split()))) + 1

    def notes(self) -> tuple[Note, ...]:
        """Return the notes so far, by number."""
        return tuple(
            Note(number, kind, reason, tuple(cells))
            for number, ((kind, reason), cells) in enumerate(self._cells.items(), 1)
        )
