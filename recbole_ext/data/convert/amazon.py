"""What the versions of Amazon's reviews share: how files are told apart, and how products read."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from recbole_ext.data.convert.lines import Lines, first_lines
from recbole_ext.data.convert.raw import Described, Interaction, RawFormat, number, token
from recbole_ext.data.convert.text import flat, plain, price, words
from recbole_ext.types import UserError

Record = Mapping[str, Any]
SUFFIXES = (".json", ".jsonl", ".csv")
REVIEW = {"reviewerID", "asin", "overall", "unixReviewTime"}
"""Keys of a review of 2014 and of 2018."""
ASIN = re.compile(r"B[0-9A-Z]{9}|\d{9}[\dX]")
"""A product; a reviewer of 2014 or 2018 is an A with up to twenty more."""
HEAD = 100
"""Lines of a file that are looked at to tell what it is; a record may lack some keys."""
_PARTS = re.compile(r"^(?:reviews|ratings|meta)_|(?:_\d+)?(?:\.(?:train|valid|test))?(?:\.\w+)+$")
_PAGE_CODE = "getTime"
"""In the titles of products of 2018 whose page was not understood, as their authors say."""


@dataclass(frozen=True)
class Head:
    """What the first lines of a file show.

    Attributes:
        keys: Of their records, of one or another.
        rows: Cells with commas between, where they are no records.
    """

    keys: frozenset[str]
    rows: tuple[tuple[str, ...], ...]


class Amazon(RawFormat):
    """A version with reviews (or ratings alone) and metadata of products.

    Attributes:
        item_key: Key of the product in its metadata.
        brand_key: And of its brand.
        category_key: And of its categories.
        has_head: Whether the first line of a table names its columns.
    """

    item_columns = (
        *("title:token_seq", "brand:token", "categories:token_seq"),
        *("description:token_seq", "price:float"),
    )
    has_links = True
    item_key: ClassVar[str] = "asin"
    brand_key: ClassVar[str] = "brand"
    category_key: ClassVar[str] = "categories"
    has_head: ClassVar[bool] = False

    @classmethod
    def find(cls, source: Path) -> list[RawFormat]:
        """Return the sets of files in a folder, or the one whose reviews a file has."""
        folder = source if source.is_dir() else source.parent
        heads = {path: head_of(path) for path in sorted(folder.iterdir()) if _is_read(path)}
        reviews = [path for path, head in heads.items() if cls.is_reviews(head)]
        metadata = [path for path, head in heads.items() if cls.is_metadata(head)]
        return [
            cls(paths, _metadata_of(paths[0], metadata))
            for paths in cls.groups(reviews)
            if source in (folder, *paths)
        ]

    @classmethod
    def groups(cls, reviews: list[Path]) -> list[list[Path]]:
        """Return the files that are one set of interactions each."""
        return [[path] for path in reviews]

    @classmethod
    def is_reviews(cls, head: Head) -> bool:
        """Tell whether a file has reviews, or ratings alone, of this version."""
        raise NotImplementedError

    @classmethod
    def is_metadata(cls, head: Head) -> bool:
        """Tell whether a file has metadata of this version."""
        raise NotImplementedError

    def read_interactions(self, lines: Lines) -> Iterator[Interaction]:
        """Yield the ratings."""
        for path in self.interactions:
            if ".csv" in path.suffixes:
                yield from lines(path, self.rating, head=self.has_head)
            else:
                yield from lines(path, self.review)

    def rating(self, line: str) -> Interaction:
        """Read a line of ratings alone: user, item, rating, time."""
        user_id, item_id, rating, time = line.split(",")
        return token(user_id), token(item_id), number(rating), number(time)

    def review(self, line: str) -> Interaction:
        """Read a review."""
        found = self.record(line)
        user_id, item_id = token(found["reviewerID"]), token(found["asin"])
        return user_id, item_id, number(found["overall"]), number(found["unixReviewTime"])

    def record(self, line: str) -> Record:
        """Read a line that is a record."""
        return from_json(line)

    def read_items(self, lines: Lines, wanted: Container[str]) -> Iterator[Described]:
        """Yield the products."""
        if self.items is None:
            return
        for item_id, record in lines(self.items, self._product):
            if item_id in wanted:
                yield Described(item_id, self._cells(record, lines), tuple(self.links(record)))

    def _product(self, line: str) -> tuple[str, Record]:
        record = self.record(line)
        return token(record[self.item_key]), record

    def _cells(self, record: Record, lines: Lines) -> tuple[str, ...]:
        title, cost = record.get("title"), price(record.get("price"))
        if isinstance(title, str) and _PAGE_CODE in title:
            title = ""
            lines.notes["titles that are the code of a page"] += 1
        if cost is None:
            lines.notes["prices that are none"] += 1
        return (
            plain(title),
            plain(record.get(self.brand_key)),
            words(flat(record.get(self.category_key))),
            plain(record.get("description")),
            cost or "",
        )

    def links(self, record: Record) -> Iterator[str]:
        """Yield the addresses of a product's pictures."""
        raise NotImplementedError


def from_json(line: str) -> Record:
    """Return the record of a line of JSON."""
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("brackets within brackets without end") from None
    if not isinstance(found, dict):
        raise ValueError("no record, as {...} is")
    return found


def from_json_or_literal(line: str) -> Record:
    """Return the record of a line of JSON, or of a Python dict, which is read and never run."""
    try:
        return from_json(line)
    except ValueError:
        pass
    try:
        found = ast.literal_eval(line)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError("neither JSON nor a Python dict") from None
    if not isinstance(found, dict):
        raise ValueError("no record, as {...} is")
    return found


def addresses(value: Any) -> Iterator[str]:
    """Yield the addresses in a value: one, or a list of them."""
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, str) and one.strip():
            yield one.strip()


def head_of(path: Path) -> Head:
    """Return what the first lines of a file show."""
    keys: set[str] = set()
    rows = []
    for line in first_lines(path, HEAD):
        try:
            keys.update(map(str, from_json_or_literal(line)))
        except ValueError:
            rows.append(tuple(line.split(",")))
    return Head(frozenset(keys), tuple(rows))


def column_of_items(head: Head) -> int | None:
    """Return which of the first two of four cells is a product, where one is and one is none."""
    rows = [row for row in head.rows if len(row) == 4]
    if not rows or head.keys:
        return None
    counts = [sum(bool(ASIN.fullmatch(row[i])) for row in rows) for i in (0, 1)]
    is_item = [2 * count > len(rows) for count in counts]  # a few lines may be malformed
    return is_item.index(True) if sum(is_item) == 1 else None


def category_of(path: Path) -> str:
    """Return the category that a file's name has: ``Beauty`` of ``reviews_Beauty_5.json.gz``."""
    return _PARTS.sub("", path.name)


def _is_read(path: Path) -> bool:
    return path.is_file() and path.name.removesuffix(".gz").endswith(SUFFIXES)


def _metadata_of(reviews: Path, metadata: list[Path]) -> Path | None:
    if len(metadata) < 2:
        return metadata[0] if metadata else None
    same = [path for path in metadata if category_of(path) == category_of(reviews)]
    if len(same) != 1:
        raise UserError(
            f"{reviews.parent} has metadata in {', '.join(path.name for path in metadata)}, and "
            f"which belongs to {reviews.name}? leave one of them there"
        )
    return same[0]
