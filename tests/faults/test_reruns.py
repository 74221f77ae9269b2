"""An unchanged suite never turns red, and on equal ground it gives the same bytes every time."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., "subprocess.Popen[str]"]
SMOKE = ("--suite", "smoke", "--out", "out")
TIMES = 10


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_ten_reruns_of_the_smoke_suite_are_never_red(
    start: Start, folders: Any, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """One process and two in turns: other numbers of threads, so that not all runs are on equal ground."""
    started = time.monotonic()

    def qbench(*arguments: object) -> tuple[int, str]:
        driver = start(*arguments)
        out, err = driver.communicate(timeout=2400)
        return driver.returncode, out + err

    def run(jobs: int) -> dict[str, Any]:
        code, said = qbench("run", *SMOKE, "--device", "cpu", "--jobs", jobs, "--fresh")
        assert code == 0, said
        found: dict[str, Any] = folders.results(tmp_path / "out")
        return found

    run(1)
    code, said = qbench("repeat", *SMOKE, "--device", "cpu")
    assert code == 0, said
    code, said = qbench("bless", *SMOKE, "--yes", "--reason", "the first run")
    assert code == 0, said
    first: dict[int, dict[str, Any]] = {}
    verdicts: dict[str, int] = {}
    for turn in range(TIMES):
        jobs = 1 + turn % 2
        found = run(jobs)
        assert found == first.setdefault(jobs, found), f"run {turn}: other bytes on equal ground"
        code, said = qbench("compare", *SMOKE, "--format", "json")
        assert code == 0, f"run {turn}, {jobs} jobs: {said}"
        rows = json.loads(said[said.index("{") :])["rows"]
        for row in rows:
            verdicts[row["verdict"]] = verdicts.get(row["verdict"], 0) + 1
    alike = sum(first[2][name] == first[1][name] for name in first[1])
    seconds = time.monotonic() - started
    tell(
        f"{TIMES} reruns, {verdicts}; {len(first[1])} files, the same bytes each time on as many threads, "
        f"{alike} of them on one and two threads; {seconds:.0f} s"
    )
