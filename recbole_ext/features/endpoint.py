"""A server that speaks OpenAI's HTTP protocol: one call that asks, waits, tries again and explains.

The protocol is a POST of JSON, for which the standard library is enough. The ``openai`` package
tries again by itself, out of sight of the limits per minute, which are to count each try.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any, NoReturn, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from recbole_ext.features.pace import Pace
from recbole_ext.features.retrying import Again, GaveUp, reason_of, retry_after, with_retries
from recbole_ext.types import UserError

OPENAI = "https://api.openai.com/v1"
SHORTEST_SECRET = 8
"""A shorter key ("none", "EMPTY") is a word for a server that asks for none."""
_TOO_LONG = re.compile(
    r"context[ _]?(length|size|window)|too (long|large|many tokens)|maximum.{0,40}tokens"
    r"|less than \d+ tokens|exceed.{0,40}(token|length)",
    re.IGNORECASE,
)
"""What OpenAI, vLLM, Ollama, llama.cpp and text-embeddings-inference say of a too long input."""
A = TypeVar("A")
B = TypeVar("B")


class BadRequest(UserError):
    """The server refuses what was sent (400, 413, 422); something else it may take."""


class TooLong(BadRequest):
    """The server takes less at a time."""


class ServerFailed(UserError):
    """There was no answer, or none but errors of the server, after all tries."""


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would make a GET of the POST, and take the key to another place."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


class Endpoint:
    """Where ``/embeddings`` and ``/chat/completions`` are; the key comes from ``OPENAI_API_KEY``.

    Args:
        base_url: As ``https://host/v1``; by default ``OPENAI_BASE_URL``, or else OpenAI's.
        timeout: Seconds without a byte after which an answer is given up.
        max_retries: Tries after the first, on 429, 5xx and where no answer comes.
        requests_per_minute: Limit, tries counted; ``None`` for none.
        tokens_per_minute: Limit, estimated; ``None`` for none.
        concurrency: Requests at a time.
        pace: Instead of the two limits.

    Raises:
        UserError: There is no key, the URL is none, or a number is out of range.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        timeout: float = 120.0,
        max_retries: int = 5,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        concurrency: int = 4,
        pace: Pace | None = None,
    ) -> None:
        self.url = _checked_url(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI)
        self._key = _checked_key(os.environ.get("OPENAI_API_KEY", ""))
        if timeout <= 0 or max_retries < 0 or concurrency < 1:
            raise UserError("timeout is above 0, max_retries 0 or more, concurrency 1 or more")
        self.timeout, self.max_retries, self.concurrency = timeout, max_retries, concurrency
        self.pace = pace or Pace(requests_per_minute, tokens_per_minute)
        self._opener = build_opener(_NoRedirect)

    def post(self, path: str, body: dict[str, Any], n_tokens: float) -> dict[str, Any]:
        """Return the server's answer to a request.

        Args:
            path: ``embeddings`` or ``chat/completions``.
            body: Of the request.
            n_tokens: In it, estimated: for the limit.

        Raises:
            BadRequest: For what was sent.
            ServerFailed: After ``max_retries``.
            UserError: Anything else that the server refuses (401, 403, 404), in its words.
        """
        data = json.dumps(body).encode()
        try:
            return with_retries(
                lambda: self._send(path, data), self.pace, n_tokens, self.max_retries, self.url
            )
        except GaveUp as failure:
            words = f"{self.url}: {failure}"
            if not failure.is_asked:
                words += "; what was done is kept: try later, or check OPENAI_BASE_URL"
            raise ServerFailed(words) from None

    def map(self, ask: Callable[[A], B], parts: Iterable[A]) -> list[B]:
        """Return what ``ask`` gives for each part, asked ``concurrency`` at a time."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(ask, part) for part in parts]
            try:
                return [future.result() for future in futures]
            except BaseException as error:
                if not isinstance(error, Exception):  # Ctrl-C: or who waits would be waited for
                    self.pace.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _send(self, path: str, data: bytes) -> dict[str, Any]:
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self._key}",
            "User-Agent": "recbole-ext",  # urllib's own is turned away by some hosts
        }
        request = Request(f"{self.url}/{path}", data, headers)
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                text = response.read()
        except HTTPError as error:
            self._refuse(error)
        except (OSError, HTTPException) as error:
            raise Again(f"no answer ({self._in_short(reason_of(error))})") from None
        try:
            found = json.loads(text)
            if isinstance(found, dict):
                return found
        except ValueError:
            pass
        raise UserError(
            f"{self.url}/{path} answered {self._in_short(text.decode(errors='replace'))!r}, which "
            "is no JSON object; check OPENAI_BASE_URL, which often ends in /v1"
        )

    def _refuse(self, error: HTTPError) -> NoReturn:
        """Raise what an answer with an error status means."""
        try:
            text = error.read().decode(errors="replace")
        except (OSError, HTTPException):
            text = ""
        message, status = _message_of(text), error.code
        words = self._in_short(f"{status} {error.reason}" + (f": {message}" if message else ""))
        if status == 413 or (status in (400, 422, 500) and _TOO_LONG.search(message)):
            raise TooLong(f"{self.url}: {words}; shorten the text") from None
        is_spent = status == 429 and "insufficient_quota" in text  # no wait brings it back
        if (status == 429 and not is_spent) or status >= 500:
            raise Again(words, retry_after(error.headers.get("Retry-After"))) from None
        if status in (400, 422):
            raise BadRequest(f"{self.url}: {words}; check the text and the settings") from None
        remedies = {401: "OPENAI_API_KEY", 403: "OPENAI_API_KEY", 429: "the account"}
        remedy = remedies.get(status, "OPENAI_BASE_URL, model")
        raise UserError(f"{self.url}: {words}; check {remedy}") from None

    def _in_short(self, words: str) -> str:
        """Return words on one line, without the key, which some servers repeat."""
        if len(self._key) >= SHORTEST_SECRET:
            words = words.replace(self._key, "***")
        return textwrap.shorten(words, 300, placeholder=" ...")


def _message_of(text: str) -> str:
    """Return what an error body says: OpenAI's ``error.message``, or where others have it."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return text
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"OPENAI_BASE_URL is {url!r}; set it to a URL as {OPENAI}")
    if parts.username is not None or parts.query:
        raise UserError(  # it is written to manifests and logs
            "OPENAI_BASE_URL holds a user name or a query; the key goes to OPENAI_API_KEY"
        )
    return url.rstrip("/")


def _checked_key(key: str) -> str:
    key = key.strip()
    if not key:
        raise UserError(
            "OPENAI_API_KEY is not set; set it to the server's key, or to any word for a server "
            "that asks for none"
        )
    if not key.isascii() or not key.isprintable() or " " in key:  # http.client would print it
        raise UserError("OPENAI_API_KEY holds characters that no key has; copy it anew")
    return key
