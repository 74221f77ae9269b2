"""Kill -9: whatever the instant, what has ended is sound, and the resumed run is the run that was never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

Start = Callable[..., "subprocess.Popen[str]"]
RUN = ("run", "--device", "cpu", "--jobs", "2", "--suite")

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9"),
    pytest.mark.timeout(3600),
]


def kill(driver: subprocess.Popen[str], whole: bool, folders: Any) -> None:
    """Kill a run, or the run and its workers at once, and wait until none of its processes is left."""
    try:
        family = psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if whole:
        os.killpg(driver.pid, signal.SIGKILL)
    else:
        driver.kill()
    driver.communicate()
    folders.wait_for_all(family)


@pytest.mark.slow
def test_three_kills_lose_nothing_that_has_ended(start: Start, folders: Any, tmp_path: Path) -> None:
    chance, broken = random.Random(1), tmp_path / "broken"
    # Three times as many cells as elsewhere: however fast the machine, the third kill is not too late.
    suite = (tmp_path / "waiting.yaml").read_text()
    (tmp_path / "waiting.yaml").write_text(suite.replace("seeds: 1", "seeds: 3"))
    cells, weights = 3 * 9, 3 * 8
    before: dict[str, Any] = {}
    for turn in range(3):
        driver = start(*RUN, "waiting.yaml", "--out", broken)
        goal = len([name for name in before if name.endswith(".json")]) + 1
        folders.wait_until(lambda goal=goal, driver=driver: driver.poll() is not None or folders.count(broken) >= goal)
        time.sleep(chance.uniform(0, 0.4))
        kill(driver, bool(turn % 2), folders)
        assert driver.returncode == -signal.SIGKILL
        assert folders.unsound(broken) == []
        after = folders.results(broken)
        assert before.items() <= after.items()
        before = after
    kept = folders.count(broken)
    assert 3 <= kept < cells

    whole = start(*RUN, "waiting.yaml", "--out", "whole")
    _, said = whole.communicate(timeout=folders.patience)
    assert whole.returncode == 0, said
    resumed = start(*RUN, "waiting.yaml", "--out", broken)
    _, said = resumed.communicate(timeout=folders.patience)
    assert resumed.returncode == 0, said
    assert f"waiting: {cells - kept} cells to run, {kept} from the records in" in said
    assert folders.results(broken) == folders.results(tmp_path / "whole")
    assert len(folders.results(broken)) == cells + weights
    assert not list(broken.rglob("*.tmp"))


@pytest.mark.nightly
def test_fifty_kills_at_random_instants_of_the_smoke_suite(
    start: Start, folders: Any, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """Half of the kills come while a run is starting, half after it has written something.

    Where a run ends before its kill, it is compared with the undisturbed one, and the next one starts afresh.
    """
    chance, kills, rounds, with_new, checked = random.Random(50), 0, 0, 0, 0
    started = time.monotonic()
    whole = start(*RUN, "smoke", "--out", "whole")
    _, said = whole.communicate(timeout=1200)
    assert whole.returncode == 0, said
    latest = (time.monotonic() - started) / 8  # on an idle machine and on a busy one
    expected = folders.results(tmp_path / "whole")
    assert len(expected) > 20

    while kills < 50:
        rounds += 1
        folder, ended = tmp_path / f"broken-{rounds}", False
        while not ended:
            driver, before = start(*RUN, "smoke", "--out", folder), folders.results(folder)
            there = len(before)
            if kills < 50 and chance.random() < 0.5:
                folders.wait_until(
                    lambda driver=driver, folder=folder, there=there: (
                        driver.poll() is not None or len(list(folder.glob("*/[!.]*.*"))) > there
                    )
                )
            try:
                _, said = driver.communicate(timeout=chance.uniform(0.01, latest) if kills < 50 else 1200)
                assert driver.returncode == 0, said
                ended = True
            except subprocess.TimeoutExpired:
                kill(driver, chance.random() < 0.5, folders)
                kills += 1
            after = folders.results(folder)
            assert folders.unsound(folder) == []
            assert before.items() <= after.items(), f"kill {kills} lost something"
            with_new += len(after) > len(before)
            checked += len(after)
        assert folders.results(folder) == expected
        assert not list(folder.rglob("*.tmp"))
    seconds = time.monotonic() - started
    tell(
        f"{kills} kills up to {latest:.0f} s after the start or a new file, in {rounds} runs of {len(expected)} files; "
        f"{with_new} starts left new files; {checked} files checked, none unsound, none lost; {seconds:.0f} s"
    )
