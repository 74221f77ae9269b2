"""What a page brings along so that it needs no network: style, script, and the libraries."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from importlib.resources import files
from pathlib import Path

from qbench.errors import QBenchError


def own(name: str) -> str:
    """Return a file of ``static/``."""
    return (files("qbench.report.page") / "static" / name).read_text(encoding="utf-8")


def tables() -> tuple[str, str]:
    """Return DataTables with its extensions, as the itables distribution ships it: an ES module, and its style.

    Raises
    ------
    QBenchError
        itables is missing.
    """
    # Found and not imported: importing itables brings in pandas.
    spec = importlib.util.find_spec("itables")
    if spec is None or not spec.submodule_search_locations:
        raise QBenchError("the page needs itables: pip install qbench[report]")
    folder = Path(spec.submodule_search_locations[0]) / "html"
    module, style = ((folder / f"dt_bundle.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return module, style


def policy(script: str) -> str:
    """Return the content security policy: nothing is fetched, and no script runs but the page's own.

    The libraries are unpacked into blobs. No text is made code (``unsafe-eval``): Vega has its expressions interpreted.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'sha256-{digest}' blob:",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
