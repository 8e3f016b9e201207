"""Amazon 2018: ``X.json.gz``, ``X_5.json.gz`` or ``X.csv``, and ``meta_X.json.gz``."""

from __future__ import annotations

from collections.abc import Iterator

from recbole_ext.data.convert.amazon import REVIEW, Amazon, addresses
from recbole_ext.data.convert.amazon_files import Head, column_of_items
from recbole_ext.data.convert.raw import Interaction, cells, number, token
from recbole_ext.data.convert.records import Record


class Format(Amazon):
    """Amazon 2018."""

    name = "amazon-2018"
    looked_for = "X.json or X_5.json or X.csv (with meta_X.json)"
    category_key = "category"

    @classmethod
    def is_reviews(cls, head: Head) -> bool:
        """Tell by the keys, or by the item that comes first."""
        return head.keys >= REVIEW | {"verified"} or column_of_items(head) == 0

    @classmethod
    def is_metadata(cls, head: Head) -> bool:
        """Tell by the keys."""
        theirs = {"category", "main_cat", "also_buy", "imageURL", "imageURLHighRes"}
        return "asin" in head.keys and "reviewerID" not in head.keys and bool(head.keys & theirs)

    def rating(self, line: str) -> Interaction:
        """Read a line of ratings alone: item, user, rating, time; 2014 has the user first."""
        item_id, user_id, rating, time = cells(line, ",", 4)
        return token(user_id), token(item_id), number(rating), number(time)

    def links(self, record: Record) -> Iterator[str]:
        """Yield the addresses of large pictures, or else of small ones."""
        for key in ("imageURLHighRes", "imageURL", "image"):
            if record.get(key):
                return addresses(record[key])
        return iter(())
