"""Builds a feature: encodes what is new, keeps what is known, and goes on where it was stopped.

Vectors are known by the hash of their content (and of what made them), not by their row, so that a
changed text is one text to encode. Each batch is a file of its own until all are there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from tqdm import tqdm

from recbole_ext.atomic import remove_leftovers, replacing
from recbole_ext.features.manifest import NAME, Manifest, Source
from recbole_ext.features.store import FeatureStore, check_values, file_of
from recbole_ext.types import UserError

Rows = tuple[np.ndarray, "np.ndarray | None"]
"""Vectors [b, D] or [b, T, D], and which count [b, T]."""


@dataclass
class Encoded:
    """Vectors of a batch of contents.

    Attributes:
        values: [b, D], or [b, T, D] with T the same for all batches.
        mask: Which of T vectors count [b, T], or ``None``.
        problems: Place in the batch -> why this content has no vector; its values are ignored.
    """

    values: np.ndarray
    mask: np.ndarray | None = None
    problems: dict[int, str] = field(default_factory=dict)


class Encoder(Protocol):
    """Makes vectors; the same ones whatever else is in the batch."""

    source: Source

    def encode(self, contents: Sequence[Any]) -> Encoded:
        """Encode a batch of contents."""


class NoContent(Exception):
    """A content that cannot be had: its words are recorded, and the row is masked."""


@dataclass(frozen=True)
class Subject:
    """What a feature is of; see :class:`~recbole_ext.features.manifest.Manifest`."""

    name: str
    kind: str
    of: str
    dataset: str
    dataset_fingerprint: str | None = None
    cutoff: float | None = None
    notes: tuple[str, ...] = ()


def text_hash(content: str) -> str:
    """Return the hash of a text."""
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def build(
    folder: str | Path,
    contents: Mapping[str, Any],
    encoder: Encoder,
    subject: Subject,
    *,
    package: str,
    dtype: str = "float16",
    batch_size: int = 256,
    hash_of: Callable[[Any], str] = text_hash,
    show_progress: bool = True,
    confirm: Callable[[Sequence[Any]], bool] | None = None,
    cutoffs: Mapping[str, float] | None = None,
) -> FeatureStore:
    """Build a feature, or bring it up to date.

    Killed at any moment it leaves the feature as it was, and the next call goes on.

    Args:
        folder: Where to; may hold the feature already.
        contents: Token -> content, ``None`` where there is none.
        encoder: Makes the vectors.
        subject: What the feature is of.
        package: Version of this package.
        dtype: ``float16`` or ``float32``.
        batch_size: Contents that are encoded, and kept, at a time.
        hash_of: Content -> hash; raises :class:`NoContent` where it cannot be read.
        show_progress: Whether there is a progress bar.
        confirm: Contents that are new -> whether to encode them; asked before the first.
        cutoffs: Token -> time up to which interactions went into its content: a column
            ``cutoff`` of the rows; ``None`` where none did.

    Raises:
        UserError: No row has a vector, values are no numbers, or it was not confirmed.
    """
    folder = Path(folder)
    if dtype not in ("float16", "float32"):
        raise UserError(f"dtype takes float16 or float32, not {dtype!r}")
    _make(folder)
    key = f"{encoder.source.digest()}-{dtype}"
    hashes, problems = _hashes(contents, hash_of)
    order = [hashes.get(token, "") for token in contents]
    known = Known(folder, key, order, f"feature '{subject.name}'")
    new = {h: contents[token] for token, h in hashes.items() if h not in known}
    if new and confirm is not None and not confirm(list(new.values())):
        raise UserError(f"feature '{subject.name}': not confirmed, so nothing was encoded")
    bar = tqdm(total=len(new), desc=subject.name, unit="row", disable=not show_progress)
    with bar:
        for batch in _batches(list(new.items()), batch_size):
            encoded = encoder.encode([content for _, content in batch])
            known.add([h for h, _ in batch], encoded, dtype)
            bar.update(len(batch))
    problems |= {token: known.problems[h] for token, h in hashes.items() if h in known.problems}
    present = np.array([h in known and h not in known.problems for h in order], dtype=bool)  # [n]
    if not present.any():
        first = next(iter(problems.values()), "they are empty")
        raise UserError(
            f"feature '{subject.name}': none of {len(order)} rows has a vector ({first})"
        )
    words = [problems.get(token) for token in contents]
    rows = pd.DataFrame(
        {"token": list(map(str, contents)), "present": present, "content": order, "problem": words}
    )
    if cutoffs is not None:
        rows["cutoff"] = [float(cutoffs.get(token, np.nan)) for token in contents]  # by row
    return _commit(folder, rows, known, encoder.source, subject, package, key, dtype)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror}; choose another --features_dir"
        ) from error
    remove_leftovers(folder)


def _hashes(
    contents: Mapping[str, Any], hash_of: Callable[[Any], str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return token -> hash of its content, and token -> why it has none."""
    hashes: dict[str, str] = {}
    problems: dict[str, str] = {}
    for token, content in contents.items():
        if content is None:
            continue
        try:
            hashes[token] = hash_of(content)
        except NoContent as error:
            problems[token] = str(error)
    return hashes, problems


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))


