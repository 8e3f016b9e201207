"""Features from and to the files of others: RecBole's additional atomic files, arrays of numpy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from recbole_ext.atomic import replacing
from recbole_ext.features.encoded import Encoded, NoContent, text_hash
from recbole_ext.features.manifest import Source
from recbole_ext.features.store import FeatureStore
from recbole_ext.types import UserError, suggest


class Given:
    """An encoder whose contents are vectors [D] already."""

    def __init__(self, path: Path) -> None:
        self.source = Source(path.name, "given", {"file": path.name})

    def encode(self, contents: Sequence[np.ndarray]) -> Encoded:
        """Return the vectors [b, D]."""
        return Encoded(np.stack(contents))


def vector_hash(vector: np.ndarray) -> str:
    """Return the hash of a vector; those that are all zeros stand for none, as in MMRec's files."""
    if not vector.any():
        raise NoContent("all zeros")
    return text_hash(vector.astype(np.float32).tobytes().hex())


def read_atomic_vectors(
    path: Path, separator: str = "\t", within: str = " "
) -> dict[str, np.ndarray]:
    """Read RecBole's file of vectors: a column of tokens, a column ``name:float_seq``.

    Args:
        path: ``<dataset>.<suffix>``, as ``additional_feat_suffix`` names it.
        separator: Between columns.
        within: Between the numbers of a vector.

    Raises:
        UserError: Naming the file and the line.
    """
    found: dict[str, np.ndarray] = {}
    try:
        stream = open(path, encoding="utf-8", newline="")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; name a file that is there"
        ) from None
    with stream:
        lines = _split(stream, separator, path)
        head = next(lines, [])
        columns = [i for i, column in enumerate(head) if column.endswith(":float_seq")]
        if len(columns) != 1:
            raise UserError(
                f"{path}: the first line must name a token and one column of type float_seq, as in "
                f"ent_id:token<TAB>ent_emb:float_seq; it has {len(columns)} of that type"
            )
        for number, line in enumerate(lines, 2):
            if line == [""]:
                continue
            try:
                vector = np.array(line[columns[0]].split(within), dtype=np.float32)  # [D]
            except (ValueError, IndexError):
                raise UserError(
                    f"{path}, line {number}: no vector of numbers; write '{within}' between them"
                ) from None
            _add(found, line[0], vector, f"{path}, line {number}")
    return found


def _split(stream: TextIO, separator: str, path: Path) -> Iterator[list[str]]:
    """Yield the columns of each line; unlike ``csv`` it takes a column of any length."""
    try:
        for line in stream:
            yield line.rstrip("\r\n").split(separator)
    except UnicodeDecodeError as error:
        raise UserError(
            f"cannot read {path}: it is no text in UTF-8 ({error.reason}); name RecBole's file, or "
            "an .npy array with --mapping"
        ) from None


def _add(found: dict[str, np.ndarray], token: str, vector: np.ndarray, where: str) -> None:
    first = next(iter(found.values()), vector)
    if vector.shape != first.shape:
        raise UserError(
            f"{where}: {len(vector)} numbers where the first vector has {len(first)}; all are of "
            "one length"
        )
    if token in found:
        raise UserError(f"{where}: the token '{token}' is there already; keep one")
    found[token] = vector


def read_mmrec(values: Path, mapping: Path, token: str | None = None) -> dict[str, np.ndarray]:
    """Read MMRec's features: an array by item number, and the table that numbers the items.

    Args:
        values: ``image_feat.npy`` or ``text_feat.npy``, [N, D].
        mapping: ``i_id_mapping.csv``, tab-separated, with the number in ``itemID``.
        token: Its column of tokens; the other one where there are two.

    Raises:
        UserError: What does not fit.
    """
    array = _array(values, mapping)
    try:
        table = pd.read_csv(mapping, sep="\t", dtype=str)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"cannot read {values} and {mapping}: {error}; an array of numpy and a table with tabs "
            "are meant"
        ) from None
    if "itemID" not in table:
        raise UserError(
            f"{mapping} has no column 'itemID' (its columns are {', '.join(table)}); name the one "
            "with the numbers so"
        )
    others = [column for column in table if column != "itemID"]
    if token is None and len(others) == 1:
        token = others[0]
    if token not in others:
        hint = suggest(token, others) if token else ""
        raise UserError(f"{mapping}: name its column of tokens, one of {', '.join(others)}{hint}")
    numbers = pd.to_numeric(table["itemID"], errors="coerce")
    bad = table["itemID"][numbers.isna() | (numbers % 1 != 0)]
    if len(bad):
        raise UserError(
            f"{mapping}: itemID '{bad.iloc[0]}' is no number; it takes the row of each item in "
            f"{values}, from 0"
        )
    numbers = numbers.astype(int)
    if numbers.min() < 0 or numbers.max() >= len(array):
        raise UserError(
            f"{mapping} numbers items from {numbers.min()} to {numbers.max()}, and {values} has "
            f"{len(array)} rows; take the mapping that was made for it"
        )
    found: dict[str, np.ndarray] = {}
    for name, number in zip(table[token], numbers, strict=True):
        _add(found, str(name), np.array(array[number], dtype=np.float32), str(mapping))
    return found


