"""A feature on disk: an array of vectors, whose rows have tokens, and what is known of them.

A folder holds ``manifest.json`` and, named by its generation, ``values-*.npy`` (float16 or float32,
memory-mapped), ``rows-*.parquet`` (``token``, ``present``, ``content``, ``problem``; ``cutoff``
where contents were made from interactions; ``cut`` where it is known which contents were too long)
and, where a row has several vectors, ``mask-*.npy``. The manifest is written last and names the
others, so that a reader sees one generation or the other, whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_ext.features.manifest import Manifest, read_manifest
from recbole_ext.types import UserError

CHUNK_BYTES = 1 << 26
"""So much of an array is looked at together."""


def file_of(folder: Path, part: str, generation: str) -> Path:
    """Return the file of a part (``values``, ``mask``, ``rows``) of a generation."""
    return folder / f"{part}-{generation}.{'parquet' if part == 'rows' else 'npy'}"


@dataclass(frozen=True)
class Aligned:
    """A feature by internal id.

    Attributes:
        values: The stored array [n, D] or [n, T, D], memory-mapped.
        mask: Which of a row's vectors count [n, T], or ``None`` where it has one.
        place: Row of each internal id in ``values`` [N], -1 where it has no vector.
        n_unknown: Stored tokens that the dataset does not have.
        cutoffs: Time up to which interactions went into the content of each internal id [N], NaN
            where it has none; ``None`` where nothing is made from interactions, or nobody knows.
        path: File of the values, for messages.
        tokens: External token of each internal id [N], for messages.
    """

    values: np.ndarray
    mask: np.ndarray | None
    place: np.ndarray
    n_unknown: int
    cutoffs: np.ndarray | None = None
    path: Path | None = None
    tokens: Sequence[Any] | np.ndarray | None = None

    @property
    def present(self) -> np.ndarray:
        """Which internal ids have a vector [N]."""
        return self.place >= 0

    def take(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors of ids, and which of them count.

        Args:
            ids: Internal ids [B].

        Returns:
            [B, D] and [B], or [B, T, D] and [B, T]; the first in float32. What does not count is
            zero.

        Raises:
            UserError: A vector that counts has values that are no numbers. It is looked for here
                and not when the feature is opened: files of patches have tens of gigabytes.
        """
        values, counts = self.stored(ids)
        return values.astype(np.float32, copy=False), counts

    def stored(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what :meth:`take` does, in the type that it is stored in."""
        place = self.place[ids]  # [B]
        values = np.asarray(self.values[place.clip(min=0)])  # [B, D] or [B, T, D]
        counts = place >= 0  # [B]
        if self.mask is not None:
            counts = self.mask[place.clip(min=0)] & counts[:, None]  # [B, T]
        values[~counts] = 0  # whatever stands there, numbers or not
        self._refuse_bad(ids, values, counts)
        return values, counts

    def _refuse_bad(self, ids: np.ndarray, values: np.ndarray, counts: np.ndarray) -> None:
        """Refuse values that are no numbers, which somebody else wrote or a disk damaged."""
        rows = bad_rows(values, counts if values.ndim == 3 else None)  # [B]
        if rows.any():
            first = ids[int(rows.argmax())]
            raise UserError(
                f"{self.path or 'a feature'}: {rows.sum()} of {len(rows)} rows have values that "
                "are no numbers (NaN or infinite), the first is that of "
                f"'{first if self.tokens is None else self.tokens[first]}'; build the feature anew"
            )

    def table(self) -> np.ndarray:
        """Return the vectors of all ids, [N, D] or [N, T, D] in float32, zeros where none are."""
        return self.take(np.arange(len(self.place)))[0]


class FeatureStore:
    """A finished feature, opened for reading.

    Args:
        folder: Where it lies.

    Raises:
        UserError: It is not there, or what is there does not fit together.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder)
        while True:
            try:
                self._open()
                return
            except UserError:
                # a build that ended meanwhile has taken the files of the generation before away
                before, self.manifest = self.manifest, read_manifest(self.folder)
                if self.manifest.generation == before.generation:
                    raise

    def _open(self) -> None:
        self.values: np.ndarray = self._array("values")  # [n, D] or [n, T, D]
        self.mask = self._array("mask") if self.values.ndim == 3 else None  # [n, T]
        self.rows = self._rows()
        if self.values.shape != self.manifest.shape or len(self.rows) != len(self.values):
            raise UserError(
                f"{self.folder}: the manifest says {self.manifest.shape}, the values are "
                f"{self.values.shape} and {len(self.rows)} rows are described; build it anew"
            )

    def _array(self, part: str) -> np.ndarray:
        path = file_of(self.folder, part, self.manifest.generation)
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:  # EOFError: it is empty
            raise UserError(
                f"{path} is missing or damaged ({error}); build the feature anew"
            ) from error

    def _rows(self) -> pd.DataFrame:
        path = file_of(self.folder, "rows", self.manifest.generation)
        try:
            rows = pd.read_parquet(path)
            tokens = rows[["token", "present", "content", "problem"]]["token"]
        except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors
            raise UserError(
                f"{path} is missing or damaged ({error}); build the feature anew"
            ) from error
        twice = tokens[tokens.duplicated()]
        if len(twice):
            raise UserError(
                f"{path}: {len(twice)} tokens are there twice, the first is '{twice.iloc[0]}'; "
                "build the feature anew"
            )
        return rows

    def align(self, tokens: Sequence[Any] | np.ndarray) -> Aligned:
        """Return the feature by internal id.

        Args:
            tokens: External tokens by internal id [N]; row 0 is padding.
        """
        ids = {str(token): i for i, token in enumerate(tokens) if i > 0}
        place = np.full(len(tokens), -1, dtype=np.int64)  # [N]
        n_unknown = 0
        pairs = zip(self.rows["token"], self.rows["present"], strict=True)
        for row, (token, present) in enumerate(pairs):
            i = ids.get(token)
            if i is None:
                n_unknown += 1
            elif present:
                place[i] = row
        cutoffs = None
        if "cutoff" in self.rows:
            stored = self.rows["cutoff"].to_numpy(np.float64)  # [n]
            cutoffs = np.where(place < 0, np.nan, stored[place.clip(min=0)])  # [N]
        path = file_of(self.folder, "values", self.manifest.generation)
        return Aligned(self.values, self.mask, place, n_unknown, cutoffs, path, tokens)


def bad_rows(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return which rows have values that are no numbers [n], a part at a time.

    Args:
        values: [n, D] or [n, T, D].
        mask: Which count [n, T], or ``None``.
    """
    n, size = len(values), max(1, CHUNK_BYTES // max(1, values[:1].nbytes))
    found = np.zeros(n, dtype=bool)  # [n]
    for begin in range(0, n, size):
        part = slice(begin, begin + size)
        bad = ~np.isfinite(values[part]).all(-1)  # [b] or [b, T]
        found[part] = bad if mask is None else (bad & mask[part]).any(1)
    return found
