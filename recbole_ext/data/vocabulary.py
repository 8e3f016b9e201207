"""Fingerprints: the tokens behind the ids, and the interactions behind a result."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def vocabulary_hash(tokens: np.ndarray) -> str:
    """Return the SHA-256 of a token list in id order: equal hashes mean equal ids.

    Args:
        tokens: External tokens by internal id, [N]; the padding row 0 included.
    """
    return hashlib.sha256("\n".join(map(str, tokens)).encode()).hexdigest()


def vocabulary_of(dataset: Any) -> dict[str, str]:
    """Return the hashes of a RecBole dataset's item and user tokens."""
    return {
        "items": vocabulary_hash(dataset.field2id_token[dataset.iid_field]),
        "users": vocabulary_hash(dataset.field2id_token[dataset.uid_field]),
    }


def dataset_fingerprint(dataset: Any) -> str:
    """Return the SHA-256 of a filtered dataset: its tokens and its sorted interactions.

    To be taken before ``dataset.build()``, while ``inter_feat`` is a DataFrame with one row per
    interaction.
    """
    columns = [
        f
        for f in (dataset.uid_field, dataset.iid_field, dataset.time_field)
        if f in dataset.inter_feat
    ]
    table = np.stack(
        [np.asarray(dataset.inter_feat[c], dtype=np.float64) for c in columns]
    )  # [3, interactions]
    table = table[:, np.lexsort(table[::-1])]  # by user, then item, then time
    digest = hashlib.sha256(repr(sorted(vocabulary_of(dataset).items())).encode())
    digest.update(np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()
