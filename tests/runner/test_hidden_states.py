"""Hidden states come back as they were kept, from memory or from disk, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qbench.errors import UnwritableError
from qbench.runner.hidden_states import HiddenStates, Spill

SHAPES = [torch.Size((4, 8, 6)), torch.Size((4, 8, 6)), torch.Size((1, 8, 6))]


def filled(states: HiddenStates, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    values = [torch.randn(shape).to(dtype) for shape in SHAPES]
    for index, value in enumerate(values):
        states.put(index, value)
    return values


@pytest.mark.parametrize("limit", [0, 1 << 20], ids=["on disk", "in memory"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_is_kept_comes_back(tmp_path: Path, limit: int, dtype: torch.dtype) -> None:
    with Spill(tmp_path, "cpu", limit) as spill:
        states = spill.hold(SHAPES, dtype)
        values = filled(states, dtype)
        assert len(states) == 3
        for _ in range(2):
            assert all(torch.equal(one, other) for one, other in zip(states, values, strict=True))
        assert torch.equal(states[-1], values[2])
        states.put(1, 2 * values[1])
        assert torch.equal(states[1], 2 * values[1])
        assert torch.equal(states[0], values[0])
        assert torch.equal(states[2], values[2])
        assert [one.shape for one in states[1:]] == SHAPES[1:]
        with pytest.raises(IndexError):
            states[3]
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_lie_in_one_piece_is_kept_by_value(tmp_path: Path) -> None:
    with Spill(tmp_path, "cpu", 0) as spill:
        states = spill.hold([torch.Size((3, 2))], torch.float32)
        value = torch.arange(6.0).view(2, 3).T
        states.put(0, value)
        assert torch.equal(states[0], value)


def test_the_first_streams_are_kept_in_memory(tmp_path: Path) -> None:
    size = sum(shape.numel() for shape in SHAPES) * 4
    with Spill(tmp_path, "cpu", 2 * size) as spill:
        kept = [spill.hold(SHAPES, torch.float32)._file is None for _ in range(3)]
    assert kept == [True, True, False]


def test_a_killed_process_leaves_no_file(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from qbench.runner.hidden_states import Spill\n"
        "with Spill(Path(sys.argv[1]), 'cpu', 0) as spill:\n"
        "    states = spill.hold([torch.Size((64, 64))], torch.float32)\n"
        "    states.put(0, torch.ones(64, 64))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], check=False, timeout=120)
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_takes_no_files_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with Spill(tmp_path / "runs", "cpu", 0) as spill, pytest.raises(UnwritableError, match="cannot write"):
        spill.hold(SHAPES, torch.float32)
