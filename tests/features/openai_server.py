"""A server of OpenAI's protocol on this machine, which can also misbehave as told."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

KEY = "sk-secret-0123456789"
SIZE = 4
LIMIT = 100
"""Characters of an input; OpenAI counts tokens."""
MESSAGE_TOO_LONG = (
    "This model's maximum context length is 8192 tokens, however you requested 9001 tokens"
)


def vector_of(text: str) -> np.ndarray:
    """Return a vector that a text alone decides, in numbers that float16 has exactly."""
    digest = hashlib.sha256(text.encode()).digest()
    return np.frombuffer(digest[:SIZE], dtype=np.uint8).astype(np.float32) / 4  # [D]


def answer_of(prompt: str) -> str:
    return f"An answer to {hashlib.sha256(prompt.encode()).hexdigest()[:8]}."


def failure(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}


class Server:
    """What was asked, and what is to come before the usual answers.

    Attributes:
        url: To give as OPENAI_BASE_URL.
        asked: (path, body) of every request.
        next: (status, headers, body) of the next answers; a body that is text is sent as it is.
            An event instead is waited for, then the answer is as usual; ``None`` is as usual.
        fails_at: Words; inputs that have them are answered with 500 each time.
        pause: Seconds that a usual answer takes.
        most_at_once: Requests that were in work together.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.next: list[Any] = []
        self.most_at_once = 0
        self._in_work = 0
        self._lock = threading.Lock()
        self.pause = 0.0
        self.fails_at: str | None = None

    def inputs(self) -> list[str]:
        return [text for path, body in self.asked if path == "embeddings" for text in body["input"]]

    def prompts(self) -> list[str]:
        return [body["messages"][0]["content"] for _, body in self.asked if "messages" in body]

    def answer(self, path: str, key: str | None, body: dict[str, Any]) -> tuple[int, dict, Any]:
        with self._lock:
            self.asked.append((path, body))
            self._in_work += 1
            self.most_at_once = max(self.most_at_once, self._in_work)
            scripted = self.next.pop(0) if self.next else None
        try:
            if isinstance(scripted, tuple):
                return scripted
            if scripted is not None:
                scripted.wait(30)
            time.sleep(self.pause)
            return self._usual(path, key, body)
        finally:
            with self._lock:
                self._in_work -= 1

    def _usual(self, path: str, key: str | None, body: dict[str, Any]) -> tuple[int, dict, Any]:
        if key != f"Bearer {KEY}":
            return 401, {}, failure(f"Incorrect API key provided: {key}", "invalid_api_key")
        if path == "embeddings":
            if self.fails_at is not None and any(self.fails_at in text for text in body["input"]):
                return 500, {}, failure("out of memory")
            if any(len(text) > LIMIT for text in body["input"]):
                return 400, {}, failure(MESSAGE_TOO_LONG)
            data = [
                {"object": "embedding", "index": i, "embedding": vector_of(text).tolist()}
                for i, text in enumerate(body["input"])
            ]
            return 200, {}, {"object": "list", "data": data[::-1]}  # last first: index counts
        if path == "chat/completions":
            message = {"role": "assistant", "content": answer_of(body["messages"][0]["content"])}
            return 200, {}, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        return 404, {}, failure(f"unknown path {path}")


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server on a free port of this machine."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = self.path.removeprefix("/v1/")
            status, headers, found = server.answer(path, self.headers["Authorization"], body)
            data = (found if isinstance(found, str) else json.dumps(found)).encode()
            try:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # the client gave up

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
