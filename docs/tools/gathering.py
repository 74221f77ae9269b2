"""Gather what the site is made of: the pages of the checkout and all that they lead to, in the places they have there.

mkdocs reads one folder, and the pages lie in several: `python docs/tools/gathering.py build/docs` copies them below
build/docs/source, beside build/docs/mkdocs.yml, so that every link is what it is in the checkout.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "docs/*.md",
    "docs/site/*",
    "results/README.md",
    "results/tables/*.md",
    "suites/*.yaml",
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def gather(target: Path) -> list[str]:
    """Copy the pages, and whatever they link to, below ``target/source``; return their names.

    Parameters
    ----------
    target : Path
        Made anew.
    """
    waiting = sorted(path for pattern in PAGES for path in ROOT.glob(pattern))
    found: dict[str, Path] = {}
    while waiting:
        path = waiting.pop()
        name = path.relative_to(ROOT).as_posix()
        if name not in found:
            found[name] = path
            waiting += _led_to(path)
    shutil.rmtree(target, ignore_errors=True)
    for name, path in found.items():
        copy = target / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    shutil.copyfile(ROOT / "docs" / "mkdocs.yml", target / "mkdocs.yml")
    return sorted(found)


def _led_to(page: Path) -> Iterator[Path]:
    """Yield the files of the checkout that a page links to or shows; what is not there is mkdocs' to say."""
    if page.suffix != ".md":
        return
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / link.partition("#")[0]).resolve()
        if "://" not in link and path.is_file() and path.is_relative_to(ROOT):
            yield path


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
