"""How long a page of 2,000 cells takes until a reader can use it."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from qbench.report.page.place import places_of
from qbench.report.page.render import render_page
from qbench.report.run import Run
from tests.browser.conftest import make_record

CELLS = 2000
LOADS = 7
MOST_SECONDS = 2.0
MOST_CPU_SECONDS = 1.0
LAYERS, DOCUMENTS = 28, 28


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a page with 2,000 cells, each with the layers and documents of a small language model."""
    labels = [f"llama-{model}m/fp/s{seed}" for model in range(5) for seed in range(2)]
    for model in range(5):
        for quantizer in ("absmax[per_channel]", "mse[per_channel]", "mse[g64]", "nf[g32]"):
            for width in (8, 4, 3, 2):
                for method in ("rtn", *(f"ptq_{at}" for at in range(8)), *(f"ste_{at}[steps=60]" for at in range(4))):
                    labels += [f"llama-{model}m/{quantizer}/{width}b/{method}/s{seed}" for seed in range(2)]
    run = Run("large", [_record(label, at) for at, label in enumerate(labels[:CELLS])])
    assert len(places_of(run)) == CELLS
    file = tmp_path_factory.mktemp("page") / "large.html"
    file.write_text(render_page([run]), encoding="utf-8")
    return file


def _record(label: str, at: int) -> Any:
    plain = make_record(label, 0.001 * (at % 97), tokens=[100 + at % 7] * DOCUMENTS)
    layers = [
        plain.layers[0].model_copy(update={"name": f"model.layers.{i}"}) for i in range(LAYERS if plain.layers else 0)
    ]
    return plain.model_copy(update={"layers": layers})


def test_two_thousand_cells_are_there_in_two_seconds(chromium: Browser, large: Path) -> None:
    seconds, busy = [], []
    for _ in range(LOADS):
        context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900})
        page = context.new_page()
        session = context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(large.as_uri())
        page.wait_for_selector(":root[data-ready]", state="attached", timeout=30_000)
        # From the start of the navigation until tables sort, filter and search.
        seconds.append(page.evaluate("performance.getEntriesByName('ready')[0].startTime") / 1000)
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        busy.append(metrics["TaskDuration"])
        assert page.locator("#board tbody tr").count() == 50
        assert page.locator("#board_wrapper .dt-info").inner_text() == "1 to 50 of 1,000"
        context.close()
    told = (
        f"{CELLS} cells, {large.stat().st_size / 1e6:.1f} MB: ready after {statistics.median(seconds):.2f} s "
        f"(median of {LOADS}: {', '.join(f'{one:.2f}' for one in seconds)}); "
        f"CPU time of the main thread {statistics.median(busy):.2f} s"
    )
    assert statistics.median(busy) < MOST_CPU_SECONDS, told
    # Where more wants to run than there are cores, the clock tells of them and not of the page.
    waiting = os.getloadavg()[0] - (os.cpu_count() or 1)
    if waiting > 0:
        told += f"; the clock was not judged: {waiting:.1f} processes more than cores"
    print(told)  # noqa: T201 (shown with -rA)
    assert waiting > 0 or statistics.median(seconds) < MOST_SECONDS, told
