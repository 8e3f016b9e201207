"""Amazon 2014: ``reviews_X_5.json.gz`` or ``ratings_X.csv``, and ``meta_X.json.gz``.

The metadata, and the reviews that are no 5-core, are Python dicts and not JSON.
"""

from __future__ import annotations

from collections.abc import Iterator

from recbole_ext.data.convert.amazon import REVIEW, Amazon, addresses
from recbole_ext.data.convert.amazon_files import Head, column_of_items
from recbole_ext.data.convert.records import Record, from_json_or_literal


class Format(Amazon):
    """Amazon 2014."""

    name = "amazon-2014"
    looked_for = "reviews_X_5.json or ratings_X.csv (with meta_X.json)"

    @classmethod
    def is_reviews(cls, head: Head) -> bool:
        """Tell by the keys, or by the user who comes first."""
        return (head.keys >= REVIEW and "verified" not in head.keys) or column_of_items(head) == 1

    @classmethod
    def is_metadata(cls, head: Head) -> bool:
        """Tell by the keys."""
        theirs = {"imUrl", "categories", "salesRank", "related"}
        return "asin" in head.keys and "reviewerID" not in head.keys and bool(head.keys & theirs)

    def record(self, line: str) -> Record:
        """Read JSON or a Python dict."""
        return from_json_or_literal(line)

    def links(self, record: Record) -> Iterator[str]:
        """Yield the one address."""
        return addresses(record.get("imUrl"))
