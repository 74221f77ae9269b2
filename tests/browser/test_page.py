"""What a reader can do with the page, in a browser without a network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Opened

Visit = Callable[..., Opened]
THEMES = ("light", "dark")
PHONE = {"viewport": {"width": 360, "height": 740}}


def walk(opened: Opened) -> None:
    """Scroll through the page, so that everything that waits to be seen is drawn."""
    page = opened.page
    at = 0
    while at < page.evaluate("document.body.scrollHeight"):
        page.evaluate(f"scrollTo(0, {at})")
        page.wait_for_timeout(80)
        at += 600


def test_it_loads_without_network_and_says_nothing(visit: Visit, small: Path) -> None:
    opened = visit(small)
    walk(opened)
    opened.page.wait_for_selector("#charts .chart svg")
    assert opened.said == []
    assert opened.foreign == []


@pytest.mark.parametrize("theme", THEMES)
def test_nothing_is_hard_to_reach(visit: Visit, small: Path, theme: str) -> None:
    opened = visit(small, color_scheme=theme)
    opened.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    walk(opened)
    assert serious(opened) == []


@pytest.mark.parametrize("theme", THEMES)
def test_nothing_of_a_cell_is_hard_to_reach(visit: Visit, small: Path, theme: str) -> None:
    opened = visit(small, color_scheme=theme)
    opened.page.click("text=s1 >> nth=3")
    opened.page.wait_for_selector("#cell h1")
    walk(opened)
    opened.page.wait_for_selector("#cell .chart svg")
    opened.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert serious(opened) == []


def serious(opened: Opened) -> list[str]:
    found = Axe().run(opened.page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {node['html'][:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


def test_a_heading_sorts_by_number(visit: Visit, small: Path) -> None:
    opened = visit(small)
    before = opened.rows()
    heading = opened.page.locator("#board thead th", has_text="Excess D")
    heading.locator(".dt-column-title").click()
    opened.page.wait_for_selector("#board th[aria-sort=ascending]")
    assert heading.get_attribute("aria-sort") == "ascending"
    cells = opened.page.locator("#board tbody td.c-excess").evaluate_all("all => all.map(one => one.dataset.order)")
    numbers = [float(cell) for cell in cells if cell]
    assert numbers == sorted(numbers)
    assert opened.rows() != before
    heading.locator(".dt-column-title").click()
    opened.page.wait_for_selector("#board th[aria-sort=descending]")


def test_the_keyboard_sorts_too(visit: Visit, small: Path) -> None:
    opened = visit(small)
    heading = opened.page.locator("#board thead th", has_text="Excess D")
    heading.locator("[role=button]").first.focus()
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_selector("#board th[aria-sort=ascending]")
    assert heading.get_attribute("aria-sort") == "ascending"


def test_search_hides_rows(visit: Visit, small: Path) -> None:
    opened = visit(small)
    everything = len(opened.rows())
    opened.page.get_by_label("Search").fill("brecq")
    opened.page.wait_for_function(f"document.querySelectorAll('#board tbody tr').length < {everything}")
    assert len(opened.rows()) == 3
    assert all("brecq" in row for row in opened.rows())


@pytest.mark.parametrize(
    ("heading", "value", "count"),
    [("Regime", "inside", 5), ("Bits", "3", 5), ("Kind", "QAT", 3), ("Cells", "failed", 1), ("Cells", "missing", 1)],
)
def test_the_menu_of_a_heading_filters(visit: Visit, small: Path, heading: str, value: str, count: int) -> None:
    opened = visit(small)
    column = opened.page.locator("#board thead th", has_text=heading)
    column.locator(".dtcc-button").click()
    opened.page.locator(".dtcc-dropdown .dtcc-list-buttons button", has_text=re.compile(f"^{value}$")).click()
    assert serious(opened) == []
    opened.page.keyboard.press("Escape")
    assert len(opened.rows()) == count


def test_what_is_not_well_is_seen_with_its_reason(visit: Visit, small: Path) -> None:
    opened = visit(small)
    text = opened.page.inner_text("#report")
    assert "1 failed" in text
    assert "missing: there is no record" in text
    assert "skipped: no such <b>grid</b>" in text
    assert "failed: </script><script>alert(1)</script>" in text


def test_a_claim_opens_with_its_figure(visit: Visit, small: Path) -> None:
    opened = visit(small)
    claim = opened.page.locator("details.claim", has_text="C1 ").first
    assert not claim.locator(".chart").first.is_visible()
    claim.locator("summary").click()
    opened.page.wait_for_selector("details.claim[open] .chart svg path", state="attached")
    assert claim.locator("dt", has_text="Refutes").is_visible()
    assert claim.locator(".chart").first.get_attribute("aria-label")


def test_a_cell_opens_and_back_returns(visit: Visit, small: Path) -> None:
    opened = visit(small)
    page = opened.page
    link = page.locator("#board tbody tr", has_text="ste_qat").first.locator("a", has_text="s1")
    link.scroll_into_view_if_needed()
    top = page.evaluate("scrollY")
    link.click()
    page.wait_for_selector("#cell h1")
    assert page.inner_text("#cell h1") == "llama/mse/4b/ste_qat[steps=60]/s1"
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert not page.locator("#report").is_visible()
    text = page.inner_text("#cell")
    for expected in (
        "Run it again",
        "--fresh",
        "Layers",
        "Documents, worst first",
        "cell id",
        "qbench run --suite tiny",
    ):
        assert expected in text
    page.locator("#cell .chart").first.scroll_into_view_if_needed()
    page.wait_for_selector("#cell .chart svg path", state="attached")
    page.go_back()
    page.wait_for_selector("#cell", state="hidden")
    assert page.locator("#report").is_visible()
    assert abs(page.evaluate("scrollY") - top) < 5
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == link.get_attribute("aria-label")
    assert opened.said == []


def test_a_cell_has_an_address(visit: Visit, small: Path) -> None:
    opened = visit(small)
    address = opened.page.locator("#board a.seed").first.get_attribute("href")
    again = visit(small, address)
    assert again.page.inner_text("#cell h1") == "llama/fp/s0"
    again.page.click("#back")
    again.page.wait_for_selector("#report", state="visible")
    again.page.click("nav >> text=Claims")
    assert again.page.locator("#claims-title").is_visible()


def test_words_that_mean_harm_stay_words(visit: Visit, small: Path) -> None:
    opened = visit(small)
    opened.page.locator("#board a.bad").first.click()
    opened.page.wait_for_selector("#cell h1")
    opened.page.go_back()
    opened.page.get_by_label("Search").fill("<img")
    opened.page.wait_for_timeout(300)
    assert opened.page.locator("img[src=x]").count() == 0
    assert opened.said == []


@pytest.mark.parametrize("theme", THEMES)
def test_it_is_as_dark_as_the_system(visit: Visit, small: Path, theme: str) -> None:
    opened = visit(small, color_scheme=theme)
    page = opened.page
    bright = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] > 128"
    assert page.evaluate(bright) is (theme == "light")
    walk(opened)
    page.wait_for_selector("#charts .chart svg")
    ground = "document.querySelector('#charts .chart svg').innerHTML.includes('white')"
    assert page.evaluate(ground) is (theme == "light")
    page.click("#theme")
    assert page.evaluate(bright) is (theme != "light")
    page.wait_for_function(f"({ground}) === {str(theme != 'light').lower()}")
    assert opened.said == []


def test_a_phone_needs_no_sideways_scroll(visit: Visit, small: Path) -> None:
    opened = visit(small, **PHONE)
    opened.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    walk(opened)
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert opened.page.evaluate(wider) == 0
    opened.page.locator("#board a.seed").first.click()
    opened.page.wait_for_selector("#cell h1")
    assert opened.page.evaluate(wider) == 0


def test_tables_that_scroll_can_be_scrolled_by_keys(visit: Visit, small: Path) -> None:
    opened = visit(small, **PHONE)
    bare = opened.page.evaluate(
        "[...document.querySelectorAll('*')].filter((one) => getComputedStyle(one).overflowX === 'auto' && "
        "one.scrollWidth > one.clientWidth && one.tabIndex < 0 && !one.querySelector('a, button')).length"
    )
    assert bare == 0


def test_print_has_every_row_and_no_tools(visit: Visit, small: Path) -> None:
    opened = visit(small)
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not opened.page.locator("header.top").is_visible()
    assert opened.page.locator("#board").is_visible()
    assert len(opened.rows()) == 16
    assert opened.page.locator("details.claim .rule").first.is_visible()


def test_without_scripts_the_tables_can_be_read(visit: Visit, small: Path, chromium: object) -> None:
    context = chromium.new_context(java_script_enabled=False, offline=True)  # type: ignore[attr-defined]
    page = context.new_page()
    page.goto(small.as_uri())
    assert page.locator("#board tbody tr").count() == 16
    assert page.locator("#board tbody tr").last.is_visible()
    context.close()
