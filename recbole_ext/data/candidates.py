"""The candidates of a sampled evaluation: drawn once, put into batches by array operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass
class Candidates:
    """Which items are ranked for the users of a batch.

    Attributes:
        users: The users, [B].
        rows: Row of each candidate's user in ``users``, [C].
        encoded: Row of each candidate in the interaction that is scored, [C].
        items: The candidates, [C].
    """

    users: Tensor
    rows: Tensor
    encoded: Tensor
    items: Tensor


class CandidateTable:
    """Positives and negatives of every user, one after the other, in RecBole's order.

    A user with n positives has n * times candidates: the positives, then each positive's first
    negative, then its second, and so on. They come from n rows of the data set, in turns.

    Args:
        draw: Gives the negatives of a user: (user, positives [n]) -> [n * (times - 1)].
        users: The user of each row, in order, [R].
        items: The item of each row, [R].
        times: Candidates for each positive, itself among them.
    """

    def __init__(
        self,
        draw: Callable[[int, np.ndarray], np.ndarray],
        users: np.ndarray,
        items: np.ndarray,
        times: int,
    ) -> None:
        self.times = times
        ids, self.begin, self.count = np.unique(users, return_index=True, return_counts=True)
        self.place = np.full(int(ids[-1]) + 1, -1)  # user -> its place in begin and count
        self.place[ids] = np.arange(len(ids))
        self.items = np.empty(len(items) * times, dtype=np.int64)  # [R * times]
        for user, begin, count in zip(ids, self.begin, self.count, strict=True):
            positives = items[begin : begin + count]  # [n]
            self.items[begin * times : (begin + count) * times] = np.concatenate(
                [positives, draw(int(user), positives)]
            )

    def rows_of(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the data set's rows of some users, and which user each is of; [n], [n]."""
        place = self.place[users]
        return ranges(self.begin[place], self.count[place])

    def of(self, users: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the candidates of some users.

        Returns:
            Of each candidate, [C]: its user's place in ``users``, its row among :meth:`rows_of`,
            its item, and whether that is a positive.
        """
        place = self.place[users]
        begin, count = self.begin[place], self.count[place]  # [B]
        where, user = ranges(begin * self.times, count * self.times)  # [C], [C]
        first = np.cumsum(count) - count  # [B]
        within = where - (begin * self.times)[user]  # [C]
        source = first[user] + within % count[user]  # [C]
        return user, source, self.items[where], within < count[user]


def ranges(begin: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return begin, begin + 1, ... (``count`` of them) of each range, and the range's number."""
    number = np.repeat(np.arange(len(count)), count)  # [n]
    within = np.arange(len(number)) - np.repeat(np.cumsum(count) - count, count)  # [n]
    return begin[number] + within, number
