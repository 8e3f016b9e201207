"""RecBole's sequential rows, built with array operations and numbered."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor

ROW_ID = "row_id"
"""Field that numbers the training rows from 0; -1 in the other splits."""

GATHER_ROWS = 1 << 16
"""Rows that are gathered at a time, which bounds the memory for indices."""


class PrefixDataset(SequentialDataset):
    """``SequentialDataset`` with the same rows in the same order, in a fraction of the time.

    One row for each (user, prefix, next item). A model may say whose histories it reads beside the
    items' (``history_fields``, see ``models/base.py``); those of other fields are left out. The
    rows of each split also carry :data:`ROW_ID`: a row's place in the training split, which
    memories, samplers and exclusion rules refer to.
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

    def data_augmentation(self) -> None:
        """Replace the interactions by one row for each prefix, as RecBole's method does."""
        self._aug_presets()
        self._check_field("uid_field", "time_field")
        self.sort(by=[self.uid_field, self.time_field], ascending=True)
        start, target = prefix_windows(
            self.inter_feat[self.uid_field].numpy(), self.max_item_list_len
        )  # 2 x [R]
        rows = self.inter_feat[target]
        lists: dict[str, Any] = {self.item_list_length_field: torch.from_numpy(target - start)}
        keys = getattr(self.config.model_class, "history_fields", None)
        read = None if keys is None else {self.iid_field, *(self.config[key] for key in keys)}
        for field in self.inter_feat:
            if field == self.uid_field:
                continue
            list_field = getattr(self, f"{field}_list_field")
            if read is None or field in read:
                lists[list_field] = gather_windows(
                    self.inter_feat[field], start, target, self.max_item_list_len
                )
            else:  # RecBole has announced it
                for properties in (self.field2type, self.field2source, self.field2seqlen):
                    properties.pop(list_field, None)
        rows.update(Interaction(lists))
        self.inter_feat = rows


def prefix_windows(users: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each prefix where its window begins and where its target stands.

    Args:
        users: User of each interaction, equal ones together, each user's in order of time.
        max_length: Longest window.

    Returns:
        ``(start, target)``, int64, one entry for each interaction that is not its user's first: the
        history is ``start[r]:target[r]``.
    """
    is_first = np.ones(len(users), dtype=bool)
    is_first[1:] = users[1:] != users[:-1]
    place = np.arange(len(users))
    first_of_user = np.maximum.accumulate(np.where(is_first, place, 0))
    target = place[~is_first]
    return np.maximum(first_of_user[target], target - max_length), target


def gather_windows(values: Tensor, start: np.ndarray, stop: np.ndarray, max_length: int) -> Tensor:
    """Return ``values[start[r]:stop[r]]``, padded with zeros on the right, for every r.

    Args:
        values: [M, ...].
        start: First index of each window [R].
        stop: Index after the last one [R].
        max_length: Length L of the result; no window is longer.

    Returns:
        [R, L, ...] of the dtype of ``values``.
    """
    out = values.new_zeros((len(start), max_length, *values.shape[1:]))  # [R, L, ...]
    offset = torch.arange(max_length)  # [L]
    for begin in range(0, len(start), GATHER_ROWS):
        part = slice(begin, begin + GATHER_ROWS)
        index = torch.from_numpy(start[part])[:, None] + offset  # [r, L]
        real = index < torch.from_numpy(stop[part])[:, None]  # [r, L]
        out[part][real] = values[index[real]]
    return out
