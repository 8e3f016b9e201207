"""Asking a server again: how long to wait, for whom, and when to give up."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

from recbole_ext.features.pace import Pace

LONGEST_WAIT = 600.0
"""Seconds; a server that asks for more (a quota by the day) is not waited for."""
LONGEST_BACK_OFF = 60.0
A = TypeVar("A")


class Again(Exception):
    """A failure that may pass.

    Args:
        words: What failed.
        after: Seconds that the server asks to wait; ``None`` where it does not say.
        for_all: Whether nobody is to ask meanwhile, or only this request waits.
    """

    def __init__(self, words: str, after: float | None = None, for_all: bool = True) -> None:
        super().__init__(words)
        self.after, self.for_all = after, for_all


class GaveUp(Exception):
    """The last failure; ``is_asked`` where the server asks for a longer wait than anybody has."""

    def __init__(self, words: str, is_asked: bool) -> None:
        super().__init__(words)
        self.is_asked = is_asked


def with_retries(
    send: Callable[[], A], pace: Pace, n_tokens: float, max_retries: int, where: str
) -> A:
    """Return what ``send`` returns; where it raises :class:`Again`, wait and call it again.

    Args:
        send: One try.
        pace: Limit of the tries.
        n_tokens: In each, for the limit.
        max_retries: Tries after the first.
        where: The server, for the log.

    Raises:
        GaveUp: After the last try, or where the server asks for a wait above ``LONGEST_WAIT``.
    """
    for number in range(max_retries + 1):
        pace.wait(n_tokens)
        try:
            return send()
        except Again as failure:
            wait, words, for_all = failure.after, str(failure), failure.for_all
        if wait is None:  # jitter, so that not all who failed together come back together
            wait = min(2.0**number, LONGEST_BACK_OFF) * random.uniform(0.5, 1)
        if wait > LONGEST_WAIT:
            raise GaveUp(f"{words}; it asks to wait {wait:.0f} s: try later", is_asked=True)
        if number < max_retries:
            logging.getLogger().log(
                logging.WARNING if for_all else logging.INFO,
                "%s: %s; try %d of %d in %.1f s",
                *(where, words, number + 2, max_retries + 1, wait),
            )
            (pace.hold if for_all else pace.rest)(wait)
    raise GaveUp(f"{words}, {max_retries + 1} times", is_asked=False)


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (a number, or a date: RFC 9110)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if not math.isnan(seconds) else None


def reason_of(error: Exception) -> str:
    """Return what an error of a connection says; urllib keeps it in ``reason``."""
    return str(getattr(error, "reason", None) or error) or type(error).__name__
