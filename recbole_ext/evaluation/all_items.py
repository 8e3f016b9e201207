"""Scores of items by a trained model of any kind: all items of a user, or some pairs."""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_ext.data.rows import Rows


@torch.no_grad()
def all_scores(model: Any, interaction: Any, items: Any, n_pairs: int) -> Tensor:
    """Return the scores of all items [B, N], on the model's device.

    Args:
        model: A model in evaluation mode.
        interaction: Users or histories, B rows, on its device.
        items: The features of all items, N rows (``dataset.get_item_feature()``).
        n_pairs: Pairs that a model without ``full_sort_predict`` scores at a time.
    """
    try:
        return model.full_sort_predict(interaction).view(len(interaction), -1)  # [B, N]
    except NotImplementedError:  # as RecBole's own evaluation asks
        pass
    n = len(items)
    row = torch.arange(len(interaction)).repeat_interleave(n)  # [B * N]
    item = torch.arange(n).repeat(len(interaction))  # [B * N]
    return pair_scores(model, interaction, items, row, item, n_pairs).view(-1, n)  # [B, N]


@torch.no_grad()
def pair_scores(
    model: Any, interaction: Any, items: Any, row: Tensor, item: Tensor, n_pairs: int
) -> Tensor:
    """Return the scores of pairs, [P].

    Args:
        model: A model in evaluation mode.
        interaction: Users or histories, B rows, on its device.
        items: The features of all items, N rows.
        row: Row of each pair in ``interaction``, [P].
        item: Item of each pair, [P].
        n_pairs: Pairs that are scored at a time.
    """
    users, items = Rows(interaction.interaction), Rows(items.interaction)
    device = next(iter(interaction.interaction.values())).device
    found = []
    for rows, ids in zip(row.split(n_pairs), item.split(n_pairs), strict=True):
        pairs = Interaction(dict(users[rows.to(device)].interaction))
        pairs.update(items[ids].to(device))
        found.append(model.predict(pairs).view(-1))  # [p]
    return torch.cat(found) if found else torch.empty(0)  # [P]
