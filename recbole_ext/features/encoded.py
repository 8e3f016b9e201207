"""What an encoder takes and gives: contents in, vectors and problems out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from recbole_ext.features.manifest import Source


@dataclass
class Encoded:
    """Vectors of a batch of contents.

    Attributes:
        values: [b, D], or [b, T, D] with T the same for all batches.
        mask: Which of T vectors count [b, T], or ``None``.
        problems: Place in the batch -> why this content has no vector; its values are ignored.
        cut: Which contents were longer than what is read of them [b]; ``None``: nobody knows.
    """

    values: np.ndarray
    mask: np.ndarray | None = None
    problems: dict[int, str] = field(default_factory=dict)
    cut: np.ndarray | None = None


class Encoder(Protocol):
    """Makes vectors; the same ones whatever else is in the batch."""

    source: Source

    def encode(self, contents: Sequence[Any]) -> Encoded:
        """Encode a batch of contents."""


class NoContent(Exception):
    """A content that cannot be had: its words are recorded, and the row is masked."""


def text_hash(content: str) -> str:
    """Return the hash of a text."""
    return hashlib.sha256(content.encode()).hexdigest()[:32]
