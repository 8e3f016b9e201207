"""RecBole's sequential rows as offsets into the interactions, and ours, which are numbered."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor

from recbole_ext.data.fast_dataset import FastDataset
from recbole_ext.data.rows import Lengths, Targets, UnsplitRows
from recbole_ext.modules.histories import Histories, Windows

ROW_ID = "row_id"
"""Field that numbers the training rows from 0; -1 in the other splits."""


class PrefixAugmentation(FastDataset):
    """Mixin before ``SequentialDataset``: the same rows in the same order, as offsets.

    One row for each (user, prefix, next item). RecBole copies every prefix of every column; here a
    row says where its history begins in the sorted interactions, and a batch gathers it. A model
    may say whose histories it reads beside the items' (``history_fields``, see ``models/base.py``);
    those of other fields are left out.
    """

    def data_augmentation(self) -> None:
        """Replace the interactions by one row for each prefix, as RecBole's method does."""
        self._aug_presets()
        self._check_field("uid_field", "time_field")
        if not self._is_sorted():
            self.sort(by=[self.uid_field, self.time_field], ascending=True)
        columns = self.inter_feat.interaction
        found = prefix_windows(columns[self.uid_field].numpy(), self.max_item_list_len)
        start, target = map(torch.from_numpy, found)  # 2 x [R]
        windows = Windows(start, target, self.max_item_list_len)
        kept = {field: padded(values) for field, values in columns.items()}  # [M + 1, ...] each
        rows: dict[str, Any] = {field: Targets(values, windows) for field, values in kept.items()}
        rows[self.item_list_length_field] = Lengths(start, windows)
        histories = self._history_columns(kept)
        rows.update({field: Histories(values, windows) for field, values in histories.items()})
        self.inter_feat = UnsplitRows(rows, windows)

    def _is_sorted(self) -> bool:
        """Tell whether the interactions stand by user and, within a user, by time."""
        if any(field not in self.inter_feat for field in (self.uid_field, self.time_field)):
            return False  # sorting says which is missing
        users, times = (self.inter_feat[field] for field in (self.uid_field, self.time_field))
        later = users[1:] > users[:-1]  # [M - 1]
        same = users[1:] == users[:-1]  # [M - 1]
        return times.dim() == 1 and bool((later | (same & (times[1:] >= times[:-1]))).all())

    def _history_columns(self, columns: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return those [M + 1, ...] whose histories the rows have, by the names of these."""
        keys = getattr(self.config.model_class, "history_fields", None)
        read = None if keys is None else {self.iid_field, *(self.config[key] for key in keys)}
        found = {}
        for field, values in columns.items():
            if field == self.uid_field:
                continue
            list_field = getattr(self, f"{field}_list_field")
            if read is None or field in read:
                found[list_field] = values
            else:  # RecBole has announced it
                for properties in (self.field2type, self.field2source, self.field2seqlen):
                    properties.pop(list_field, None)
        return found


class PrefixDataset(PrefixAugmentation, SequentialDataset):
    """``SequentialDataset`` whose rows carry :data:`ROW_ID` besides.

    That is a row's place in the training split, which memories, samplers and exclusion rules refer
    to.
    """

    inter_feat: Any

    def build(self) -> list[PrefixDataset]:
        """Build the rows, split them, and number those of the first split, the training rows."""
        splits = super().build()
        self.set_field_property(ROW_ID, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        for i, split in enumerate(splits):
            n = len(split.inter_feat)
            row_id = torch.arange(n) if i == 0 else torch.full((n,), -1)  # [R]
            split.inter_feat.update(Interaction({ROW_ID: row_id}))
        return splits


def padded(values: Tensor) -> Tensor:
    """Return a column [M, ...] with the padding behind it, [M + 1, ...]."""
    return torch.cat([values, values.new_zeros((1, *values.shape[1:]))])


def prefix_windows(users: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each prefix where its window begins and where its target stands.

    Args:
        users: User of each interaction, equal ones together, each user's in order of time.
        max_length: Longest window.

    Returns:
        ``(start, target)``, int64, one entry for each interaction that is not its user's first: the
        history is ``start[r]:target[r]``.
    """
    is_first = np.ones(len(users), dtype=bool)  # [M]
    is_first[1:] = users[1:] != users[:-1]
    first = np.flatnonzero(is_first)  # [users]
    size = np.diff(first, append=len(users))  # [users]
    target = np.flatnonzero(~is_first)  # [R]
    return np.maximum(np.repeat(first, size - 1), target - max_length), target
