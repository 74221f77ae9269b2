"""A headless Chromium, and pages of small runs for it to open."""

from __future__ import annotations

import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from qbench.report.page.render import render_page
from qbench.report.run import Run
from qbench.store.record import Record

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# As root there is no sandbox; nothing of the browser's own may reach for the network either.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

make_record: Callable[..., Record] = runpy.run_path(str(Path(__file__).parents[1] / "report" / "conftest.py"))["_make"]

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
METHODS = {"rtn": 1.0, "gptq": 0.5, "brecq[batch_size=8]": 0.3, "ste_qat[steps=60]": 0.15}
WIDTHS = {4: 0.01, 3: 0.3, 2: 2.0}


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=_executable(playwright), args=_ARGUMENTS)
    yield browser
    browser.close()


def _executable(driver: Playwright) -> str:
    named = os.environ.get("QBENCH_CHROMIUM")
    if named is not None:
        if shutil.which(named) is None:
            pytest.exit(f"QBENCH_CHROMIUM is {named!r}, where no program is", returncode=2)
        return named
    found = [*filter(None, map(shutil.which, _NAMES)), driver.chromium.executable_path]
    if not Path(found[0]).exists():
        pytest.exit("no Chromium: install the package chromium, or say by QBENCH_CHROMIUM where one is", returncode=2)
    return found[0]


class Opened:
    """A page in the browser, with everything it said and asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))

    def rows(self) -> list[str]:
        """Return the rows of the leaderboard that are shown."""
        return self.page.locator("#board tbody tr").all_inner_texts()

    @property
    def foreign(self) -> list[str]:
        """Return what was asked for besides the file and what it made itself."""
        return [url for url in self.asked if not url.startswith(("file:", "blob:", "data:"))]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Opened]]:
    """Open a file without any network; keywords go to `new_context`."""
    contexts: list[BrowserContext] = []

    def opened(file: Path, fragment: str = "", **options: Any) -> Opened:
        context = chromium.new_context(offline=True, **({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        context.route(lambda url: not url.startswith(("file:", "blob:", "data:")), lambda route: route.abort())
        found = Opened(context.new_page())
        found.page.goto(file.as_uri() + fragment)
        found.page.wait_for_selector(":root[data-ready]", state="attached", timeout=30_000)
        return found

    yield opened
    for context in contexts:
        context.close()


def make_run() -> Run:
    """Return a run with cells that are well, failed, missing and left out, and with words that mean harm."""
    records, places = [], []
    for seed in range(3):
        labels = {f"llama/fp/s{seed}": 0.0}
        for width, size in WIDTHS.items():
            labels |= {f"llama/mse/{width}b/{name}/s{seed}": size * share for name, share in METHODS.items()}
        for label, excess in labels.items():
            records.append(make_record(label, [excess, excess * 1.1, excess * 0.9, excess], traces=_traces(label)))
    failed = make_record("llama/mse/2b/hqq/s0", status="failed", reason=EVIL)
    records.append(failed)
    places = [{**record.axes} for record in records]
    places.append({"model": "llama", "quantizer": "mse", "bits": 3, "method": "awq", "seed": 0})
    places.append(
        {"model": "llama", "quantizer": "mse", "bits": 4, "method": "awq", "seed": 0, "skip": "no such <b>grid</b>"}
    )
    return Run("tiny", records, places, origin=EVIL, command="qbench run --suite tiny", uncompared=EVIL)


def _traces(label: str) -> dict[str, list[float]]:
    return {"train_loss": [3.0, 2.5, 2.2, 2.1]} if "ste_qat" in label else {}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a small page."""
    file = tmp_path_factory.mktemp("page") / "small.html"
    file.write_text(render_page([make_run()]), encoding="utf-8")
    return file
