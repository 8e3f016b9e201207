"""What the general recommenders over stored features share: inputs, scores, an evaluation's memory.

A model computes vectors of all users and of all items (``encode``), and a score is the product of
two of them. In an evaluation the vectors are computed once for all batches of users.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_ext.data.features import item_features_of, load_vectors
from recbole_ext.models.base import ExtRecommender
from recbole_ext.models.refused_values import check_not_negative
from recbole_ext.modules.feature_table import FeatureTable
from recbole_ext.modules.graph_conv import Csr, bipartite
from recbole_ext.modules.remembered import Remembered
from recbole_ext.types import UserError


class FeatureRecommender(ExtRecommender, GeneralRecommender):
    """Base of the family; a subclass writes ``encode`` and ``losses``.

    Attributes:
        tables: Modality (``text``, ``image``) -> its raw vectors and who has one.
    """

    input_type = InputType.PAIRWISE
    tables: Any

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.check_settings(config, dataset)
        tables = {
            kind: FeatureTable(_vectors_of(config, dataset, kind, name), config["train_features"])
            for kind, name in item_features_of(config).items()
        }
        self.tables = nn.ModuleDict(tables)
        self._remembered = Remembered()

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant: no feature, or negatives where they are not."""
        item_features_of(config)
        check_not_negative(config, ["reg_weight"])
        is_drawn = config["train_neg_sample_args"]["distribution"] != "none"
        if is_drawn != (cls.input_type == InputType.PAIRWISE):
            what = "draws no" if is_drawn else "compares items with"
            raise UserError(
                f"train_neg_sample_args: {cls.__name__} {what} negatives; leave the setting out"
            )

    def encode(self) -> tuple[Tensor, Tensor]:
        """Return the vectors of all users [U, D] and of all items [N, D]."""
        raise NotImplementedError(f"{type(self).__name__} has no encode()")

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return what :meth:`encode` does; while nothing trains, what it did in the last call."""
        return self._remembered(self, self.encode)

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of one item for each user, [B]."""
        users, items = self.vectors()  # [U, D], [N, D]
        return (users[interaction[self.USER_ID]] * items[interaction[self.ITEM_ID]]).sum(1)  # [B]

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of all items for each user, [B, N]; the padding item never ranks."""
        users, items = self.vectors()  # [U, D], [N, D]
        scores = users[interaction[self.USER_ID]] @ items.T  # [B, N]
        scores[:, 0] = -torch.inf
        return scores

    def train(self, mode: bool = True) -> FeatureRecommender:
        """Set the mode; the vectors of the last evaluation are forgotten."""
        self._remembered.forget()
        return super().train(mode)

    def result_extra(self) -> dict[str, Any]:
        """Return what ``result.json`` says: the share of items that have each modality."""
        shares = {kind: table.present[1:].float().mean() for kind, table in self.tables.items()}
        return {"coverage": {kind: share.item() for kind, share in shares.items()}}

    def _graph_of(self, dataset: Any, is_normalised: bool = True) -> Csr:
        """Return the graph of a dataset's interactions [U + N, U + N]."""
        rows = dataset.inter_feat
        users, items = rows[self.USER_ID], rows[self.ITEM_ID]  # [R] each
        return bipartite(users, items, self.n_users, self.n_items, is_normalised)

    def _embeddings(self, size: int) -> tuple[nn.Embedding, nn.Embedding]:
        """Return the tables of users [U, D] and of items [N, D], by Xavier's uniform numbers."""
        tables = nn.Embedding(self.n_users, size), nn.Embedding(self.n_items, size)
        for table in tables:
            nn.init.xavier_uniform_(table.weight)
        return tables


def _vectors_of(config: Any, dataset: Any, kind: str, name: str) -> Tensor:
    """Return the items' vectors [N, F], of which one at least says something."""
    values = load_vectors(config, dataset, name, f"{kind}_feature")  # [N, F]
    if not values.any():
        raise UserError(
            f"{kind}_feature: '{name}' has zeros alone for the items of '{config['dataset']}'; "
            "build it anew, or name another"
        )
    return values
