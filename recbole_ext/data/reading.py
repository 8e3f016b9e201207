"""Reads plain atomic files in a fraction of the time that pandas' Python engine takes.

RecBole reads with that engine. The readers here differ from it in quotes, in lines with too few or
too many cells, in carriage returns and in what is no number; a file with any of these is left to
RecBole, and so are its complaints. Everything else they read the same, cell by cell.
"""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
"""Cells that pandas takes for missing."""

EXACT = float(1 << 53)
"""Whole numbers from here on are rounded by one engine of pandas and not by the other."""

BLOCK = 1 << 20
"""Bytes that are decoded at a time, which bounds the memory for their text."""


def read_plain(
    path: str, *, delimiter: str, usecols: list[str], dtype: dict[str, Any], **options: Any
) -> pd.DataFrame | None:
    """Read a plain file as ``pandas.read_csv`` does for RecBole's ``_load_feat``; else ``None``.

    Columns of tokens are categorical, so that what is done to each cell is done to each token;
    ``*_seq`` columns have the empty string where a cell is missing, which RecBole fills in anyway.
    """
    content = Path(path).read_bytes()
    header = content[: content.find(b"\n")].decode(errors="replace").split(delimiter)
    if len(header) < 2 or not _is_plain(content, delimiter, options.get("encoding")):
        return None
    try:
        numbers = _numbers(content, delimiter, [c for c in usecols if dtype[c] is not str])
        tokens = _tokens(content, delimiter, [c for c in usecols if dtype[c] is str])
    except (ValueError, pa.ArrowException):
        return None
    columns = {**numbers, **tokens}
    if len({len(values) for values in columns.values()}) != 1:
        return None
    if any((np.abs(values) >= EXACT).any() for values in numbers.values()):
        return None
    return pd.DataFrame({column: columns[column] for column in header if column in columns})


def _is_plain(content: bytes, delimiter: str, encoding: str | None) -> bool:
    return (
        (encoding or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")
        and len(delimiter) == 1
        and delimiter.isascii()
        and not any(special in content for special in (b'"', b"\r", b"\0", b"\xef\xbb\xbf"))
        and (content.isascii() or _is_utf8(content))
    )


def _is_utf8(content: bytes) -> bool:
    """Tell whether all is text, in columns that nobody loads too; RecBole decodes every line."""
    blocks = (content[begin : begin + BLOCK] for begin in range(0, len(content), BLOCK))
    try:
        for _ in codecs.iterdecode(blocks, "utf-8"):
            pass
    except UnicodeDecodeError:
        return False
    return True


def _numbers(content: bytes, delimiter: str, columns: list[str]) -> dict[str, np.ndarray]:
    if not columns:
        return {}
    dtype = dict.fromkeys(columns, np.float64)
    frame = pd.read_csv(
        io.BytesIO(content), delimiter=delimiter, usecols=columns, dtype=dtype, engine="c"
    )
    return {column: frame[column].to_numpy() for column in columns}


def _tokens(content: bytes, delimiter: str, columns: list[str]) -> dict[str, Any]:
    """Return the cells of ``columns``; the reader makes sure that no line lacks or adds one."""
    lists = [column for column in columns if column.endswith("_seq")]
    kinds = dict.fromkeys(columns, pa.dictionary(pa.int32(), pa.string()))
    kinds.update(dict.fromkeys(lists, pa.string()))
    table = pyarrow.csv.read_csv(
        pa.BufferReader(content),
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=columns,
            column_types=kinds,
            null_values=MISSING,
            strings_can_be_null=True,
        ),
    )
    cells: dict[str, Any] = {column: table[column].to_pandas() for column in columns}
    return {**cells, **{column: cells[column].fillna("") for column in lists}}
