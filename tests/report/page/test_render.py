"""The page: one file, the same bytes, nothing left out, and no word of a user's that is markup."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

import qbench
from qbench.errors import QBenchError
from qbench.report.page.cell_view import PARTS
from qbench.report.page.packing import chunks, pack, unpack
from qbench.report.page.place import places_of
from qbench.report.page.render import render_page
from qbench.report.run import Run
from qbench.store.record import Record

MakeRun = Callable[..., Run]
MakeRecord = Callable[..., Record]

EVIL = "</script><script>alert('x')</script><b onclick=alert(1)>"
VOID = {"meta", "br", "wbr", "img", "input", "link", "hr"}


class Elements(HTMLParser):
    """Every element, and whether each that was opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> ends nothing"


def cells_in(page: str) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for packed in re.findall(r'id="chunk-\d+">([^<]*)<', page):
        parts = json.loads(unpack(packed))
        for route, title in parts["title"].items():
            html_of = "".join(parts[name][route] for name in PARTS)
            found[route] = {"title": title, "html": html_of, "charts": parts["charts"][route]}
    return found


@pytest.fixture
def run(make_run: MakeRun, make_record: MakeRecord) -> Run:
    cells = {f"m/fp/s{seed}": 0.0 for seed in range(3)}
    for width, excess in {4: 0.01, 3: 0.3, 2: 2.0}.items():
        cells |= {f"m/mse/{width}b/rtn/s{seed}": excess for seed in range(3)}
        cells |= {f"m/mse/{width}b/ste/s{seed}": excess / 9 for seed in range(3)}
    failed = make_record("m/mse/2b/gptq/s0", status="failed", reason=EVIL)
    fell = make_record("m/mse/3b/gptq/s0", 0.1, fallback=EVIL, facts={"plugins": EVIL, "chance_loss": 6.9})
    gap = {"model": "m", "quantizer": "mse", "bits": 2, "method": EVIL, "seed": 0}
    skipped = {"model": "m", "quantizer": EVIL, "bits": 2, "method": "rtn", "seed": 0, "skip": EVIL}
    return make_run(cells, failed, fell, expected=[gap, skipped], origin=EVIL, command=EVIL, uncompared=EVIL)


@pytest.fixture
def page(run: Run) -> str:
    return render_page([run], title=EVIL)


def test_the_same_runs_give_the_same_bytes(run: Run, page: str) -> None:
    again = Run(run.name, list(reversed(run.records)), run.places, origin=EVIL, command=EVIL, uncompared=EVIL)
    assert render_page([again], title=EVIL) == page


def test_it_is_html_and_asks_for_nothing(page: str) -> None:
    elements = Elements(page)
    assert elements.open == []
    assert {tag for tag, _ in elements.found} & {"link", "img", "iframe", "object", "embed", "base"} == set()
    assert not [attrs for _, attrs in elements.found if {"src", "srcset", "action"} & attrs.keys()]
    hrefs = [attrs["href"] for _, attrs in elements.found if "href" in attrs]
    assert hrefs
    assert all(str(href).startswith("#") for href in hrefs)
    policies = [attrs["content"] for tag, attrs in elements.found if tag == "meta" and "http-equiv" in attrs]
    assert len(policies) == 1
    assert "default-src 'none'" in str(policies[0])
    assert "unsafe-eval" not in str(policies[0])


def test_no_word_is_markup(page: str) -> None:
    cells = cells_in(page)
    for text in (page, *(str(cell["html"]) for cell in cells.values())):
        elements = Elements(text)
        assert elements.open == []
        assert not [name for _, attrs in elements.found for name in attrs if name.startswith("on")]
        assert "<script>alert" not in text
    shown = html.unescape(page + "".join(str(cell["html"]) for cell in cells.values()))
    assert EVIL in shown


