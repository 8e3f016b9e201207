"""Finds the cell of a dataset's files that is no number where one is meant.

Only after loading has failed: pandas and RecBole name the column at best, and a reader of ten
million lines wants the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

NUMBERS = ("float", "float_seq")
"""Types of columns whose cells are numbers, or several with ``seq_separator`` between."""


def bad_cell(config: Any) -> str | None:
    """Return a sentence about the first cell that is no number, or ``None`` where all are.

    Args:
        config: Settings of a dataset whose files are there and have a proper first line.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    parts = [f"{part}.inter" for part in config["benchmark_filename"] or ()] or ["inter"]
    sources = [*parts, "user", "item", *(config["additional_feat_suffix"] or ())]
    for path in (folder / f"{name}.{source}" for source in sources):
        if path.is_file():
            loaded = (config["load_col"] or {}).get(path.suffix[1:], "*")
            for number, column, cell in _cells(path, config, loaded):
                if not _is_number(cell, config["seq_separator"] if "_seq" in column else None):
                    return (
                        f"{path}, line {number}: '{cell}' in column {column} is not a number; "
                        "correct it"
                    )
    return None


def _cells(path: Path, config: Any, loaded: Any) -> Iterator[tuple[int, str, str]]:
    """Yield line, column with its type, and text of the cells that are to be numbers."""
    separator = config["field_separator"]
    with open(path, encoding=config["encoding"] or "utf-8") as stream:
        columns = stream.readline().rstrip("\r\n").split(separator)
        names = [column.partition(":")[0] for column in columns]
        numeric = [
            i
            for i, column in enumerate(columns)
            if column.endswith(NUMBERS) and (loaded == "*" or names[i] in loaded)
        ]
        for number, line in enumerate(stream, 2):
            cells = line.rstrip("\r\n").split(separator)
            yield from ((number, columns[i], cells[i]) for i in numeric if i < len(cells))


def _is_number(cell: str, separator: str | None) -> bool:
    """Return whether a cell is empty, a number, or several numbers with separators between."""
    try:
        for part in [cell] if separator is None else cell.split(separator):
            if part.strip():
                float(part)
    except ValueError:
        return False
    return True
