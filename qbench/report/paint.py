"""Colours for what a terminal shows: the same words, headers bold, regimes and verdicts told apart, failures red.

Colour only repeats what a word says. The three of regimes can be told apart by colour-blind readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

_TITLE = r"(?m)^== .*? ==(?=$|  )|^[a-z][a-z_ ]*:(?=$| )"
_HEADERS = r"(?m)^.+(?=\n *-{2,}(?: +-+)*$)"
_RULE = r"(?m)^ *-{2,}(?: +-+)*$"
_STYLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("bold red", ("failed", "diverged", "timeout", "missing", "regressed", "broken", "not sound")),
    ("red", ("refuted", "fell back")),
    ("yellow", ("grey", "skipped", "inconclusive")),
    ("cyan", ("inside", "supported", "no regression")),
    ("dim", ("not applicable", "not judged")),
)
_VERDICTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("bold red", ("worse", "WIDER")),
    ("red", ("moved", "blocked", "unclean")),
    ("cyan", ("same", "better", "fixed", "expected")),
)
"""Words that are verdicts where a line begins with them, and plain words elsewhere."""


def paint(text: str) -> Text:
    """Return text with styles, no character of it changed.

    Parameters
    ----------
    text : str
        What the renderers of leaderboards, claims and comparisons give.
    """
    from rich.text import Text

    painted = Text(text)
    for style, words in _STYLES:
        # Part of a name, such as an option, is no verdict.
        found = rf"(?<![\w\[=,/.-])(?:{'|'.join(words)})(?: \d+/\d+)?(?![\w\]=/])"
        painted.highlight_regex(found, style)
    for style, words in _VERDICTS:
        painted.highlight_regex(rf"(?m)^(?:{'|'.join(words)})\b", style)
    painted.highlight_regex(_HEADERS, "bold")
    painted.highlight_regex(_RULE, "dim")
    painted.highlight_regex(_TITLE, "bold")
    return painted
