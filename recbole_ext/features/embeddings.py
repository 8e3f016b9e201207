"""Vectors of texts from an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recbole_ext.features.cost import tokens_of
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.endpoint import BadRequest, Endpoint, ServerFailed, TooLong
from recbole_ext.features.manifest import Source
from recbole_ext.types import UserError

HARMLESS = "a"
"""A text that no server refuses for what it says."""


class EndpointEncoder:
    """Encodes by ``/embeddings``.

    A text that the server refuses (it is too long, or not to its liking), or fails at each time, is
    a problem of its row; the others of its request are sent again without it. Where it refuses any
    text, or fails at any, it is asked no further.

    Args:
        endpoint: The server.
        model: As the server names it.
        request_size: Texts in a request.
        settings: What else the request has, in the protocol's words: ``{"dimensions": 256}``.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        request_size: int = 64,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.endpoint, self.model, self.request_size = endpoint, model, request_size
        self.settings = dict(settings or {})
        # A server does not tell which weights it has: its place and the model's name stand for it.
        self.source = Source(model, model, {"endpoint": endpoint.url, **self.settings})
        self._size: int | None = None  # D, once a vector is known
        self._answers = False  # whether there was a vector ever

    def encode(self, contents: Sequence[str]) -> Encoded:
        """Return the vectors of texts, [b, D] in float32."""
        size = self.request_size
        parts = [contents[begin : begin + size] for begin in range(0, len(contents), size)]
        found = [row for rows in self.endpoint.map(self._ask, parts) for row in rows]
        problems = {i: row for i, row in enumerate(found) if isinstance(row, str)}
        vectors = {i: row for i, row in enumerate(found) if not isinstance(row, str)}
        for vector in vectors.values():
            self._size = self._size or len(vector)
            if len(vector) != self._size:
                raise UserError(
                    f"{self.endpoint.url}: model '{self.model}' gives vectors of {self._size} and "
                    f"of {len(vector)} numbers; ask a server whose model stays the same"
                )
        values = np.zeros((len(found), self._size or 1), dtype=np.float32)  # [b, D]
        for i, vector in vectors.items():
            values[i] = vector
        return Encoded(values, None, problems)

    def _ask(self, texts: Sequence[str]) -> list[np.ndarray | str]:
        """Return the vector of each text, or why it has none."""
        body = {"model": self.model, "input": list(texts), "encoding_format": "float"}
        try:
            found = self.endpoint.post("embeddings", {**body, **self.settings}, tokens_of(texts))
        except (BadRequest, ServerFailed) as error:
            self._check(error)
            if len(texts) == 1:
                return [str(error)]
            middle = len(texts) // 2
            return self._ask(texts[:middle]) + self._ask(texts[middle:])
        vectors = self._in_order(found, len(texts))
        self._answers = True
        return list(vectors)

    def _check(self, error: BadRequest | ServerFailed) -> None:
        """Raise an error that is not about its text: a harmless text gets it too."""
        if isinstance(error, TooLong) or (self._answers and isinstance(error, BadRequest)):
            return
        body = {"model": self.model, "input": [HARMLESS], "encoding_format": "float"}
        try:
            self.endpoint.post("embeddings", {**body, **self.settings}, tokens_of([HARMLESS]))
        except (BadRequest, ServerFailed):  # a server may have gone since it last answered
            raise error from None
        self._answers = True

    def _in_order(self, found: dict[str, Any], n: int) -> list[np.ndarray]:
        """Return the n vectors of an answer in the order of the texts: an answer has its own."""
        try:
            by_index = {one["index"]: np.asarray(one["embedding"], float) for one in found["data"]}
            vectors = [by_index[i] for i in range(n)]  # n of [D]
            if len(found["data"]) == n and all(vector.ndim == 1 for vector in vectors):
                return vectors
        except (KeyError, TypeError, ValueError):
            pass
        raise UserError(
            f"{self.endpoint.url}: the answer of model '{self.model}' has no vector for each of "
            f"{n} texts; is it a model of embeddings? name one that is"
        )
