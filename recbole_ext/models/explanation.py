"""The neighbours behind a list, in ids and in the dataset's own tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from recbole_ext.modules.memory import MemoryRows


@dataclass(frozen=True)
class Neighbour:
    """A remembered moment that a recommendation rests on: this user, after these items, took that.

    Attributes:
        row: Id of the memory row; the training row of that id.
        user: Internal id of the remembered user.
        user_token: The user's own token.
        prefix: Internal ids of the items before, oldest first, at most the model's limit.
        prefix_tokens: Their tokens.
        target: Internal id of the item that followed.
        target_token: Its token.
        similarity: Cosine between the query and this moment.
        weight: Share of the retrieval distribution; the weights of a list sum to 1.
        alpha: Weight of all neighbours together in the recommendation: share, or exponent where the
            mix is log-linear; 0 leaves them out of it.
    """

    row: int
    user: int
    user_token: str
    prefix: list[int]
    prefix_tokens: list[str]
    target: int
    target_token: str
    similarity: float
    weight: float
    alpha: float


def describe_neighbours(
    rows: MemoryRows,
    places: Tensor,
    similarity: Tensor,
    weights: Tensor,
    alpha: float,
    user_tokens: np.ndarray,
    item_tokens: np.ndarray,
) -> list[Neighbour]:
    """Turn the neighbours of one query into words, the heaviest first.

    Args:
        rows: The memory's rows.
        places: Places of the neighbours [K], negative where there is none.
        similarity: [K].
        weights: [K].
        alpha: Weight of the neighbours in the query's mixture.
        user_tokens: Token of each internal user id [U].
        item_tokens: Token of each internal item id [N].
    """
    found = []
    for place, cosine, weight in zip(
        places.tolist(), similarity.tolist(), weights.tolist(), strict=True
    ):
        if place < 0 or weight == 0.0:
            continue
        row, user, target = int(rows.order[place]), int(rows.users[place]), int(rows.targets[place])
        prefix = rows.item_seq[row, : int(rows.item_seq_len[row])].tolist()
        found.append(
            Neighbour(
                row=row,
                user=user,
                user_token=str(user_tokens[user]),
                prefix=prefix,
                prefix_tokens=[str(item_tokens[item]) for item in prefix],
                target=target,
                target_token=str(item_tokens[target]),
                similarity=cosine,
                weight=weight,
                alpha=alpha,
            )
        )
    return sorted(found, key=lambda neighbour: -neighbour.weight)