def test_ids_are_there_once_and_links_lead_somewhere(page: str) -> None:
    elements = Elements(page)
    ids = [attrs["id"] for _, attrs in elements.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    cells = cells_in(page)
    for _, attrs in elements.found:
        href = str(attrs.get("href") or "#")
        assert href[1:] in ids or href == "#" or href.removeprefix("#cell=") in cells


def test_every_cell_has_a_page(run: Run, page: str) -> None:
    cells = cells_in(page)
    assert sorted(cell["title"] for cell in cells.values()) == sorted(place.label for place in places_of(run))
    index = json.loads(re.findall(r'id="index">(.*?)</script>', page)[0])
    assert index["chunks"].keys() == cells.keys()
    assert all(f'href="#cell={route}"' in page for route in cells)


def test_what_is_not_well_is_loud(page: str) -> None:
    text = html.unescape(page)
    assert "1 failed, 1 fallback, 1 missing" in text or "1 failed" in text.partition("The answer")[0]
    rows = re.findall(r'<tr class="flawed">.*?</tr>', text, re.S)
    assert any("missing: there is no record" in row for row in rows)
    assert any("ok, 1 layer fell back" in row for row in rows)
    assert any(f"failed: {EVIL}" in row for row in rows)


def test_a_cell_tells_everything(make_run: MakeRun, make_record: MakeRecord) -> None:
    key = {
        "method": {"options": {"damping": 0.01}, "version": 2, "sources": {"qbench.methods.gptq": "abc"}},
        "data": {"weights": "fed"},
        "runner": {"qbench.runner.execute": "cab"},
        "seed": 0,
    }
    record = make_record("m/mse/2b/gptq/s0", [0.1, 0.4, 0.2, 0.3], key=key, weights_sha256="beef")
    page = render_page([make_run({"m/fp/s0": 0.0}, record)])
    (cell,) = (cell for cell in cells_in(page).values() if cell["title"] == record.label)
    text = str(cell["html"])
    for expected in ("damping", "0.01", "qbench.methods.gptq", "abc", "fed", "cab", "beef", record.cell_id):
        assert expected in text
    assert repr(record.metrics["loss/blocks128"]) in text
    assert [f"wikitext/{at}" for at in (1, 3, 2, 0)] == re.findall(r"wikitext/\d", text)
    assert cell["charts"]


def test_numbers_that_are_none_do_no_harm(make_run: MakeRun, make_record: MakeRecord) -> None:
    lost = make_record("m/mse/2b/rtn/s0", 0.1, metrics={"loss/blocks128": float("nan"), "weight_sqnr_db": float("inf")})
    lost.layers[0].weight_error = float("nan")
    page = render_page([make_run({"m/fp/s0": 0.0}, lost)])
    assert "diverged" in page
    assert "NaN" not in "".join(json.dumps(cell["charts"]) for cell in cells_in(page).values())


def test_runs_stand_side_by_side(make_run: MakeRun) -> None:
    one, other = (make_run({"m/fp/s0": 0.0, "m/mse/2b/rtn/s0": 0.1}, name=name) for name in ("one", "other"))
    page = render_page([one, other])
    assert len(cells_in(page)) == 4
    assert Elements(page).open == []
    assert ">Suite</th>" in page
    assert ">Suite</th>" not in render_page([one])


@pytest.mark.parametrize("names", [(), ("one", "one")])
def test_runs_that_no_page_can_show_are_refused(make_run: MakeRun, names: tuple[str, ...]) -> None:
    with pytest.raises(QBenchError, match="one run or more"):
        render_page([make_run({"m/fp/s0": 0.0}, name=name) for name in names])


def test_a_run_without_records_is_told_of(make_run: MakeRun) -> None:
    gap = {"model": "m", "quantizer": "mse", "bits": 2, "method": "rtn", "seed": 0}
    page = render_page([make_run({}, expected=[gap])])
    assert "1 missing" in page
    assert "missing: there is no record" in page


def test_packing_is_undone_and_the_same_each_time() -> None:
    text = "</script>é" * 50
    assert unpack(pack(text)) == text
    assert pack(text) == pack(text)
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", pack(text))


def test_chunks_hold_every_cell_once() -> None:
    made = chunks({str(at): {"one": at, "other": -at} for at in range(100)})
    opened = [json.loads(unpack(packed)) for packed in made.packed]
    assert len(opened) > 1
    for at in range(100):
        held = opened[made.of[str(at)]]
        assert (held["one"][str(at)], held["other"][str(at)]) == (at, -at)
    assert sum(len(held["one"]) for held in opened) == 100


def test_templates_and_scripts_are_small() -> None:
    folder = Path(qbench.__file__).parent / "report" / "page"
    files = [*folder.glob("templates/*"), *folder.glob("static/*")]
    assert len(files) > 8
    assert {file.name: count for file in files if (count := len(file.read_text().splitlines())) > 350} == {}
