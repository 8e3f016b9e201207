"""Which items a user had before an evaluation: to leave out of a ranking or of negatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.sampler import RepeatableSampler
from torch import Tensor

from recbole_ext.data.rows import histories_of
from recbole_ext.types import UserError


class History:
    """Items by user, as offsets into one array.

    Args:
        users: User of each event, [events].
        items: Item of each event, [events].
        n_users: Number of users, padding included.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, n_users: int) -> None:
        order = np.argsort(users, kind="stable")
        self.items = items[order]
        self.offsets = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=n_users))])

    @classmethod
    def before(cls, built: list[Any], phase: int) -> History:
        """Collect the events before split ``phase`` (1 valid, 2 test) of a sequential dataset.

        A row's target is an event; a user's first event is no target, it is the whole prefix of a
        row of length 1.
        """
        users, items = [], []
        for number, split in enumerate(built[: phase + 1]):
            feat = split.inter_feat
            first = (feat[split.item_list_length_field] == 1).nonzero().flatten()  # [rows]
            users.append(feat[split.uid_field][first])
            item_seq = histories_of(feat, split.iid_field + split.config["LIST_SUFFIX"])  # [R, L]
            items.append(item_seq[first, torch.zeros_like(first)])
            if number < phase:
                users.append(feat[split.uid_field])
                items.append(feat[split.iid_field])
        return cls(torch.cat(users).numpy(), torch.cat(items).numpy(), built[0].user_num)

    def of(self, user: int) -> np.ndarray:
        """Return the items of one user, [n]."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def index(self, users: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return (row, item) pairs to mask in a score matrix; a row's target is never among them.

        Args:
            users: User of each row, [B].
            targets: Item to be ranked in each row, [B].
        """
        begin = self.offsets[users.numpy()]  # [B]
        count = self.offsets[users.numpy() + 1] - begin  # [B]
        rows = np.repeat(np.arange(len(users)), count)  # [pairs]
        within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)  # [pairs]
        items = self.items[np.repeat(begin, count) + within]  # [pairs]
        keep = items != targets.numpy()[rows]
        return torch.from_numpy(rows[keep]), torch.from_numpy(items[keep])


class HistorySampler(RepeatableSampler):
    """RecBole's sampler for sequential data, whose negatives also leave out the user's history."""

    history: History

    def sample_by_user_ids(self, user_ids: Any, item_ids: Any, num: int) -> Tensor:
        """Return ``num`` negatives for each (user, target), in RecBole's order."""
        self.used_ids = np.array(
            [{item, *self.history.of(user)} for user, item in zip(user_ids, item_ids, strict=True)]
        )
        possible = len(self.prob) if self.distribution == "popularity" else self.item_num - 1
        if any(len(used) >= possible for used in self.used_ids):
            raise UserError(
                "eval_args.mode samples items that a user has not had, and some user has had all; "
                "set eval_args.mode=full, mask_history=false, or filter by user_inter_num_interval"
            )
        return self.sample_by_key_ids(np.arange(len(user_ids)), num)
