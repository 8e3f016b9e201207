"""What a model is to beat: scorers that know nothing, or one thing, evaluated as the model is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Scorer(nn.Module):
    """A scorer by a table of users and items.

    Args:
        users: Name of the field of users.
        items: Name of the field of items.
    """

    def __init__(self, users: str, items: str) -> None:
        super().__init__()
        self.users, self.items = users, items

    def of_all(self, users: Tensor) -> Tensor:
        """Return the scores of all items for some users, [B] -> [B, N]."""
        raise NotImplementedError

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of all items, [B, N]."""
        return self.of_all(interaction[self.users])

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of one item for each user, [B]."""
        scores = self.of_all(interaction[self.users])  # [B, N]
        return scores.gather(1, interaction[self.items].unsqueeze(1)).squeeze(1)  # [B]


class ByItem(Scorer):
    """One score for each item [N], whoever asks: a constant, or the popularity."""

    values: Tensor

    def __init__(self, users: str, items: str, values: Tensor) -> None:
        super().__init__(users, items)
        self.register_buffer("values", values)

    def of_all(self, users: Tensor) -> Tensor:
        """Return the same row for each user, [B, N]."""
        return self.values.repeat(len(users), 1)  # a copy: what a user had is masked in it

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of one item, [B]."""
        return self.values[interaction[self.items]]


class AtRandom(Scorer):
    """A number by chance for each pair; the same in each evaluation."""

    def __init__(self, users: str, items: str, n_items: int) -> None:
        super().__init__(users, items)
        self.n_items = n_items
        self._generator = torch.Generator().manual_seed(0)

    def of_all(self, users: Tensor) -> Tensor:
        """Return scores in [0, 1], [B, N]."""
        found = torch.rand(len(users), self.n_items, generator=self._generator)
        return found.to(users.device)

    def predict(self, interaction: Any) -> Tensor:
        """Return scores in [0, 1], [B]."""
        users = interaction[self.users]
        return torch.rand(len(users), generator=self._generator).to(users.device)


class ByContent(Scorer):
    """The cosine of an item with the mean of what a user took in training.

    Args:
        users: Name of the field of users.
        items: Name of the field of items.
        vectors: Of the items [N, F]; zeros where an item has none.
        taken: User and item of each positive of the training [R] each.
        n_users: Number of users, padding included.
    """

    profiles: Tensor
    vectors: Tensor

    def __init__(
        self, users: str, items: str, vectors: Tensor, taken: tuple[Tensor, Tensor], n_users: int
    ) -> None:
        super().__init__(users, items)
        unit = F.normalize(vectors.float(), dim=1)  # [N, F]
        profiles = unit.new_zeros(n_users, unit.shape[1])  # [users, F]
        for user, item in zip(taken[0].split(1 << 16), taken[1].split(1 << 16), strict=True):
            profiles.index_add_(0, user, unit[item])
        self.register_buffer("vectors", unit)
        self.register_buffer("profiles", F.normalize(profiles, dim=1))

    def of_all(self, users: Tensor) -> Tensor:
        """Return the cosines with all items, [B, N]."""
        return self.profiles[users] @ self.vectors.T

    def predict(self, interaction: Any) -> Tensor:
        """Return the cosine with one item, [B]."""
        users, items = interaction[self.users], interaction[self.items]  # [B] each
        return (self.profiles[users] * self.vectors[items]).sum(1)  # [B]


def click_rates(items: Tensor, labels: Tensor, n_items: int, prior_rows: float = 20.0) -> Tensor:
    """Return the share of clicks of each item [N], of few rows drawn towards that of all.

    Args:
        items: Of the training rows [R].
        labels: Clicks, or ratings [R].
        n_items: N.
        prior_rows: Rows that the mean of all counts for.
    """
    labels = labels.double()
    rows = torch.bincount(items, minlength=n_items)  # [N]
    clicks = torch.bincount(items, labels, minlength=n_items)  # [N]
    return ((clicks + prior_rows * labels.mean()) / (rows + prior_rows)).float()


def one_hot(classes: list[list[str]]) -> Tensor:
    """Return the classes of each item as a row, [N, C]; an item may have none or several."""
    names = sorted({name for several in classes for name in several})
    place = {name: i for i, name in enumerate(names)}
    found = np.zeros((len(classes), max(len(names), 1)), np.float32)  # [N, C]
    for row, several in zip(found, classes, strict=True):
        row[[place[name] for name in several]] = 1
    return torch.from_numpy(found)
