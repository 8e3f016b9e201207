"""Interactions in arrays: twenty bytes each, and each id once as text."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from recbole_ext.data.convert.raw import Interaction


@dataclass(frozen=True)
class Interactions:
    """Interactions in the order of the files; users and items by number.

    Attributes:
        user: [n] int32, place in ``users``.
        item: [n] int32, place in ``items``.
        rating: [n] float32.
        timestamp: [n] float64, seconds since 1970.
        users: Tokens in the order in which they first came, of users that were filtered out too.
        items: The same of items.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray
    users: list[str]
    items: list[str]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, which: np.ndarray | slice) -> Interactions:
        """Return some of the interactions, by a mask [n], their places, or a range."""
        columns = ("user", "item", "rating", "timestamp")
        return replace(self, **{name: getattr(self, name)[which] for name in columns})

    def there(self, of: str) -> list[str]:
        """Return the tokens of the users, or items, that have interactions."""
        tokens, codes = getattr(self, f"{of}s"), getattr(self, of)
        return [tokens[code] for code in np.flatnonzero(np.bincount(codes, minlength=1))]


def collect(rows: Iterable[Interaction]) -> Interactions:
    """Number the users and items of a stream, and keep it in arrays."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user, item, rating, timestamp = array("i"), array("i"), array("f"), array("d")
    for user_token, item_token, value, time in rows:
        user.append(users.setdefault(user_token, len(users)))
        item.append(items.setdefault(item_token, len(items)))
        rating.append(value)
        timestamp.append(time)
    return Interactions(  # views of what was collected: nothing is copied
        np.asarray(user),
        np.asarray(item),
        np.asarray(rating),
        np.asarray(timestamp),
        list(users),
        list(items),
    )
