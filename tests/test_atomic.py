"""A file is wholly written or not there, whatever happens to the writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qbench.atomic import sha256_file, write_bytes, write_text
from qbench.errors import UnwritableError

WRITER = """
import itertools, pathlib, sys
from qbench.atomic import write_bytes
folder = pathlib.Path(sys.argv[1])
for turn in itertools.count():
    letter = b"abcdefgh"[turn % 8 : turn % 8 + 1]
    write_bytes(folder / f"{turn % 3}.bin", letter * 1_000_000)
"""


def test_a_killed_writer_leaves_only_whole_files(tmp_path: Path) -> None:
    for turn in range(2):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
        deadline = time.monotonic() + 30
        while not (tmp_path / "2.bin").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05 + 0.037 * turn)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        files = sorted(tmp_path.glob("[!.]*"))
        assert [path.name for path in files] == ["0.bin", "1.bin", "2.bin"]
        for path in files:
            data = path.read_bytes()
            assert len(data) == 1_000_000
            assert len(set(data)) == 1


STOPPED = """
import os, pathlib, sys, time
from qbench.atomic import write_text
def stop(*_, **__):
    print("here", flush=True)
    time.sleep(60)
setattr(os, sys.argv[2], stop)
write_text(pathlib.Path(sys.argv[1]), "new")
"""


@pytest.mark.parametrize("step", ["fdopen", "fsync", "chmod", "replace"])
def test_a_writer_killed_at_any_step_leaves_the_old_file(tmp_path: Path, step: str) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    with subprocess.Popen([sys.executable, "-c", STOPPED, str(path), step], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        child.kill()
    assert path.read_text() == "old"
    assert [other.suffix for other in tmp_path.iterdir() if other != path] == [".tmp"]


@pytest.mark.parametrize("step", ["fdopen", "fsync", "chmod", "replace"])
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "No space left on device (make room there)"),
        (errno.EDQUOT, "Disk quota exceeded (make room there)"),
        (errno.EROFS, "Read-only file system (write somewhere else, or make it writable)"),
        (errno.EACCES, "Permission denied (write somewhere else, or make it writable)"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, said: str
) -> None:
    path = tmp_path / "record.json"
    write_text(path, "old")

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(UnwritableError) as caught:
        write_text(path, "new")
    monkeypatch.undo()
    assert str(caught.value) == f"cannot write {path}: {said}"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_where_a_folder_should_be_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("mine")
    for path in (tmp_path / "records" / "a.json", tmp_path / "records" / "sub" / "a.json"):
        with pytest.raises(UnwritableError, match=r"cannot write .*a\.json: .* \(a file is where a folder should be"):
            write_text(path, "new")
    assert (tmp_path / "records").read_text() == "mine"


def test_a_written_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_folder_is_made(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "c", b"abc")
    assert sha256_file(tmp_path / "a" / "b" / "c") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
