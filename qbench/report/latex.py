"""The leaderboard as LaTeX, for a paper: booktabs rules, one table where Markdown has one, wide ones in parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qbench.report.layout import Table, identified, split
from qbench.report.outline import Section, made, outline

if TYPE_CHECKING:
    from qbench.report.run import Run

WIDTH = 88
"""Characters of \\footnotesize that a line of the article class holds; the space between columns counts as three."""
_BETWEEN = 3
_COLOURS = {"inside": "0072B2", "grey": "666666", "failed": "B34700"}
_REGIME = re.compile(rf"({'|'.join(_COLOURS)})( \d+/\d+)?")

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\textquotedbl{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def render_latex(runs: Sequence[Run]) -> str:
    r"""Return the leaderboards of runs as a fragment to ``\input`` in a document.

    Parameters
    ----------
    runs : sequence of Run
        A section each. What the Markdown page of a run says is here too.

    Notes
    -----
    Tables are longtables, since any number of them may follow each other, which floats may not. The words of regimes
    stand in macros that a document can redefine to colour them. A comment at the top says what to load.
    """
    labels: set[str] = set()
    return "\n".join([*_preamble(runs), *(line for run in runs for line in _run(run, labels))]) + "\n"


def escape(text: str) -> str:
    r"""Return text as LaTeX sets it to the letter.

    Examples
    --------
    >>> escape("rtn[bn=keep] 50 % of w_fp --only")
    'rtn[bn=keep] 50 \\% of w\\_fp -{}-only'
    """
    words = " ".join(text.split())
    return re.sub("-(?=-)", "-{}", "".join(_SPECIAL.get(sign, sign) for sign in words))


def _preamble(runs: Sequence[Run]) -> Iterator[str]:
    yield "% Leaderboards of " + _comment(", ".join(run.name for run in runs))
    yield from (f"% Made by: {_comment(run.command)}" for run in runs if run.command)
    yield r"% In the document's preamble: \usepackage{booktabs,longtable} and \usepackage[T1]{fontenc}"
    yield "% Regimes in colours, each with its word: \\usepackage{xcolor} and"
    for word, colour in _COLOURS.items():
        yield f"%   \\newcommand{{\\qbench{word}}}[1]{{\\textcolor[HTML]{{{colour}}}{{#1}}}}"
    yield from (f"\\providecommand{{\\qbench{word}}}[1]{{#1}}" for word in _COLOURS)


def _run(run: Run, labels: set[str]) -> Iterator[str]:
    board = run.board
    yield from ("", f"\\section{{{escape(run.name)}}}")
    yield from _list(made(board))
    yield from _list(board.summary)
    for section in outline(board):
        yield from ("", f"\\subsection{{{escape(section.title)}}}")
        yield from _list(section.lines)
        for table in section.tables:
            yield from _parts(run, section, table, labels)


def _list(lines: Sequence[str]) -> list[str]:
    return (
        [r"\begin{itemize}", *(f"  \\item {_guarded(escape(line))}" for line in lines), r"\end{itemize}"]
        if lines
        else []
    )


def _parts(run: Run, section: Section, table: Table, labels: set[str]) -> Iterator[str]:
    parts = split(identified(table), _fits)
    for number, part in enumerate(parts, 1):
        what = table.headers[0] if table.keys == 1 else "details"
        caption = f"{run.name}, {section.title}: {what}" + (f" ({number} of {len(parts)})" if parts[1:] else "")
        label = _label(caption, labels)
        align = "l" * part.keys + "r" * (len(part.headers) - part.keys)
        head = (r"\toprule", _row(part.headers, part.keys), r"\midrule")
        yield from (
            "",
            r"\begingroup\footnotesize",
            f"\\begin{{longtable}}{{@{{}}{align}@{{}}}}",
            f"\\caption{{{escape(caption)}}}\\label{{{label}}}\\\\",
            *head,
            r"\endfirsthead",
            *head,
            r"\endhead",
            r"\bottomrule",
            r"\endfoot",
            *(_row(row, part.keys) for row in part.rows),
            r"\end{longtable}",
            r"\endgroup",
        )


def _row(row: Sequence[str], keys: int) -> str:
    cells = [escape(cell) for cell in row[:keys]] + [_number(cell) for cell in row[keys:]]
    return _guarded(" & ".join(cells)) + r" \\"


def _guarded(text: str) -> str:
    r"""Return text that may stand after ``\item`` or ``\\``, where a bracket or a star would be an option."""
    return "{}" + text if text.startswith(("[", "*")) else text


def _number(cell: str) -> str:
    """Return a cell with minus signs that are none of hyphens, and the word of a regime in its macro."""
    if found := _REGIME.fullmatch(cell):
        return f"\\qbench{found[1]}{{{found[0]}}}"
    return "--" if cell == "-" else re.sub(r"(?<![^\s\[,])-(?=[.\d])", "$-$", escape(cell))


def _fits(table: Table) -> bool:
    widths = [max(map(len, column)) for column in zip(table.headers, *table.rows, strict=True)]
    return sum(widths) + _BETWEEN * (len(widths) - 1) <= WIDTH


def _label(caption: str, taken: set[str]) -> str:
    r"""Return a name for ``\ref``, of letters, digits and hyphens, that no other table has."""
    plain = name = "tab:" + re.sub("[^a-z0-9]+", "-", caption.lower()).strip("-")
    count = 1
    while name in taken:
        count += 1
        name = f"{plain}-{count}"
    taken.add(name)
    return name


def _comment(text: str) -> str:
    return " ".join(text.split())
