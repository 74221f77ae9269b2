"""Telling a `KeyboardInterrupt` that a user sent from one that somebody's code raises by itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # the second one ends a run as Ctrl-C does


@contextmanager
def noted() -> Iterator[Callable[[], bool]]:
    """Note signals while strange code runs; what they do stays as it is.

    Yields
    ------
    callable
        Returns whether a signal has come in. Where none has, a `KeyboardInterrupt` is the code's own.

    Notes
    -----
    Python hands signals to the main thread alone, so that in any other one nothing can come in.
    """
    came: list[int] = []

    def note(before: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], Any]:
        def handle(number: int, frame: FrameType | None) -> Any:
            came.append(number)
            return before(number, frame)

        return handle

    mine, old = {}, {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):  # what is ignored, or ends the process, raises nothing
                old[number], mine[number] = handler, note(handler)
                signal.signal(number, mine[number])
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in old.items():
            if signal.getsignal(number) is mine[number]:  # else the code has set one of its own
                signal.signal(number, handler)
