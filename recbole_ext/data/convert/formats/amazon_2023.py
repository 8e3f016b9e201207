"""Amazon 2023: ``X.jsonl.gz``, or the benchmark's ``X.csv.gz``, and ``meta_X.jsonl.gz``.

A product is its ``parent_asin``, which metadata has too: its colours and sizes are one. Times
are in milliseconds. The benchmark's parts ``X.train.csv``, ``X.valid.csv`` and ``X.test.csv`` are
put together, and RecBole splits anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from recbole_ext.data.convert.amazon import Amazon, addresses
from recbole_ext.data.convert.amazon_files import Head, category_of
from recbole_ext.data.convert.raw import Interaction, number, token
from recbole_ext.data.convert.records import Record

COLUMNS = ("user_id", "parent_asin", "rating", "timestamp")
"""Of a table; a review has them as keys."""
PARTS = (".train.", ".valid.", ".test.")
SIZES = ("hi_res", "large", "thumb")


class Format(Amazon):
    """Amazon 2023."""

    name = "amazon-2023"
    looked_for = "X.jsonl or X.csv or X.train.csv, X.valid.csv, X.test.csv (with meta_X.jsonl)"
    item_key = "parent_asin"
    brand_key = "store"
    head = ",".join(COLUMNS)

    @classmethod
    def is_reviews(cls, head: Head) -> bool:
        """Tell by the keys, or by the columns, after which a history may stand."""
        columns = head.rows[0][:4] if head.rows and not head.keys else ()
        return head.keys >= set(COLUMNS) or columns == COLUMNS

    @classmethod
    def is_metadata(cls, head: Head) -> bool:
        """Tell by the keys."""
        return "parent_asin" in head.keys and "user_id" not in head.keys

    @classmethod
    def groups(cls, reviews: list[Path]) -> list[list[Path]]:
        """Put the parts of a split together, and leave every other file alone."""
        found: dict[str, list[Path]] = {}
        for path in reviews:
            is_part = any(part in path.name for part in PARTS)
            found.setdefault(category_of(path) if is_part else str(path), []).append(path)
        return [sorted(paths, key=_place) for paths in found.values()]

    def rating(self, line: str) -> Interaction:
        """Read a line of a table: user, item, rating, milliseconds, and perhaps a history."""
        user_id, item_id, rating, time, *_ = line.split(",")
        return token(user_id), token(item_id), number(rating), number(time) / 1000

    def review(self, line: str) -> Interaction:
        """Read a review."""
        found = self.record(line)
        user_id, item_id = token(found["user_id"]), token(found["parent_asin"])
        return user_id, item_id, number(found["rating"]), number(found["timestamp"]) / 1000

    def links(self, record: Record) -> Iterator[str]:
        """Yield the address of each picture, at its largest."""
        pictures: Any = record.get("images")
        if isinstance(pictures, dict):
            pictures = _each(pictures)
        for one in pictures if isinstance(pictures, list) else ():
            sizes = one if isinstance(one, dict) else {}
            yield from next(filter(None, (list(addresses(sizes.get(s))) for s in SIZES)), ())


def _each(pictures: dict[str, Any]) -> list[dict[str, Any]]:
    """Turn a list for each size, as the datasets library writes them, to one for each picture."""
    sizes = {size: pictures[size] for size in SIZES if isinstance(pictures.get(size), list)}
    return [dict(zip(sizes, one, strict=True)) for one in zip_longest(*sizes.values())]


def _place(path: Path) -> int:
    return next((i for i, part in enumerate(PARTS) if part in path.name), 0)
