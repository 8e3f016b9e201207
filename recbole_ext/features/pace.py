"""Limits of a server: requests and tokens per minute, and a wait that holds for all threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from recbole_ext.types import UserError


class Stopped(Exception):
    """Nobody waits for the answer any more."""


class Pace:
    """Lets requests start evenly spaced, so that no minute has more of them than allowed.

    Args:
        requests_per_minute: ``None`` for no limit.
        tokens_per_minute: ``None`` for no limit.
        clock: Seconds that only grow.
        sleep: Waits for some seconds; by default until :meth:`stop`, at the longest.

    Raises:
        UserError: A limit is not above 0.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        limits = {
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
        }
        for name, limit in limits.items():
            if limit is not None and not limit > 0:
                raise UserError(f"{name} takes a number above 0, or nothing for no limit")
        self._per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._stopped = threading.Event()
        self._clock, self._sleep = clock, sleep or self._stopped.wait
        self._free = clock()  # when the next request may start
        self._lock = threading.Lock()

    def wait(self, n_tokens: float) -> None:
        """Return when a request of so many tokens may start; those after it wait for what it took.

        Args:
            n_tokens: Counted or estimated.

        Raises:
            Stopped: After :meth:`stop`.
        """
        while True:  # whoever slept looks again: meanwhile another may have started, or held all
            if self._stopped.is_set():
                raise Stopped
            with self._lock:
                left = self._free - self._clock()
                if left <= 0:
                    took = max(self._per_request, n_tokens * self._per_token)
                    self._free = self._clock() + took
                    return
            self._sleep(left)

    def hold(self, seconds: float) -> None:
        """Let no request start for some seconds, as the server asked for."""
        with self._lock:
            self._free = max(self._free, self._clock() + seconds)

    def rest(self, seconds: float) -> None:
        """Wait some seconds alone; others may start meanwhile."""
        self._sleep(seconds)

    def stop(self) -> None:
        """Wake all who wait, and let no request start any more."""
        self._stopped.set()
