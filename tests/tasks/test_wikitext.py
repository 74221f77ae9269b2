"""Prose out of wikitext."""

from __future__ import annotations

import bz2

import pytest

from qbench.tasks.wikitext import plain_text, read_articles


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Anna''' is ''here''.", "Anna is here."),
        ("The [[honey bee|bee]]s and [[wasp]]s.", "The bees and wasps."),
        ("[[File:x.jpg|thumb|A [[caption]]]]Text", "Text"),
        ("Text[[Category:Insects]]", "Text"),
        ("[[category:insects]]Text", "Text"),
        ("[http://example.org a page] there", "a page there"),
        ("word<ref>a source</ref> and<ref name=a/> more", "word and more"),
        ("word<!-- not this --> stays", "word stays"),
        ("{{Infobox\n| a = {{b|c}}\n}}\nText", "Text"),
        ("{| class=x\n| cell\n|}\nText", "Text"),
        ("Formula <math>x^2</math> and<gallery>a.jpg</gallery> pictures", "Formula and pictures"),
        ("Tom &amp; Anna&nbsp;B", "Tom & Anna B"),
        ("Anna ({{lang|de|Anna}}, born 1900) is", "Anna (born 1900) is"),
        ("Anna ({{lang|x}}; {{y}}) is", "Anna is"),
        ("* one\n# two", "one\ntwo"),
        ("a\n\n\n\n\nb   c", "a\n\nb c"),
        ("Prose\n== History ==\nmore", "Prose\nHistory\nmore"),
    ],
)
def test_what_is_not_prose_is_left_out(wikitext: str, text: str) -> None:
    assert plain_text(wikitext) == text


@pytest.mark.parametrize(
    "heading", ["See also", "References", "Notes", "external links", "  Further reading ", "Bibliography"]
)
def test_an_article_ends_where_its_lists_of_links_begin(heading: str) -> None:
    assert plain_text(f"Prose.\n=={heading}==\n* [[link]]\n== Later ==\nmore") == "Prose."


def test_the_words_of_a_heading_may_stand_in_the_text() -> None:
    text = "Notes and references.\n== Notes on music ==\nProse."
    assert plain_text(text) == "Notes and references.\nNotes on music\nProse."


def page(title: str, text: str, namespace: int = 0, redirect: str = "") -> str:
    return f"<page><title>{title}</title><ns>{namespace}</ns>{redirect}<revision><text>{text}</text></revision></page>"


def test_articles_are_pages_of_the_main_namespace_with_enough_prose() -> None:
    long = "A sentence. " * 100
    pages = [
        page("Kept", long),
        page("Talk:Kept", long, namespace=1),
        page("Moved", long, redirect='<redirect title="Kept" />'),
        page("Short", "A sentence."),
        page("Only templates", "{{box|" + long + "}}"),
        page("Kept too", long + "&lt;ref&gt;source&lt;/ref&gt;"),
    ]
    dump = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{"".join(pages)}</mediawiki>'
    found = dict(read_articles(bz2.compress(dump.encode())))
    assert list(found) == ["Kept", "Kept too"]
    assert found["Kept"] == found["Kept too"] == long.strip()
