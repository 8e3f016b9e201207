"""Vectors that are there already, by the hash of their content."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from recbole_ext.atomic import replacing
from recbole_ext.features.encoded import Encoded, text_hash
from recbole_ext.features.manifest import NAME
from recbole_ext.features.store import FeatureStore, bad_rows
from recbole_ext.types import UserError

Rows = tuple[np.ndarray, "np.ndarray | None"]
"""Vectors [b, D] or [b, T, D], and which count [b, T]."""


class Known:
    """Vectors by the hash of their content: of the feature as it is, and of a build that began.

    Args:
        folder: Of the feature.
        key: Of what makes the vectors; those that something else made are not known.
        order: Hashes of the contents by row.
        name: Of the feature, for errors.
    """

    def __init__(self, folder: Path, key: str, order: Sequence[str], name: str) -> None:
        self.key, self.order, self.name = key, list(order), name
        self.part = folder / f"part-{key}"
        self.problems: dict[str, str] = {}  # of this call's contents; others are tried again
        self.cut: dict[str, bool] = {}  # hash -> whether all of it was read, where that is known
        self._place: dict[str, tuple[Any, int]] = {}  # hash -> (store or file, row)
        self._open: tuple[Path, Rows] | None = None
        for other in folder.glob("part-*"):  # of another encoder: nobody goes on with it
            if other != self.part:
                shutil.rmtree(other, ignore_errors=True)
        self._take_over(folder)
        for path in sorted(self.part.glob("*.npz")):
            with suppress(OSError, ValueError, KeyError, BadZipFile), np.load(path) as chunk:
                names = list(map(str, chunk["hashes"]))
                cut = list(map(bool, chunk["cut"])) if "cut" in chunk else []
                self._place.update((h, (path, i)) for i, h in enumerate(names) if h)
                self.cut.update(zip(names, cut, strict=False))

    def _take_over(self, folder: Path) -> None:
        """Know what the feature has, as it is; what of it is damaged is made anew."""
        if not (folder / NAME).is_file():
            return
        try:
            store = FeatureStore(folder)
        except UserError as error:
            logging.getLogger().warning("%s: nothing of it is kept", error)
            return
        if not store.manifest.generation.startswith(self.key):
            return
        bad = bad_rows(store.values, store.mask)  # [n]
        kept = store.rows["present"].to_numpy(bool) & ~bad  # [n]
        contents = store.rows["content"]
        self._place.update((contents[i], (store, int(i))) for i in kept.nonzero()[0])
        if "cut" in store.rows:
            self.cut.update(zip(contents, map(bool, store.rows["cut"]), strict=True))

    def __contains__(self, content: str) -> bool:
        return content in self._place or content in self.problems

    def add(self, hashes: Sequence[str], encoded: Encoded, dtype: str) -> None:
        """Keep the vectors of a batch on disk."""
        with np.errstate(over="ignore"):  # float16 says so as infinite, which is refused by name
            values = encoded.values.astype(dtype)
        self._refuse_bad(hashes, values, encoded)
        for i, problem in encoded.problems.items():
            self.problems[hashes[i]] = problem
        names = np.array(["" if i in encoded.problems else h for i, h in enumerate(hashes)])  # [b]
        self.part.mkdir(exist_ok=True)
        path = self.part / f"{text_hash(''.join(hashes))}.npz"
        given = {"mask": encoded.mask, "cut": encoded.cut}
        more: dict[str, Any] = {key: one for key, one in given.items() if one is not None}
        with replacing(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, hashes=names, values=values, **more)
        if encoded.cut is not None:
            self.cut.update(zip(hashes, map(bool, encoded.cut), strict=True))
        self._place.update((h, (path, i)) for i, h in enumerate(names) if h)

    def _refuse_bad(self, hashes: Sequence[str], values: np.ndarray, encoded: Encoded) -> None:
        """Refuse values that are no numbers, before they are kept and come back each time."""
        bad = ~np.isfinite(values).all(-1)  # [b] or [b, T]
        if encoded.mask is not None:
            bad = (bad & encoded.mask).any(1)  # [b]
        bad[list(encoded.problems)] = False
        if bad.any():
            row = self.order.index(hashes[int(bad.argmax())])
            raise UserError(
                f"{self.name}: row {row} has values that are no numbers (NaN or infinite); mend "
                "the source, or store in float32 what float16 cannot hold"
            )

    def rows(self, content: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the vector [D] or vectors [T, D] of a content, and which of them count [T]."""
        where, i = self._place[content]
        if isinstance(where, FeatureStore):
            values, mask = where.values, where.mask
        else:
            if self._open is None or self._open[0] != where:
                with np.load(where) as chunk:
                    self._open = where, (chunk["values"], chunk.get("mask"))
            values, mask = self._open[1]
        return values[i], None if mask is None else mask[i]
