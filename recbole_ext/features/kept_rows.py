"""Rows that were costly to get, by their hash: on disk at once, in one file when all is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_ext.atomic import replacing
from recbole_ext.features.encoded import text_hash
from recbole_ext.types import UserError

Row = dict[str, Any]


class KeptRows:
    """Rows by hash, on disk as soon as they are added.

    Args:
        folder: Where they are kept.
        name: File of all of them; those of a batch are in ``part-<hash>.parquet``.
        columns: Of each row; the first is its hash.
        without: What happens when a damaged file is moved away: ``its texts are written anew``.

    Attributes:
        rows: Hash -> row.

    Raises:
        UserError: A file is damaged.
    """

    def __init__(self, folder: Path, name: str, columns: Sequence[str], without: str) -> None:
        self.folder, self.name = folder, name
        self._columns, self._without = list(columns), without
        self.rows: dict[str, Row] = {}
        self._read()

    def add(self, rows: Mapping[str, Row]) -> None:
        """Keep rows, by their hashes."""
        if rows:
            self._write(self.folder / f"part-{text_hash(''.join(rows))}.parquet", rows)
        self.rows.update(rows)

    def parts(self) -> list[Path]:
        """Return the files that are not merged yet."""
        return sorted(self.folder.glob("part-*.parquet"))

    def merge(self) -> None:
        """Put all rows into one file; only then are the others deleted."""
        parts = self.parts()
        if parts:
            self._read()
            self._write(self.folder / self.name, self.rows)
        for part in parts:
            part.unlink()

    def _read(self) -> None:
        for path in [self.folder / self.name, *self.parts()]:
            if path.is_file():
                self.rows.update({str(row[self._columns[0]]): row for row in self._rows_of(path)})

    def _rows_of(self, path: Path) -> list[Row]:
        try:
            table = pd.read_parquet(path, columns=self._columns)
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise UserError(
                f"{path} is damaged ({error}); move it away, and {self._without}"
            ) from error
        return table.astype(object).where(table.notna(), None).to_dict("records")

    def _write(self, path: Path, rows: Mapping[str, Row]) -> None:
        with replacing(path) as temporary:
            table = pd.DataFrame(list(rows.values()), columns=self._columns)
            table.to_parquet(temporary, index=False)
