"""Titles of items, straight from the item file: for people, not for models."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recbole_ext.types import UserError


def read_titles(config: Any) -> dict[str, str]:
    """Return item token -> title, empty when the dataset has no item file or the file no title.

    The title is the first column whose name has ``title`` or ``name`` in it (``movie_title``).

    Raises:
        UserError: The file cannot be read.
    """
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    if not path.is_file():
        return {}
    try:
        with open(path, encoding=config["encoding"] or "utf-8", newline="") as stream:
            rows = csv.reader(stream, delimiter=config["field_separator"], quoting=csv.QUOTE_NONE)
            return _titles(path, rows, config["ITEM_ID_FIELD"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}; save it anew, or set encoding") from None


def _titles(path: Path, rows: Iterator[list[str]], item_field: str) -> dict[str, str]:
    header = [column.partition(":")[0] for column in next(rows, [])]
    if not header:
        raise UserError(f"{path} is empty; its first line names the columns, as item_id:token")
    titled = [c for c in header if "title" in c.lower() or "name" in c.lower()]
    if item_field not in header or not titled:
        return {}
    item, title = header.index(item_field), header.index(titled[0])
    return {row[item]: row[title] for row in rows if len(row) > max(item, title)}
