"""Small stored features for the tests' tiny data set, made by a fake encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conftest import N_ITEMS, N_USERS

from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.manifest import Source

SIZE = 12
"""Width F of a fake vector."""


class Fake:
    """Encodes a text by its hash: the same text gets the same vector of unit length."""

    def __init__(self, size: int = SIZE, tokens: int = 0) -> None:
        self.source = Source("fake", f"{size}x{tokens}", {})
        self.size, self.tokens = size, tokens

    def encode(self, contents: Sequence[Any]) -> Encoded:
        """Return a vector, or up to ``tokens`` vectors, for each content."""
        n = max(1, self.tokens)
        values = np.stack([self._of(content, n) for content in contents])  # [b, T, F]
        if not self.tokens:
            return Encoded(values[:, 0])
        lengths = [1 + int(hashlib.md5(str(c).encode()).hexdigest(), 16) % n for c in contents]
        return Encoded(values, np.arange(n) < np.array(lengths)[:, None])

    def _of(self, content: Any, n: int) -> np.ndarray:
        seed = int(hashlib.md5(str(content).encode()).hexdigest()[:8], 16)
        found = np.random.default_rng(seed).normal(size=(n, self.size))
        return found / np.linalg.norm(found, axis=-1, keepdims=True)


def item_feature(
    folder: Path, name: str, *, tokens: int = 0, size: int = SIZE, missing: Sequence[int] = (3, 17)
) -> str:
    """Build a feature of the tiny items, some of them without it; return its folder."""
    texts = {f"i{i}": None if i in missing else f"{name} {i}" for i in range(N_ITEMS)}
    return write_feature(
        folder, name, texts, Subject(name, "text", "item", "tiny"), Fake(size, tokens)
    )


def user_feature(
    folder: Path,
    name: str,
    cutoff: float | None,
    *,
    missing: Sequence[int] = (2,),
    cutoffs: dict[str, float] | None = None,
) -> str:
    """Build a feature of the tiny users, with one cut-off or one of each; return its folder."""
    texts = {f"u{u}": None if u in missing else f"{name} {u}" for u in range(N_USERS)}
    subject = Subject(name, "text", "user", "tiny", cutoff=cutoff)
    return write_feature(folder, name, texts, subject, Fake(), cutoffs)


def write_feature(
    folder: Path,
    name: str,
    texts: Any,
    subject: Subject,
    encoder: Fake,
    cutoffs: dict[str, float] | None = None,
) -> str:
    """Build a feature of some texts; return its folder."""
    build(
        folder / name,
        texts,
        encoder,
        subject,
        Building(show_progress=False),
        cutoffs,
    )
    return str(folder / name)
