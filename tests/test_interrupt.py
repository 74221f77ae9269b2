"""Whose interrupt it is: the user's, by a signal, or of the code that runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from qbench.interrupt import noted


@pytest.fixture(autouse=True)
def as_python_has_it() -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in HANDLERS.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


def test_a_signal_is_noted_and_does_what_it_did() -> None:
    with noted() as interrupted:
        assert not interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interrupted()
    assert {number: signal.getsignal(number) for number in HANDLERS} == HANDLERS


def test_what_code_raises_by_itself_is_no_signal() -> None:
    with pytest.raises(KeyboardInterrupt), noted() as interrupted:
        try:
            raise KeyboardInterrupt
        finally:
            assert not interrupted()
    assert {number: signal.getsignal(number) for number in HANDLERS} == HANDLERS


def test_a_polite_kill_counts_where_it_interrupts() -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    with noted() as interrupted:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert interrupted()
    assert signal.getsignal(signal.SIGTERM) is interrupt


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with noted() as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert not interrupted()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_handler_that_the_code_sets_stays() -> None:
    with noted():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_another_thread_gets_no_signals_and_sets_none() -> None:
    said: list[bool] = []

    def other() -> None:
        with noted() as interrupted:
            said.append(interrupted())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert said == [False]
