"""The shipped JSON schema and the generated parts of the pages in docs/: `nox -s docs -- --write` runs this."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import cli_page
import gallery_page
import scale_page
import suite_page

from qbench.reference.json_schema import SHIPPED, suite_schema
from qbench.reference.json_schema import render as rendered

DOCS = Path(__file__).parents[1]


def made() -> dict[Path, str]:
    """Return the text that each file which is made, or has parts that are made, should have."""
    schema = suite_schema(built_in=True)
    parts = {
        "suites.md": ("schema", suite_page.render(schema)),
        "cli.md": ("verbs", cli_page.render()),
        "gallery.md": ("figures", gallery_page.render()),
        "scale.md": ("scale", scale_page.render()),
    }
    return {SHIPPED: rendered(schema)} | {
        DOCS / page: filled((DOCS / page).read_text(encoding="utf-8"), maker, found)
        for page, (maker, found) in parts.items()
    }


def filled(page: str, maker: str, parts: Mapping[str, str]) -> str:
    """Return a page with its generated parts renewed.

    Parameters
    ----------
    page : str
        Markdown, in which ``<!-- maker: name begin -->`` and ``<!-- maker: name end -->`` enclose each part.
    maker : str
        The first word of these comments.
    parts : mapping of str to str
        Text by name; every part has its place, and every place its part.
    """
    marks = re.compile(rf"(<!-- {maker}: (\w+) begin -->)(\n?).*?(<!-- {maker}: \2 end -->)", re.DOTALL)
    places = [match[2] for match in marks.finditer(page)]
    if sorted(places) != sorted(parts):
        raise ValueError(f"parts {sorted(parts)}, places {sorted(places)}")

    def renewed(match: re.Match[str]) -> str:
        text = parts[match[2]]
        return f"{match[1]}\n\n{text}\n\n{match[4]}" if match[3] else f"{match[1]}{text}{match[4]}"

    return marks.sub(renewed, page)


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
