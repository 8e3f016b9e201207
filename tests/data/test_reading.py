"""The fast reader against pandas' Python engine, with which RecBole reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_ext.data import reading
from recbole_ext.data.reading import MISSING, read_plain

HEADER = "user:token\titem:token\ttime:float\ttags:token_seq\tparts:float_seq"


def read(path: Path, text: str, columns: list[str] | None = None, **more: Any) -> Any:
    """Return what the reader makes of a file, and a function that reads it like RecBole."""
    path.write_bytes(text.encode())
    usecols = columns or HEADER.split("\t")
    options = {
        "delimiter": "\t",
        "usecols": usecols,
        "dtype": {c: np.float64 if c.endswith("float") else str for c in usecols},
        "encoding": None,
        **more,
    }

    def slowly() -> pd.DataFrame:
        return pd.read_csv(path, engine="python", **options)

    return read_plain(str(path), engine="python", **options), slowly


def assert_same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    assert list(found) == list(wanted) and len(found) == len(wanted)
    for column in wanted:
        cells = wanted[column].fillna("") if column.endswith("_seq") else wanted[column]
        for a, b in zip(found[column].tolist(), cells.tolist(), strict=True):
            assert a == b or (pd.isna(a) and pd.isna(b)), (column, a, b)


def table(tokens: list[str], numbers: list[str]) -> str:
    """A file that has each token and each number."""
    n = max(len(tokens), len(numbers))
    lines = [HEADER]
    for i in range(n):
        token, number = tokens[i % len(tokens)], numbers[i % len(numbers)]
        lines.append(f"{token}\t{tokens[-1 - i % len(tokens)]}\t{number}\t{token} {token}\t{token}")
    return "\n".join(lines) + "\n"


TOKENS = [
    "a",
    "1",
    "01",
    "1.0",
    " x",
    "x ",
    "é",
    "a b",
    "#",
    "-",
    "True",
    "'q'",
    "\\",
    "\x0b",
    "\u2028",
]
NUMBERS = [
    "1",
    "0.5",
    "-2",
    " 3",
    "4 ",
    "1e5",
    "1E-7",
    "+5",
    ".5",
    "5.",
    "00012",
    "978300760",
]
LONG = ["0.1234567890123456789", "123456789.12345678912", "4.9e-324", "1e-400"]


@pytest.mark.parametrize("n_columns", [1, 3, 5])
def test_plain_files_are_read_the_same(tmp_path: Path, n_columns: int) -> None:
    text = table(TOKENS + list(MISSING), NUMBERS + LONG + ["nan", "NA", ""])
    columns = HEADER.split("\t")[-n_columns:]
    found, slowly = read(tmp_path / "x.inter", text, columns)
    assert_same(found, slowly())


def test_our_words_for_missing_cells_are_those_of_pandas(tmp_path: Path) -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    assert set(MISSING) == STR_NA_VALUES


@pytest.mark.parametrize("end", ["\n", "", "\n\n\n"])
def test_empty_lines(tmp_path: Path, end: str) -> None:
    text = f"{HEADER}\na\tb\t1\tc\t1\n\na\tb\t1\tc\t1{end}"
    found, slowly = read(tmp_path / "x.inter", text)
    assert len(found) == 2
    assert_same(found, slowly())


def test_tokens_are_categories_and_no_numbers(tmp_path: Path) -> None:
    """pandas takes 1 and 01 for one category, where all tokens are numbers."""
    found, _ = read(tmp_path / "x.inter", table(["1", "01"], ["1"]))
    assert found["user:token"].tolist() == ["1", "01"]
    assert isinstance(found["user:token"].dtype, pd.CategoricalDtype)


@pytest.mark.parametrize(
    "line",
    [
        'a\t"b\tc"\t1\tt\t1',
        'a\t"b\t1\tt\t1',
        "a\tb\t1",
        "a\tb\t1\tt\t1\textra",
        "   ",
        "a\tb\t1\tt\t1\r",
        "a\tb\tone\tt\t1",
        "a\tb\t1_0\tt\t1",
        "a\tb\t9007199254740993\tt\t1",
        "a\tb\tinf\tt\t1",
        "a\tb\0\t1\tt\t1",
    ],
)
def test_files_that_are_not_plain_are_left_to_recbole(tmp_path: Path, line: str) -> None:
    found, _ = read(tmp_path / "x.inter", f"{HEADER}\na\tb\t1\tt\t1\n{line}\n")
    assert found is None


@pytest.mark.parametrize(
    "more", [{"delimiter": "::"}, {"encoding": "latin-1"}, {"encoding": "utf-8-sig"}]
)
def test_other_separators_and_encodings_are_left_to_recbole(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    found, _ = read(tmp_path / "x.inter", table(TOKENS, NUMBERS), **more)
    assert found is None


@pytest.mark.parametrize(
    "cells", [b"a\t\xe9", b"\xe9\ta", "\t\u00e9".encode("latin-1"), b"a\t\xc3"]
)
@pytest.mark.parametrize("n_columns", [1, 2, 3])
def test_no_utf8_is_left_to_recbole(tmp_path: Path, cells: bytes, n_columns: int) -> None:
    """In columns that are not loaded too."""
    path = tmp_path / "x.inter"
    path.write_bytes(b"time:float\titem:token\tuser:token\n1\t" + cells)
    types = {"time:float": np.float64, "item:token": str, "user:token": str}
    options = {"delimiter": "\t", "usecols": list(types)[:n_columns], "dtype": types}
    assert read_plain(str(path), **options) is None
    with pytest.raises(UnicodeDecodeError):
        pd.read_csv(path, engine="python", **options)


@pytest.mark.parametrize("block", [1, 2, 3, 1 << 20])
def test_text_is_text_however_it_is_cut(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK", block)
    found, slowly = read(tmp_path / "x.inter", table(["é", "\u2028", "\U0001f3ac"], ["1"]))
    assert_same(found, slowly())


def test_a_file_of_one_column_is_left_to_recbole(tmp_path: Path) -> None:
    (tmp_path / "x.item").write_text("item:token\na\n")
    options = {"usecols": ["item:token"], "dtype": {"item:token": str}}
    assert read_plain(str(tmp_path / "x.item"), delimiter="\t", **options) is None
