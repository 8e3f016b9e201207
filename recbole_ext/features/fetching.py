"""Gets a picture over HTTP, and nothing that is none or too large."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from recbole_ext.features.pace import Pace
from recbole_ext.features.public_hosts import NotPublic, PublicHTTPHandler, PublicHTTPSHandler
from recbole_ext.features.retrying import Again, GaveUp, reason_of, retry_after, with_retries

TIMEOUT = 30.0
"""Seconds without a byte after which an answer is given up."""
LONGEST_ANSWER = 300.0
"""Seconds after which it is too, though now and then a byte came."""
BLOCK = 1 << 16
SIGNATURES: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    (".jpg", lambda data: data.startswith(b"\xff\xd8\xff")),
    (".png", lambda data: data.startswith(b"\x89PNG\r\n\x1a\n")),
    (".gif", lambda data: data.startswith((b"GIF87a", b"GIF89a"))),
    (".webp", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP"),
    (".bmp", lambda data: data.startswith(b"BM")),
)
"""How files of the kinds begin that ``features image`` reads."""
_BLANK = b"\x01\x00\x01\x00"
"""Size in the head of a GIF of one pixel, which Amazon sends for a picture that it has not."""


@dataclass(frozen=True)
class Fetched:
    """A picture: its bytes, and the suffix that fits them."""

    data: bytes
    suffix: str


class Refused(Exception):
    """There is no picture, for a reason in words; ``gone`` where the server says there is none."""

    def __init__(self, words: str, gone: bool = False) -> None:
        super().__init__(words)
        self.gone = gone


class Fetcher:
    """Gets pictures.

    Args:
        pace: Limit of the requests, tries counted.
        max_bytes: A larger picture is refused.
        max_retries: Tries after the first, on 429, 5xx and where no answer comes.
        local_servers: Whether servers of one's own network are asked too.
    """

    def __init__(
        self, pace: Pace, max_bytes: int, max_retries: int = 3, local_servers: bool = False
    ) -> None:
        self.pace, self.max_bytes, self.max_retries = pace, max_bytes, max_retries
        self._opener = OpenerDirector()  # none for file:, ftp: and data:, where a redirect may lead
        public = (PublicHTTPHandler, PublicHTTPSHandler)
        for handler in (
            *(ProxyHandler, UnknownHandler),
            *((HTTPHandler, HTTPSHandler) if local_servers else public),
            *(HTTPDefaultErrorHandler, HTTPRedirectHandler, HTTPErrorProcessor),
        ):
            self._opener.add_handler(handler())

    def __call__(self, url: str) -> Fetched:
        """Return the picture of an address.

        Raises:
            Refused: There is none, after all tries.
        """
        host = _host(url)
        asked = quote(url, safe="%/:?#[]@!$&'()*+,;=~")  # blanks and umlauts, as browsers send them
        try:
            data = with_retries(lambda: self._get(asked), self.pace, 1, self.max_retries, host)
        except GaveUp as failure:
            raise Refused(str(failure)) from None
        return Fetched(data, _suffix(data))

    def _get(self, url: str) -> bytes:
        request = Request(url, headers={"User-Agent": "recbole-ext", "Accept": "image/*"})
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return self._read(answer)
        except HTTPError as error:
            with error:
                self._explain(error)
        except NotPublic as error:
            raise Refused(str(error)) from None
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, ValueError) or "unknown url type" in str(error):
                raise Refused(f"cannot be asked for ({reason_of(error)})") from None
            # of many hosts one may be dead: only this picture waits
            raise Again(f"no answer ({reason_of(error)})", for_all=False) from None

    def _read(self, answer: Any) -> bytes:
        kind, began = answer.headers.get_content_type(), time.monotonic()
        if not kind.startswith("image/") and not kind.endswith("/octet-stream"):
            raise Refused(f"{kind}, no picture")
        size = answer.headers.get("Content-Length")
        size = int(size) if size and size.isdecimal() else None
        if size is None or size <= self.max_bytes:
            data = bytearray()
            while len(data) <= self.max_bytes and (part := answer.read1(BLOCK)):
                data += part
                if time.monotonic() - began > LONGEST_ANSWER:
                    raise Refused(f"it takes longer than {LONGEST_ANSWER:g} s")
            if size is not None and len(data) < size:
                raise Again("cut off on the way", for_all=False)
            if len(data) <= self.max_bytes:
                return bytes(data)
        raise Refused(f"larger than {self.max_bytes / 2**20:g} MiB")

    def _explain(self, error: HTTPError) -> NoReturn:
        """Raise what an answer with an error status means."""
        words = f"{error.code} {error.reason}"[:200]
        if error.code in (404, 410):
            raise Refused(words, gone=True) from None
        if error.code == 429 or error.code >= 500:
            after = retry_after(error.headers.get("Retry-After"))
            raise Again(words, after, for_all=error.code in (429, 503)) from None
        raise Refused(words) from None


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts.hostname
    except ValueError:
        pass
    raise Refused("no address that begins with http:// or https://")


def _suffix(data: bytes) -> str:
    for suffix, is_one in SIGNATURES:
        if is_one(data):
            if suffix == ".gif" and data[6:10] == _BLANK:
                raise Refused("a blank of one pixel")
            return suffix
    raise Refused("no JPEG, PNG, GIF, WEBP or BMP, whatever its type says")
