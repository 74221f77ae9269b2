"""Run docs/tutorial.md: write its files, run its commands in order, and renew what they print.

`python docs/tools/tutorial.py` writes the page again; tests/test_tutorial.py compares.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "tutorial.md"
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes
    ----------
    kind : str
        ``yaml``, ``console``, ...
    title : str
        The file that it is; empty where it is none.
    text : str
        What stands in it.
    """

    kind: str
    title: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of a console block.

    Attributes
    ----------
    line : str
        What is typed.
    shown : str
        What the page shows of what it prints; nothing where the page shows nothing.
    printed : str
        What it printed, on stdout and, where that was nothing, on stderr.
    code : int
        What it ended with.
    """

    line: str
    shown: str
    printed: str
    code: int


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [Block(match[1], match[2] or "", match[3]) for match in _BLOCK.finditer(page)]


def run(page: str, folder: Path) -> Iterator[Command]:
    """Write the files of a page and run its commands, in order.

    Parameters
    ----------
    page : str
        Markdown.
    folder : Path
        Where they are.
    """
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks(page):
        if block.title:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text, encoding="utf-8")
        if block.kind == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                line, _, shown = part.partition("\n")
                done = subprocess.run(
                    ["bash", "-c", line],
                    cwd=folder,
                    env={**os.environ, "PATH": programs, "NO_COLOR": "1", "COLUMNS": "80"},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                yield Command(line, shown, done.stdout or done.stderr, done.returncode)


def renewed(page: str, folder: Path) -> str:
    """Return the page with what its commands print today below those that show anything, or end a block."""
    commands = iter(list(run(page, folder)))

    def block(match: re.Match[str]) -> str:
        if match[1] != "console":
            return match[0]
        found = []
        for part in re.split(r"^\$ ", match[3], flags=re.MULTILINE)[1:]:
            command = next(commands)
            prints = bool(part.partition("\n")[2]) or not re.search(r" > |--output|--html|--yes", command.line)
            found.append(f"$ {command.line}\n{shortened(command.printed) if prints else ''}")
        return f"```console\n{''.join(found)}```"

    return _BLOCK.sub(block, page)


def shortened(text: str) -> str:
    """Return what is printed without what is allowed at the end of an error, which grows with every new name."""
    return "".join(f"{re.sub(r' [(]allowed: .*[)]$', '', line).rstrip()}\n" for line in text.splitlines())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), Path(folder)), encoding="utf-8")
