"""A server of pictures on this machine, which answers as told."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


def picture(kind: str = "JPEG", size: tuple[int, int] = (4, 3), colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


class Pictures:
    """What was asked, and what is answered.

    Attributes:
        url: Of the server.
        asked: Path -> how often.
        answers: Path -> (status, headers, body), or a list of these for one request after another,
            whose last stays. An unknown path is 404.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: Counter[str] = Counter()
        self.answers: dict[str, Any] = {}
        self._lock = threading.Lock()

    def put(self, path: str, body: bytes, kind: str = "image/jpeg", **headers: str) -> str:
        """Have a picture at a path, and return its address."""
        self.answers[path] = (200, {"Content-Type": kind, **headers}, body)
        return self.url + path

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        with self._lock:
            self.asked[path] += 1
            found = self.answers.get(path, (404, {}, b"none"))
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
        return found


@contextmanager
def serving_pictures() -> Iterator[Pictures]:
    """Run a server on a free port of this machine."""
    pictures = Pictures()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = pictures.answer(self.path)
            try:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # the client gave up

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    pictures.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield pictures
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
