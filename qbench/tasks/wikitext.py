"""Plain text out of a MediaWiki dump."""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import mwparserfromhell

# Sections that hold lists of links and sources, not prose; they close an article.
_END_MATTER = {
    "see also",
    "references",
    "notes",
    "further reading",
    "external links",
    "bibliography",
    "sources",
    "footnotes",
}
_NOT_PROSE = ("file:", "image:", "category:")
_MIN_CHARS = 1000


def read_articles(dump: bytes) -> Iterator[tuple[str, str]]:
    """Yield (title, plain text) of every article in a bz2-compressed MediaWiki XML dump.

    Redirects, pages outside the main namespace, and pages under 1000 characters of prose are left out.

    Parameters
    ----------
    dump : bytes
        The compressed dump.
    """
    root = ElementTree.fromstring(bz2.decompress(dump))
    space = {"w": root.tag.partition("}")[0].lstrip("{")}
    for page in root.iterfind("w:page", space):
        if page.findtext("w:ns", namespaces=space) != "0" or page.find("w:redirect", space) is not None:
            continue
        title = page.findtext("w:title", default="", namespaces=space)
        text = plain_text(page.findtext("w:revision/w:text", default="", namespaces=space))
        if len(text) >= _MIN_CHARS:
            yield title, text


def plain_text(wikitext: str) -> str:
    """Return the prose of one page: no comments, references, templates, tables, media or category links."""
    code = mwparserfromhell.parse(wikitext)
    for heading in code.filter_headings():
        if str(heading.title).strip().lower() in _END_MATTER:
            code = mwparserfromhell.parse(wikitext[: wikitext.index(str(heading))])
            break
    for tag in code.filter_tags(matches=lambda node: str(node.tag).lower() in {"ref", "table", "gallery", "math"}):
        _remove(code, tag)
    for link in code.filter_wikilinks(matches=lambda node: str(node.title).strip().lower().startswith(_NOT_PROSE)):
        _remove(code, link)
    text = code.strip_code(normalize=True, collapse=True)
    text = re.sub(r"\([,;\s]+", "(", text)  # what a dropped template leaves between brackets
    text = re.sub(r"[,;\s]*\)", ")", text).replace("()", "")
    text = re.sub(r"'{2,}", "", text)
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r" ?\n ?", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _remove(code: mwparserfromhell.wikicode.Wikicode, node: mwparserfromhell.nodes.Node) -> None:
    try:
        code.remove(node)
    except ValueError:
        pass  # it went with the node that held it
