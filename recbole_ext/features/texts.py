"""Texts by token: from a dataset's ``.item`` file and a template, or from a file of texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_ext.features.template import Template
from recbole_ext.types import UserError

TEXT_COLUMNS = ("text", "description", "content")
"""Names of the column of texts, where there are more than two columns."""
FORMS = ".json, .jsonl, .csv, .tsv or .parquet"


def read_atomic(
    path: Path, encoding: str = "utf-8", separator: str = "\t"
) -> dict[str, dict[str, str]]:
    """Read an atomic file: token -> field -> text as it stands.

    Args:
        path: ``<dataset>.item`` or ``<dataset>.user``; its first column is the token.
        encoding: Of the file.
        separator: Between columns.

    Raises:
        UserError: Naming the file, and the line where it is about one.
    """
    try:
        with open(path, encoding=encoding, newline="") as stream:
            lines = (line.rstrip("\r\n").split(separator) for line in stream)
            fields = [column.partition(":")[0] for column in next(lines, [])]
            if len(fields) < 2:
                raise UserError(
                    f"{path}: the first line names no columns beside the token, as in "
                    "item_id:token<TAB>title:token_seq"
                )
            rows = ((number, line) for number, line in enumerate(lines, 2) if line != [""])
            found = _by_token(path, ((n, line[0], _row(path, n, fields, line)) for n, line in rows))
    except FileNotFoundError:
        raise UserError(
            f"there is no file {path}; name the fields of a dataset that has it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; is it the file that is meant?") from None
    if not found:
        raise UserError(f"{path} has no row below its first line; write a line for each token")
    return found


def _row(path: Path, number: int, fields: list[str], line: list[str]) -> dict[str, str]:
    if len(line) != len(fields):
        raise UserError(
            f"{path}, line {number}: {len(line)} columns where the first line has {len(fields)}; "
            "write as many"
        )
    return dict(zip(fields[1:], line[1:], strict=True))


def _by_token(path: Path, rows: Iterable[tuple[int, Any, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, token, row in rows:
        if str(token) in found:
            raise UserError(
                f"{path}, line {number}: the token '{token}' is there already; keep one"
            )
        found[str(token)] = row
    return found


def render(
    rows: Mapping[str, Mapping[str, str]], template: str, path: object
) -> dict[str, str | None]:
    """Fill a template for each token.

    Args:
        rows: Token -> field -> text.
        template: As ``{title} ({year})``; spaces that an empty field leaves are closed up.
        path: Named in errors.

    Returns:
        Token -> text, ``None`` where all of its fields are empty.

    Raises:
        UserError: See :class:`~recbole_ext.features.template.Template`.
    """
    fields = list(next(iter(rows.values()), {}))
    filled = Template(template, fields, f"template {template!r}: {path}")
    return {
        token: " ".join(filled.fill(row).split())
        if any(row[name].strip() for name in filled.fields)
        else None
        for token, row in rows.items()
    }


def read_texts(path: str | Path) -> dict[str, str | None]:
    """Read a file of texts: token -> text, ``None`` where it is empty.

    Args:
        path: ``.json`` (an object token -> text), ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet``;
            in a table the first column is the token, and the text is the second or the one named
            ``text``.

    Raises:
        UserError: Naming the file, and the line where it is about one.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
            pairs: Iterator[tuple[Any, Any]] = iter(found if _is_pairs(found) else _refuse(path))
        else:
            pairs = _pairs_of_table(path, read_table(path))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; name a file of texts ({FORMS})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; save it anew as {path.suffix}") from None
    found = _by_token(
        path, ((number, token, text) for number, (token, text) in enumerate(pairs, 1))
    )
    for token, text in found.items():
        if text is not None and not isinstance(text, str):
            raise UserError(
                f"{path}: the text of '{token}' is {text!r}, and no text; put it in quotes, or null"
            )
    return {token: (text or "").strip() or None for token, text in found.items()}


def _is_pairs(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(one, tuple) for one in found)


def _refuse(path: Path) -> Any:
    raise UserError(
        f'{path} is no object that maps a token to its text; write {{"<token>": "<text>", ...}}'
    )


def read_table(path: Path) -> pd.DataFrame:
    """Read a table whose first column is the token.

    Raises:
        UserError: By its name it is none.
    """
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True, dtype=False)
    if path.suffix in (".csv", ".tsv"):
        separator = "," if path.suffix == ".csv" else "\t"
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    raise UserError(f"{path}: no file of texts by its name; they come as {FORMS}")


def _pairs_of_table(path: Path, table: pd.DataFrame) -> Iterator[tuple[Any, Any]]:
    columns = list(table.columns)
    if len(columns) < 2:
        raise UserError(
            f"{path} has {len(columns)} columns; a token and a text are two: name a column for each"
        )
    text = columns[1]
    if len(columns) > 2:
        named = [column for column in columns[1:] if column in TEXT_COLUMNS]
        if len(named) != 1:
            raise UserError(
                f"{path}: which of the columns {', '.join(columns[1:])} is the text? name it 'text'"
            )
        text = named[0]
    values = table[text].astype(object).where(table[text].notna(), None)
    return zip(table[columns[0]].astype(str), values, strict=True)