def read_listed(values: Path, listed: Path) -> dict[str, np.ndarray]:
    """Read an array, and the list of the tokens of its rows.

    Args:
        values: [N, D], as ``llm_embeddings.npy``.
        listed: ``.json`` with a list of N tokens, in the order of the rows.

    Raises:
        UserError: What does not fit.
    """
    array = _array(values, listed)
    try:
        tokens = json.loads(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"cannot read {listed}: {error}; a list of the tokens of {values} is meant"
        ) from None
    if not isinstance(tokens, list) or not all(isinstance(one, str | int) for one in tokens):
        raise UserError(
            f'{listed} is no list of tokens, as ["N1", "N2"]; write one for each row of {values}'
        )
    if len(tokens) != len(array):
        raise UserError(
            f"{listed} has {len(tokens)} tokens and {values} has {len(array)} rows; take the list "
            "that was made for it"
        )
    found: dict[str, np.ndarray] = {}
    for name, vector in zip(tokens, array, strict=True):
        _add(found, str(name), np.array(vector, dtype=np.float32), str(listed))
    return found


def _array(values: Path, mapping: Path) -> np.ndarray:
    """Open an array of numbers [N, D]."""
    try:
        array = np.load(values, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"cannot read {values} and {mapping}: {error}; an array of numpy and the tokens of its "
            "rows are meant"
        ) from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"{values} holds several arrays; save one by numpy.save")
    if array.ndim != 2:
        raise UserError(f"{values} has shape {array.shape}; save one of [items, size]")
    if array.dtype.kind not in "fiub":
        raise UserError(f"{values} holds no numbers ({array.dtype}); save an array of numbers")
    return array


def write_atomic_vectors(store: FeatureStore, path: Path, token_field: str, field: str) -> int:
    """Write a feature as RecBole reads it by ``additional_feat_suffix``; return how many rows.

    Rows without a vector are left out, and RecBole fills them with its padding.

    Args:
        store: With one vector for a row.
        path: ``<dataset>.<suffix>``.
        token_field: Name of the column of tokens.
        field: Name of the column of vectors, which ``preload_weight`` names.

    Raises:
        UserError: A row has several vectors.
    """
    rows = _single(store)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(f"{token_field}:token\t{field}:float_seq\n")
        for row in rows:
            numbers = " ".join(map(str, store.values[row].astype(np.float32)))
            stream.write(f"{store.rows['token'][row]}\t{numbers}\n")
    return len(rows)


def write_mmrec(store: FeatureStore, values: Path, mapping: Path) -> int:
    """Write a feature as MMRec reads it, rows without a vector as zeros; return how many rows.

    Args:
        store: With one vector for a row.
        values: ``text_feat.npy``, say; float32.
        mapping: Token -> number, tab-separated, with columns ``item_id`` and ``itemID``.

    Raises:
        UserError: A row has several vectors.
    """
    rows = _single(store)
    array = np.zeros(store.values.shape, dtype=np.float32)  # [n, D]
    array[rows] = store.values[rows]
    with replacing(values) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array)
    table = pd.DataFrame({"item_id": store.rows["token"], "itemID": np.arange(len(array))})
    with replacing(mapping) as temporary:
        table.to_csv(temporary, sep="\t", index=False)
    return len(rows)


def _single(store: FeatureStore) -> np.ndarray:
    """Return the rows [n] that have a vector, of a feature with one for each."""
    if store.values.ndim != 2:
        raise UserError(
            f"{store.folder} has several vectors for each row, and the file takes one; build the "
            "feature with one"
        )
    return store.rows["present"].to_numpy().nonzero()[0]
