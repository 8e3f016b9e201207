"""NRMSDocVec: stored vectors of texts, and attention over the clicked ones. The strong baseline.

Wu et al., NRMS (EMNLP-IJCNLP 2019), whose encoder of titles is replaced by a frozen encoder's
vectors, as in Ekstra Bladet's benchmark (Kruse et al., RecSys Challenge 2024): news are those
vectors under a linear map, a user is multi-head self-attention and additive attention over clicked
news, a score is the product of both, and a click is compared with four non-clicks of its
impression.

News without a vector share a learned one as candidates, so that no row is left out; among the
clicked they are passed over.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.data.features import load_vectors
from recbole_ext.models.news.news_recommender import NewsRecommender
from recbole_ext.modules.content import linear_map
from recbole_ext.modules.feature_table import FeatureTable
from recbole_ext.types import UserError


class NRMSDocVec(NewsRecommender):
    """NRMS over stored vectors of documents."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        vectors = load_vectors(config, dataset, config["text_feature"], "text_feature")  # [N, F]
        self.text = FeatureTable(vectors)
        self.project = linear_map(self.text.size, config["embedding_size"])
        self.missing = nn.Parameter(torch.randn(config["embedding_size"]) * 0.1)
        self.dropout = nn.Dropout(config["dropout_prob"])

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant, and no stored texts."""
        super().check_settings(config, train_dataset)
        if not config["text_feature"]:
            raise UserError(
                "text_feature: name the stored vectors of the news' texts, as "
                "--text_feature=title (recbole-ext features builds or imports them)"
            )

    def encode_news(self, ids: Tensor) -> Tensor:
        """Return the mapped vectors of unit length, [n] -> [n, D]."""
        vectors = self.project(F.normalize(self.text(ids), dim=1))  # [n, D]
        has_one = self.text.present[ids].unsqueeze(1)  # [n, 1]
        return self.dropout(torch.where(has_one, vectors, self.missing))

    def says_something(self, ids: Tensor) -> Tensor:
        """Return which of the clicked news have a vector, of the ids' shape."""
        return self.text.present[ids] & (ids > 0)

    def result_extra(self) -> dict[str, Any]:
        """Return what ``result.json`` says: the share of news that have a vector."""
        return {"coverage": {"text": self.text.present[1:].float().mean().item()}}
