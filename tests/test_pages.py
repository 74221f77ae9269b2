"""Pages with generated parts are what the code makes of them, and the site has every page and figure there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "docs" / "tools"
RENEW = "run nox -s docs -- --write"


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))


def navigation(entries: list[object]) -> list[str]:
    """Return the files that the site's navigation leads to."""
    found = []
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += navigation(value) if isinstance(value, list) else [str(value)]
    return found


def test_generated_parts_are_what_the_code_makes() -> None:
    import pages

    for path, text in pages.made().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: {RENEW}"


def test_a_part_without_its_place_is_an_error() -> None:
    import pages

    page = "<!-- x: a begin --><!-- x: a end -->"
    assert pages.filled(page, "x", {"a": "1"}) == "<!-- x: a begin -->1<!-- x: a end -->"
    assert "\n\n1\n\n" in pages.filled(page.replace("><", ">\n<"), "x", {"a": "1"})
    for parts in ({}, {"b": "1"}, {"a": "1", "b": "2"}):
        with pytest.raises(ValueError, match="places"):
            pages.filled(page, "x", parts)


def test_every_verb_with_every_option_is_on_its_page() -> None:
    import typer

    from qbench.cli import app

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, verb in typer.main.get_command(app).commands.items():
        section = re.split(r"^## ", page, flags=re.MULTILINE)
        (section,) = [part for part in section if part.startswith(f"{name}\n")]
        for option in verb.params:
            shown = option.opts if option.param_type_name == "option" else [option.metavar or option.name]
            assert option.name == "help" or all(f"{one}" in section for one in shown), f"{name}: {option.name}"


def test_every_figure_is_in_the_gallery_and_none_that_is_not_there() -> None:
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    assert len(set(shown)) == len(shown)
    there = {path.resolve() for path in (ROOT / "results" / "figures").glob("*/*.svg")}
    assert {(ROOT / "docs" / link).resolve() for link in shown} == there, RENEW


def test_a_figure_that_no_one_explains_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gallery_page

    (tmp_path / "some_suite").mkdir()
    (tmp_path / "some_suite" / "unheard_of.svg").touch()
    monkeypatch.setattr(gallery_page, "FIGURES", tmp_path)
    with pytest.raises(ValueError, match="unheard_of"):
        gallery_page.render()


def test_the_site_leads_to_every_page_and_to_none_that_is_not_there(tmp_path: Path) -> None:
    import gathering

    gathered = gathering.gather(tmp_path / "docs")
    settings = yaml.safe_load((tmp_path / "docs" / "mkdocs.yml").read_text(encoding="utf-8"))
    led_to = navigation(settings["nav"])
    assert len(set(led_to)) == len(led_to)
    assert set(led_to) == {name for name in gathered if name.endswith(".md") and not name.startswith("qbench/")}
    assert settings["theme"]["font"] is False


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/**/*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
        dead = [link for link in links if not (page.parent / link.partition("#")[0]).exists()]
        assert not dead, f"{page}: {dead}"


@pytest.mark.parametrize(
    ("page", "asks"),
    [
        ('<script src="https://host/x.js"></script>', True),
        ('<link rel="stylesheet" href="//host/x.css">', True),
        ("<style>@import url(https://host/x.css)</style>", True),
        ("<p style=\"background: url('http://host/x.png')\">", True),
        ('<img src="assets/x.png"><a href="https://host/">there</a>', False),
        ('<link rel="canonical" href="https://host/">', False),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_seen(tmp_path: Path, page: str, asks: bool) -> None:
    import offline

    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    assert bool(offline.asked_elsewhere(tmp_path)) is asks
