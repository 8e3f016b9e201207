"""SIGTERM, which batch systems send, stops a command as Ctrl-C does: with its last word."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def sigterm_as_interrupt() -> Iterator[list[int]]:
    """Raise ``KeyboardInterrupt`` at SIGTERM; yield a list, which then has its number.

    A handler that somebody else has set stays, and so does any in another thread than the first.
    """
    came: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield came
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def saying_what_is_kept(kept: Callable[[], int], n: int) -> Iterator[None]:
    """Say of work that is interrupted that it goes on, and how many of n pieces are kept."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.args = (f"the same command goes on; {kept()} of {n} are kept",)
        raise
