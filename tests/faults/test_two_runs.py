"""Two runs in one folder at once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_second_run_in_a_folder_is_refused_and_the_first_unharmed(start: Start, folders: Any, tmp_path: Path) -> None:
    arguments = ("run", "--suite", "waiting.yaml", "--device", "cpu", "--jobs", "2", "--out", "out")
    first = start(*arguments)
    folders.wait_until(lambda: first.poll() is not None or (tmp_path / "out" / ".holder.json").exists())
    second = start(*arguments)
    out, said = second.communicate(timeout=folders.patience)
    assert (second.returncode, out) == (2, "")
    assert said.startswith(f"qbench: out is in use by process {first.pid} on ")
    assert said.endswith(": wait until it ends, or give another folder with --out\n") and len(said.splitlines()) == 1
    _, said = first.communicate(timeout=folders.patience)
    assert first.returncode == 0, said
    assert folders.count(tmp_path / "out") == 9 and folders.unsound(tmp_path / "out") == []
