"""Small files in the forms in which the datasets are handed out, written by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from recbole_ext.data.convert.conversion import Conversion, convert
from recbole_ext.data.convert.filters import Filters
from recbole_ext.data.convert.registry import find_raw


def write(path: Path, *lines: str | bytes, encoding: str = "utf-8") -> Path:
    """Write lines, packed where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join((x if isinstance(x, bytes) else x.encode(encoding)) + b"\n" for x in lines)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def records(path: Path, *rows: Any, literal: bool = False) -> Path:
    """Write a record a line: JSON, or Python dicts as Amazon's metadata of 2014 is."""
    return write(path, *(repr(row) if literal else json.dumps(row) for row in rows))


def flags(*places: int) -> str:
    """Nineteen flags of genres, as in u.item."""
    return "|".join("1" if i in places else "0" for i in range(19))


def convert_files(
    source: Path, out: Path, family: str = "amazon", overwrite: bool = False, **filters: Any
) -> Conversion:
    """Convert with some filters, by default without any."""
    return convert(find_raw(family, source), out, out.name, Filters(**filters), overwrite)


def rows(path: Path) -> list[list[str]]:
    """Cells of an atomic file, whose lines must all have as many."""
    found = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")]
    assert found.pop() == [""] and len({len(row) for row in found}) == 1
    return found


def reviews_2018(*quads: tuple[str, str, float, int]) -> list[dict[str, Any]]:
    """Reviews of 2018: user, item, rating, seconds."""
    return [
        {
            **{"overall": rating, "verified": True, "reviewTime": "05 5, 2018"},
            **{"reviewerID": user, "asin": item, "unixReviewTime": time},
            **{"reviewText": 'says "it\twas" fine', "summary": "Fine"},
        }
        for user, item, rating, time in quads
    ]
