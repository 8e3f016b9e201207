"""Builds a feature: encodes what is new, keeps what is known, and goes on where it was stopped.

Vectors are known by the hash of their content (and of what made them), not by their row, so that a
changed text is one text to encode. Each batch is a file of its own until all are there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from recbole_ext import __version__
from recbole_ext.atomic import remove_leftovers, replacing
from recbole_ext.features.encoded import Encoder, NoContent, text_hash
from recbole_ext.features.known import Known
from recbole_ext.features.manifest import Manifest, Source
from recbole_ext.features.store import FeatureStore, file_of
from recbole_ext.locks import sole_use
from recbole_ext.stopping import saying_what_is_kept
from recbole_ext.types import UserError, suggest

DTYPES = ("float16", "float32")


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


@dataclass(frozen=True)
class Building:
    """How a feature is built.

    Attributes:
        dtype: Of the stored vectors, ``float16`` or ``float32``.
        batch_size: Contents that are encoded, and kept on disk, at a time.
        hash_of: Content -> hash; raises :class:`NoContent` where it cannot be read.
        confirm: Contents that are new -> whether to encode them; asked before the first.
        show_progress: Whether there is a progress bar.

    Raises:
        UserError: A value that cannot be meant.
    """

    dtype: str = "float16"
    batch_size: int = 256
    hash_of: Callable[[Any], str] = text_hash
    confirm: Callable[[Sequence[Any]], bool] | None = None
    show_progress: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            hint = suggest(self.dtype, DTYPES)
            raise UserError(f"dtype takes {' or '.join(DTYPES)}, not {self.dtype!r}{hint}")
        if self.batch_size < 1:
            raise UserError(f"batch_size takes a number from 1, not {self.batch_size}")


def build(
    folder: str | Path,
    contents: Mapping[str, Any],
    encoder: Encoder,
    subject: Subject,
    how: Building | None = None,
    cutoffs: Mapping[str, float] | None = None,
) -> FeatureStore:
    """Build a feature, or bring it up to date.

    Killed at any moment it leaves the feature as it was, and the next call goes on.

    Args:
        folder: Where to; may hold the feature already.
        contents: Token -> content, ``None`` where there is none.
        encoder: Makes the vectors.
        subject: What the feature is of.
        how: In which type, how many at a time.
        cutoffs: Token -> time up to which interactions went into its content: a column
            ``cutoff`` of the rows; ``None`` where none did.

    Raises:
        UserError: No row has a vector, values are no numbers, it was not confirmed, or another
            process builds the same feature.
    """
    folder, how = Path(folder), how or Building()
    _make(folder)
    with sole_use(folder, what="the feature's folder"):
        remove_leftovers(folder)
        return _build(folder, contents, encoder, subject, how, cutoffs)


def _build(
    folder: Path,
    contents: Mapping[str, Any],
    encoder: Encoder,
    subject: Subject,
    how: Building,
    cutoffs: Mapping[str, float] | None,
) -> FeatureStore:
    hashes, problems = _hashes(contents, how.hash_of)
    order = [hashes.get(token, "") for token in contents]
    key = f"{encoder.source.digest()}-{how.dtype}"
    known = Known(folder, key, order, f"feature '{subject.name}'")
    _encode_new(known, {h: contents[t] for t, h in hashes.items()}, encoder, subject, how)
    problems |= {token: known.problems[h] for token, h in hashes.items() if h in known.problems}
    rows = _rows(contents, order, known, problems, cutoffs)
    if not rows["present"].any():
        first = next(iter(problems.values()), "they are empty")
        raise UserError(
            f"feature '{subject.name}': none of {len(order)} rows has a vector ({first}); "
            "mend the source, or name another"
        )
    return _commit(folder, rows, known, encoder.source, subject)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror}; choose another --features_dir"
        ) from error


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


def _encode_new(
    known: Known, by_hash: Mapping[str, Any], encoder: Encoder, subject: Subject, how: Building
) -> None:
    """Encode the contents that are not known, once it is confirmed that there are any."""
    new = {h: content for h, content in by_hash.items() if h not in known}
    if new and how.confirm is not None and not how.confirm(list(new.values())):
        raise UserError(
            f"feature '{subject.name}': not confirmed, so nothing was encoded; answer y, or give "
            "--yes"
        )
    with (
        saying_what_is_kept(lambda: sum(h in known for h in by_hash), len(by_hash)),
        tqdm(total=len(new), desc=subject.name, unit="row", disable=not how.show_progress) as bar,
    ):
        for batch in _batches(list(new.items()), how.batch_size):
            encoded = encoder.encode([content for _, content in batch])
            known.add([h for h, _ in batch], encoded, how.dtype)
            bar.update(len(batch))


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))


def _rows(
    contents: Mapping[str, Any],
    order: Sequence[str],
    known: Known,
    problems: Mapping[str, str],
    cutoffs: Mapping[str, float] | None,
) -> pd.DataFrame:
    """Return what is known of each row."""
    rows = pd.DataFrame(
        {
            "token": list(map(str, contents)),
            "present": np.array([h in known and h not in known.problems for h in order], bool),
            "content": list(order),
            "problem": [problems.get(token) for token in contents],
        }
    )
    if all(h in known.cut for h, present in zip(order, rows["present"], strict=True) if present):
        rows["cut"] = [known.cut.get(h, False) for h in order]
    if cutoffs is not None:
        rows["cutoff"] = [float(cutoffs.get(token, np.nan)) for token in contents]  # by row
    return rows


def _commit(
    folder: Path, rows: pd.DataFrame, known: Known, source: Source, subject: Subject
) -> FeatureStore:
    """Write a generation, then the manifest that makes it the feature, then clear the others."""
    columns = [list(rows["token"]), list(rows["content"]), list(map(bool, rows["present"]))]
    columns += [list(rows[key]) for key in ("cutoff",) if key in rows]
    text = json.dumps(columns)
    generation = f"{known.key}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    shape, dtype = _write_vectors(folder, generation, rows, known, subject)
    with replacing(file_of(folder, "rows", generation)) as path:
        rows.to_parquet(path, index=False)
    Manifest(
        **vars(subject),
        source=source,
        shape=shape,
        dtype=dtype,
        n_present=int(rows["present"].sum()),
        n_cut=int((rows["cut"] & rows["present"]).sum()) if "cut" in rows else None,
        generation=generation,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        package=__version__,
    ).write(folder)
    for path in folder.iterdir():
        is_old = path.name.startswith(("values-", "mask-", "rows-")) and generation not in path.name
        if is_old:
            path.unlink()
    shutil.rmtree(known.part, ignore_errors=True)
    return FeatureStore(folder)


def _write_vectors(
    folder: Path, generation: str, rows: pd.DataFrame, known: Known, subject: Subject
) -> tuple[tuple[int, ...], str]:
    """Write the values and, where rows have several, their mask; return shape and dtype."""
    pairs = list(zip(rows["content"], rows["present"], strict=True))
    first, first_mask = known.rows(next(h for h, present in pairs if present))
    shape, dtype = (len(rows), *first.shape), str(first.dtype)
    masks = None if first_mask is None else np.zeros(shape[:2], dtype=bool)  # [n, T]
    with replacing(file_of(folder, "values", generation)) as path:
        values = np.lib.format.open_memmap(path, "w+", dtype, shape)
        for i, (content, present) in enumerate(pairs):
            if not present:
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
        values.flush()
        del values
    if masks is not None:
        with replacing(file_of(folder, "mask", generation)) as path, open(path, "wb") as stream:
            np.save(stream, masks)
    return shape, dtype
