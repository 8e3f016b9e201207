"""What the versions of Amazon's reviews share: how a review and a product read."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, ClassVar

from recbole_ext.data.convert.amazon_files import Head, head_of, is_read, metadata_of
from recbole_ext.data.convert.lines import Lines
from recbole_ext.data.convert.raw import Described, Interaction, RawFormat, cells, number, token
from recbole_ext.data.convert.records import Record, from_json
from recbole_ext.data.convert.text import flat, plain, price, words

REVIEW = {"reviewerID", "asin", "overall", "unixReviewTime"}
"""Keys of a review of 2014 and of 2018."""
_PAGE_CODE = "getTime"
"""In the titles of products of 2018 whose page was not understood, as their authors say."""


class Amazon(RawFormat):
    """A version with reviews (or ratings alone) and metadata of products.

    Attributes:
        item_key: Key of the product in its metadata.
        brand_key: And of its brand.
        category_key: And of its categories.
        head: First line of a table, where it names the columns.
    """

    item_columns = (
        *("title:token_seq", "brand:token", "categories:token_seq"),
        *("description:token_seq", "price:float"),
    )
    has_links = True
    item_key: ClassVar[str] = "asin"
    brand_key: ClassVar[str] = "brand"
    category_key: ClassVar[str] = "categories"
    head: ClassVar[str] = ""

    @classmethod
    def find(cls, source: Path) -> list[RawFormat]:
        """Return the sets of files in a folder, or the one whose reviews a file has."""
        folder = source if source.is_dir() else source.parent
        heads = {path: head_of(path) for path in sorted(folder.iterdir()) if is_read(path)}
        reviews = [path for path, head in heads.items() if cls.is_reviews(head)]
        metadata = [path for path, head in heads.items() if cls.is_metadata(head)]
        return [
            cls(paths, metadata_of(paths[0], metadata))
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
                yield from lines(path, self.rating, head=self.head)
            else:
                yield from lines(path, self.review)

    def rating(self, line: str) -> Interaction:
        """Read a line of ratings alone: user, item, rating, time."""
        user_id, item_id, rating, time = cells(line, ",", 4)
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


def addresses(value: Any) -> Iterator[str]:
    """Yield the addresses in a value: one, or a list of them."""
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, str) and one.strip():
            yield one.strip()
