"""Make sure that a built site asks nothing of other hosts: `python docs/tools/offline.py build/site`."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_ELSEWHERE = re.compile(r"\s*(https?:)?//", re.IGNORECASE)
_IN_STYLES = re.compile(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)
# What a browser does not load: where a page is, and where it can be had in another form.
_NOT_LOADED = {"canonical", "alternate", "prev", "next", "license", "author"}


class _Loaded(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        loaded = [given[key] for key in ("src", "srcset", "poster", "data") if key in given]
        if tag == "link" and not set(given.get("rel", "").split()) & _NOT_LOADED:
            loaded.append(given.get("href", ""))
        self.found += [one for one in loaded if _ELSEWHERE.match(one)]
        self.found += _IN_STYLES.findall(given.get("style", ""))


def asked_elsewhere(site: Path) -> list[str]:
    """Return what pages and styles load from other hosts, each with the file that does."""
    found = []
    for page in sorted(site.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        parser = _Loaded()
        parser.feed(text)
        styles = re.findall(r"<style[^>]*>(.*?)</style>", text, flags=re.DOTALL)
        found += [f"{page}: {one}" for one in (*parser.found, *_IN_STYLES.findall(" ".join(styles)))]
    for sheet in sorted(site.rglob("*.css")):
        found += [f"{sheet}: {one}" for one in _IN_STYLES.findall(sheet.read_text(encoding="utf-8"))]
    return found


if __name__ == "__main__":
    if asked := asked_elsewhere(Path(sys.argv[1])):
        sys.exit("\n".join(asked))