class Known:
    """Vectors by the hash of their content: of the feature as it is, and of a build that began.

    Args:
        folder: Of the feature.
        key: Of what makes the vectors; those that something else made are not known.
        order: Hashes of the contents by row.
        name: Of the feature, for errors.
    """

    def __init__(self, folder: Path, key: str, order: Sequence[str], name: str) -> None:
        self.order, self.name = list(order), name
        self.part = folder / f"part-{key}"
        self.problems: dict[str, str] = {}  # of this call's contents; others are tried again
        self._place: dict[str, tuple[Any, int]] = {}  # hash -> (store or file, row)
        self._open: tuple[Path, Rows] | None = None
        for other in folder.glob("part-*"):  # of another encoder: nobody goes on with it
            if other != self.part:
                shutil.rmtree(other, ignore_errors=True)
        if (folder / NAME).is_file():
            store = FeatureStore(folder)
            if store.manifest.generation.startswith(key):
                pairs = zip(store.rows["content"], store.rows["present"], strict=True)
                self._place.update(
                    (h, (store, i)) for i, (h, present) in enumerate(pairs) if present
                )
        for path in sorted(self.part.glob("*.npz")):
            with suppress(OSError, ValueError, KeyError, BadZipFile), np.load(path) as chunk:
                self._place.update((str(h), (path, i)) for i, h in enumerate(chunk["hashes"]) if h)

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
        masks: dict[str, Any] = {} if encoded.mask is None else {"mask": encoded.mask}
        with replacing(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, hashes=names, values=values, **masks)
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


def _commit(
    folder: Path,
    rows: pd.DataFrame,
    known: Known,
    source: Source,
    subject: Subject,
    package: str,
    key: str,
    dtype: str,
) -> FeatureStore:
    """Write a generation, then the manifest that makes it the feature, then clear the others."""
    columns = [list(rows["token"]), list(rows["content"]), list(map(bool, rows["present"]))]
    if "cutoff" in rows:
        columns.append(list(rows["cutoff"]))
    text = json.dumps(columns)
    generation = f"{key}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    contents = [
        h if present else None for h, present in zip(rows["content"], rows["present"], strict=True)
    ]
    first, first_mask = known.rows(next(h for h in contents if h))
    shape = (len(rows), *first.shape)
    masks = None if first_mask is None else np.zeros(shape[:2], dtype=bool)  # [n, T]
    with replacing(file_of(folder, "values", generation)) as path:
        values = np.lib.format.open_memmap(path, "w+", dtype, shape)
        for i, content in enumerate(contents):
            if content is None:
                continue
            found, mask = known.rows(content)
            if found.shape != first.shape:
                raise UserError(
                    f"feature '{subject.name}': vectors of shapes {first.shape} and {found.shape}; "
                    f"remove {folder} and build it anew"
                )
            values[i] = found
            if masks is not None:
                masks[i] = mask
        check_values(values, masks, f"feature '{subject.name}'")
        values.flush()
        del values
    if masks is not None:
        with replacing(file_of(folder, "mask", generation)) as path, open(path, "wb") as stream:
            np.save(stream, masks)
    with replacing(file_of(folder, "rows", generation)) as path:
        rows.to_parquet(path, index=False)
    Manifest(
        **vars(subject),
        source=source,
        shape=shape,
        dtype=dtype,
        n_present=int(rows["present"].sum()),
        generation=generation,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        package=package,
    ).write(folder)
    for path in folder.iterdir():
        is_old = path.name.startswith(("values-", "mask-", "rows-")) and generation not in path.name
        if is_old:
            path.unlink()
    shutil.rmtree(known.part, ignore_errors=True)
    return FeatureStore(folder)
