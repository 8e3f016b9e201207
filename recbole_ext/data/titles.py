"""Titles of items, straight from the item file: for people, not for models."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any


def read_titles(config: Any) -> dict[str, str]:
    """Return item token -> title, empty when the dataset has no item file or the file no title.

    The title is the first column whose name has ``title`` or ``name`` in it (``movie_title``).
    """
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    if not path.is_file():
        return {}
    with open(path, encoding=config["encoding"] or "utf-8", newline="") as stream:
        rows = csv.reader(stream, delimiter=config["field_separator"], quoting=csv.QUOTE_NONE)
        header = [column.partition(":")[0] for column in next(rows)]
        titled = [
            column for column in header if "title" in column.lower() or "name" in column.lower()
        ]
        if config["ITEM_ID_FIELD"] not in header or not titled:
            return {}
        item, title = header.index(config["ITEM_ID_FIELD"]), header.index(titled[0])
        return {row[item]: row[title] for row in rows if len(row) > max(item, title)}
