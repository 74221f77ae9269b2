"""Ratios of a run of tests/perf, as a table: what is printed at its end, and what docs/methods.md shows.

Usage: ``python tests/perf/summary.py FOLDER [PAGE]``. The newest file that pytest-benchmark saved in the folder counts;
with a page, the table between its two marks is replaced.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

BEGIN, END = "<!-- perf: begin -->", "<!-- perf: end -->"


def rows(data: dict[str, Any]) -> list[list[str]]:
    """Return timing, measure and number of everything that the tests noted."""
    peak = data["machine_info"]["matmul GFLOP/s"]
    found = []
    for benchmark in data["benchmarks"]:
        parameters = benchmark["name"].partition("[")[2].rstrip("]")
        name = f"{benchmark['group']} ({parameters})" if parameters else benchmark["group"]
        noted = dict(benchmark["extra_info"])
        rate = noted.pop("GFLOP/s", None)
        if rate is not None:
            noted["share of the matmul rate"] = rate / peak
        found.append([name, "milliseconds, least", f"{benchmark['stats']['min'] * 1e3:.3g}"])
        found += [[name, measure, f"{value:.4g}"] for measure, value in noted.items()]
    return found


def table(data: dict[str, Any]) -> str:
    """Return the table in Markdown, headed by where it was measured."""
    about = data["machine_info"]
    processor = about["cpu"].get("brand_raw", about["machine"])
    head = f"One thread of {processor}, torch {about['torch']}, matmul at {about['matmul GFLOP/s']:.0f} GFLOP/s."
    body = tabulate(rows(data), headers=["timing", "measure", "number"], tablefmt="github", disable_numparse=True)
    return f"{head}\n\n{body}"


def main(folder: Path, page: Path | None) -> None:
    """Print the newest run's table, and put it on the page."""
    newest = max(folder.rglob("*.json"), key=lambda file: file.stat().st_mtime)
    text = table(json.loads(newest.read_text(encoding="utf-8")))
    print(text)  # noqa: T201 (a program)
    if page is not None:
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
