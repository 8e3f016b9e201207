"""Amazon's files, told apart by their names and first lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from recbole_ext.data.convert.lines import first_lines
from recbole_ext.data.convert.records import from_json_or_literal
from recbole_ext.types import UserError

SUFFIXES = (".json", ".jsonl", ".csv")
ASIN = re.compile(r"B[0-9A-Z]{9}|\d{9}[\dX]")
"""A product; a reviewer of 2014 or 2018 is an A with up to twenty more."""
HEAD = 100
"""Lines of a file that are looked at to tell what it is; a record may lack some keys."""
_PARTS = re.compile(r"^(?:reviews|ratings|meta)_|(?:_\d+)?(?:\.(?:train|valid|test))?(?:\.\w+)+$")


@dataclass(frozen=True)
class Head:
    """What the first lines of a file show.

    Attributes:
        keys: Of their records, of one or another.
        rows: Cells with commas between, where they are no records.
    """

    keys: frozenset[str]
    rows: tuple[tuple[str, ...], ...]


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


def is_read(path: Path) -> bool:
    """Tell whether a file may be one of Amazon's, by its name."""
    return path.is_file() and path.name.removesuffix(".gz").endswith(SUFFIXES)


def metadata_of(reviews: Path, metadata: list[Path]) -> Path | None:
    """Return the metadata of reviews: the only one there, or that of the same category.

    Raises:
        UserError: There are several, and none or more than one is of that category.
    """
    if len(metadata) < 2:
        return metadata[0] if metadata else None
    same = [path for path in metadata if category_of(path) == category_of(reviews)]
    if len(same) != 1:
        raise UserError(
            f"{reviews.parent} has metadata in {', '.join(path.name for path in metadata)}, and "
            f"which belongs to {reviews.name}? leave one of them there"
        )
    return same[0]
