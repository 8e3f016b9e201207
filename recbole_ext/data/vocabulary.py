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
    """Return the SHA-256 of a filtered dataset: its tokens, and its interactions as they are split.

    Interactions of one time count in their order, which decides what is held out: an encoder that
    was chosen on the validation item of one order may have seen the test item of another.

    To be taken before ``dataset.build()``, while ``inter_feat`` is a DataFrame with one row per
    interaction.
    """
    columns = [
        f
        for f in (dataset.uid_field, dataset.iid_field, dataset.time_field)
        if f in dataset.inter_feat
    ]
    digest = hashlib.sha256(repr(sorted(vocabulary_of(dataset).items())).encode())
    if dataset.benchmark_filename_list is not None:
        digest.update(repr(dataset.file_size_list).encode())  # where the files cut the table
    order = _split_order(dataset)
    for column in columns:
        values = np.asarray(dataset.inter_feat[column], dtype=np.float64)[order]  # [n]
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _split_order(dataset: Any) -> Any:
    """Return the index of the interactions in the order in which RecBole splits them.

    By time, each user alone where the split is by user, equal times as they stand. Where RecBole
    shuffles, or the files are split already, all count as they stand.
    """
    rows, args = dataset.inter_feat, dataset.config["eval_args"]
    is_split_already = dataset.benchmark_filename_list is not None
    if args["order"] != "TO" or is_split_already or dataset.time_field not in rows:
        return slice(None)
    times = np.asarray(rows[dataset.time_field], dtype=np.float32)  # the bits RecBole sorts by
    is_by_user = args["group_by"] == "user"
    users = np.asarray(rows[dataset.uid_field]) if is_by_user else np.zeros(len(rows), dtype=bool)
    later = (users[1:] > users[:-1]) | ((users[1:] == users[:-1]) & (times[1:] >= times[:-1]))
    if later.all():  # as they are in many files, which saves the copies
        return slice(None)
    return np.lexsort([times, users])  # stable, the last key first
