"""A fence around evaluation data while a method or a quantizer is at work: what it was tuned on cannot judge it.

Three things make it. A method is handed nothing that leads to evaluation data (see `qbench.runner.handed_over`). Every
reader of qbench announces that it reads an evaluation split (see `qbench.tasks.evaluation.announce`). And files that
hold evaluation data alone are known by name: the evaluation text of the corpus, and its tokens in the cache. An audit
hook of Python (`sys.addaudithook`) hears of both, and while the fence is up it refuses: the call raises, and the cell
fails with one line even where the method takes no notice of that.

What it cannot tell: files in which splits lie side by side (folders of texts, image archives, data sets of a
repository), opened by a method's own code and not by a reader of qbench.

What a determined cheat can still do: read by a library that opens files below Python, or in a process of its own;
read when its module is imported, or keep a copy elsewhere; search the whole process for the task; take this hook's
state away; or tell weights to the watch of a trajectory that are not its own. The fence is against mistakes and
against temptation; who wants to be sure reads the method's code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qbench.errors import CellError
from qbench.tasks.evaluation import EVALUATION_READ


class _Fence:
    """The state of the process's one hook."""

    def __init__(self) -> None:
        self.hooked = False
        self.up = False
        self.refuses = True
        self.files: frozenset[Path] = frozenset()
        self.touched: list[str] = []

    def install(self) -> None:
        """Add the hook to the process, once: it cannot be taken away again."""
        if not self.hooked:
            self.hooked = True
            sys.addaudithook(self.hear)

    def hear(self, event: str, given: tuple[Any, ...]) -> None:
        """Note, and refuse, what is behind the fence."""
        if not self.up:
            return
        if event == EVALUATION_READ:
            self._refuse(str(given[0]))
        elif event == "open" and self.files and isinstance(given[0], str | bytes | os.PathLike):
            path = Path(os.fsdecode(given[0])).resolve()
            if path in self.files:
                self._refuse(f"the evaluation data in {path.name}")

    def _refuse(self, what: str) -> None:
        self.touched.append(what)
        if self.refuses:
            raise CellError(_said(what))


def _said(what: str) -> str:
    return f"it read {what} while it quantized (allowed: calibration and training data)"


_fence = _Fence()


@contextmanager
def raised(files: Collection[Path] = ()) -> Iterator[None]:
    """Keep evaluation data from what runs inside.

    Parameters
    ----------
    files : collection of Path
        Files that hold evaluation data and nothing else.

    Raises
    ------
    CellError
        Something inside read evaluation data, also where it went on as if nothing had happened.
    """
    with _standing(files, refuses=True) as touched:
        try:
            yield
        except Exception as error:
            if touched:
                raise CellError(_said(touched[0])) from error
            raise
    if touched:
        raise CellError(_said(touched[0]))


@contextmanager
def noted(files: Collection[Path] = ()) -> Iterator[list[str]]:
    """Let everything through, and yield a list of what was read of evaluation data; see `raised`."""
    with _standing(files, refuses=False) as touched:
        yield touched


@contextmanager
def _standing(files: Collection[Path], *, refuses: bool) -> Iterator[list[str]]:
    _fence.install()
    before = _fence.up, _fence.refuses, _fence.files, _fence.touched
    touched: list[str] = []
    _fence.up, _fence.refuses, _fence.touched = True, refuses, touched
    _fence.files = frozenset(file.resolve() for file in files)
    try:
        yield touched
    finally:
        _fence.up, _fence.refuses, _fence.files, _fence.touched = before


@contextmanager
def lowered() -> Iterator[None]:
    """Let through what runs inside: it is ours and measures, and tells the method nothing."""
    before, _fence.up = _fence.up, False
    try:
        yield
    finally:
        _fence.up = before


def around(task: Any) -> Any:
    """Return `raised` with the files that a task names under ``evaluation_files``, if it does."""
    return raised(getattr(task, "evaluation_files", ()))
