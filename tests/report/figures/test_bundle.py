"""The script that draws in a page."""

from __future__ import annotations

import re
import sys

import pytest

from qbench.errors import QBenchError
from qbench.report.figures.bundle import javascript


def test_the_script_defines_vega_embed_and_fetches_no_script() -> None:
    script = javascript()
    assert "window.vegaEmbed" in script
    assert "ast:" in script
    assert "</script" not in script.lower()
    # Names of documents and of schemas, and where its menu leads, which nothing fetches by itself.
    hosts = {re.match(r"https?://([^/]+)", url)[1] for url in re.findall(r"https?://[\w./-]+", script)}  # type: ignore[index]
    assert hosts <= {"www.w3.org", "vega.github.io", "github.com"}
    assert not re.search(r"(import|importScripts)\s*\(\s*[\"']https?:", script)
    assert not re.search(r"from\s*[\"']https?:", script)


def test_the_same_script_each_time() -> None:
    first = javascript()
    javascript.cache_clear()
    assert javascript() == first


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    javascript.cache_clear()
    with pytest.raises(QBenchError, match=r"vl-convert-python: pip install qbench\[report\]"):
        javascript()
