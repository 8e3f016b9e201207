"""TextPreferenceRetriever: users and items meet in the space of a frozen sentence encoder.

An item is v_i = P x_i + delta_i, of unit length: its text, mapped linearly, and what interactions
say beyond it. A user is pooled from the items of the prefix (``profile: pooled``); where a text was
written about the user beforehand it joins in (``profile: stored``), for the rows whose target comes
after the time up to which it was written. The score is the cosine times a learned scale.

The item vectors of an evaluation are computed once. What is large (tokens of long texts, patches)
is read from its file as batches need it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_ext.data.bucketing import BucketedTrainDataLoader
from recbole_ext.data.features import load_feature
from recbole_ext.data.prefix_dataset import PrefixDataset
from recbole_ext.models.base import ExtRecommender
from recbole_ext.models.multimodal.retriever_settings import check_values, text_feature
from recbole_ext.models.multimodal.stored_texts import open_user_texts, usable_in
from recbole_ext.modules.content import ItemContent
from recbole_ext.modules.feature_source import FeatureSource
from recbole_ext.modules.fusion import build_fusion
from recbole_ext.modules.item_softmax import sampled_cross_entropy
from recbole_ext.modules.losses import (
    bpr,
    diversity,
    item_cross_entropy,
    match_info_nce,
    matching_bce,
)
from recbole_ext.modules.match_score import MatchScore
from recbole_ext.modules.profile import PooledProfile, StoredProfile
from recbole_ext.modules.remembered import Remembered
from recbole_ext.modules.sampling import other_items
from recbole_ext.modules.transformer import trim
from recbole_ext.types import Losses


@dataclass
class Towers:
    """Both sides of a training batch, encoded once for all that is computed of them.

    Attributes:
        user: Vectors of the users [B, D].
        vectors: Those of the items that occur, or of all of them [n, D].
        target: Places of the targets among them [B].
        negatives: Of the negatives [B, K].
        candidates: Of further items that are to be scored [B, C], if any are.
    """

    user: Tensor
    vectors: Tensor
    target: Tensor
    negatives: Tensor
    candidates: Tensor | None = None

    @property
    def queries(self) -> Tensor:
        """What of each user is contrasted with keys: the one vector [B, D]."""
        return self.user


class TextPreferenceRetriever(ExtRecommender, SequentialRecommender):
    """Two towers over stored texts."""

    dataset_class = PrefixDataset
    history_fields = ()
    train_loader_class = BucketedTrainDataLoader
    log_q: Tensor
    cutoffs: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.check_settings(config, dataset)
        self.retrieval_loss = config["retrieval_loss"]
        self.softmax = config["softmax"]
        self.n_negatives = config["n_negatives"]
        self.contrastive_weight = config["contrastive_weight"]
        self.contrastive_temperature = config["contrastive_temperature"]
        self.diversity_weight = config["diversity_weight"]
        self.diversity_epsilon = config["diversity_epsilon"]
        self.diversity_top_k = config["diversity_top_k"]
        self.time_field = config["TIME_FIELD"]
        size = config["hidden_size"]
        sources = {
            modality: FeatureSource(load_feature(config, dataset, name, kind=modality))
            for modality, name in self.features_of(config).items()
        }
        fusion = self._build_fusion(config, [source.n_tokens for source in sources.values()])
        self.content = ItemContent(sources, fusion, size, self.n_items, config["content_memory"])
        self.user_profile = PooledProfile(size, self.max_seq_length, config["profile_pooling"])
        self.user_text: StoredProfile | None = None
        if config["profile"] == "stored":
            source, cutoffs = open_user_texts(config, dataset, config["user_feature"])
            self.user_text = StoredProfile(source, size, self.content.map_of("text"))
            self.register_buffer("cutoffs", cutoffs, persistent=False)  # [U]
        self.score = MatchScore(config["scale"], with_bias=self.retrieval_loss == "bce")
        counts = torch.bincount(dataset.inter_feat[self.POS_ITEM_ID], minlength=self.n_items)  # [N]
        self.register_buffer("log_q", (counts / counts.sum()).log(), persistent=False)  # [N]
        self._remembered = Remembered()

    @classmethod
    def features_of(cls, config: Any) -> dict[str, str]:
        """Return modality -> name of the feature.

        Raises:
            UserError: None is named.
        """
        return {"text": text_feature(config)}

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant."""
        cls.features_of(config)
        check_values(config)

    def encode(self, interaction: Any) -> Tensor:
        """Return the vectors of the users, of unit length, [B, D]."""
        item_seq = trim(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])  # [B, L]
        vectors, (seq,) = self._vectors(item_seq)
        return self._user(vectors[seq], item_seq, interaction)

    def encode_items(self, ids: Tensor) -> Tensor:
        """Return the vectors of items, of unit length, [n] -> [n, D]."""
        vectors, (places,) = self._vectors(ids)
        return vectors[places]

    def towers(self, interaction: Any, candidates: Tensor | None = None) -> Towers:
        """Draw the negatives of a training batch, and encode what its losses are computed of.

        Args:
            interaction: Histories, users and targets.
            candidates: Ids of further items [B, C] that are to be scored.
        """
        target = interaction[self.POS_ITEM_ID]  # [B]
        item_seq = trim(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])  # [B, L]
        n_negatives = 0 if self.retrieval_loss == "softmax" else self.n_negatives
        others = other_items(target, n_negatives, self.n_items)  # [B, K]
        further = [] if candidates is None else [candidates]
        vectors, (seq, *places) = self._vectors(
            item_seq, target, others, *further, every=self._is_full
        )
        return Towers(self._user(vectors[seq], item_seq, interaction), vectors, *places)

    def losses(self, interaction: Any, towers: Towers | None = None) -> Losses:
        """Return ``rec`` and, where they have a weight, ``contrastive`` and ``diversity``.

        Args:
            interaction: Histories, users and targets.
            towers: Of them, where they are encoded already.
        """
        target = interaction[self.POS_ITEM_ID]  # [B]
        towers = self.towers(interaction) if towers is None else towers
        user, vectors, pos = towers.user, towers.vectors, towers.target  # [B, D], [n, D], [B]
        found: Losses = {}
        if self.retrieval_loss != "softmax":
            positive = self.score((user * vectors[pos]).sum(-1))  # [B]
            negative = self.match(user, vectors[towers.negatives])  # [B, K]
            loss = bpr if self.retrieval_loss == "bpr" else matching_bce
            found["rec"] = loss(positive, negative)
        elif self._is_full:
            found["rec"] = item_cross_entropy(user * self.score.scale, vectors, target)
        else:
            log_expected = self.log_q[target] + math.log(len(target))  # [B]
            found["rec"] = sampled_cross_entropy(
                user * self.score.scale, vectors, pos, pos, log_expected
            )
        if self.contrastive_weight:
            found["contrastive"] = self.contrastive_weight * match_info_nce(
                user, vectors[pos], temperature=self.contrastive_temperature, ids=target
            )
        if self.diversity_weight:
            listed = vectors[pos.unique()]  # [n, D]
            found["diversity"] = self.diversity_weight * self._diversity(user, listed)
        return found

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of one item for each history, [B]."""
        return self.scores(interaction, interaction[self.ITEM_ID].unsqueeze(1)).squeeze(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of all items for each history, [B, N]; the padding item never ranks."""
        scores = self.scores(interaction)  # [B, N]
        scores[:, 0] = -torch.inf
        return scores

    def scores(self, interaction: Any, candidates: Tensor | None = None) -> Tensor:
        """Score candidates, with gradients where they are on: what joint training builds on.

        Args:
            interaction: Histories and users.
            candidates: Item ids [B, K]; ``None``: all items, the padding item among them.

        Returns:
            [B, K] or [B, N].
        """
        item_seq = trim(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])  # [B, L]
        if candidates is None:
            vectors, (seq,) = self._vectors(item_seq, every=True)
            return self.score(self._user(vectors[seq], item_seq, interaction) @ vectors.T)
        vectors, (seq, places) = self._vectors(item_seq, candidates)
        user = self._user(vectors[seq], item_seq, interaction)  # [B, D]
        return self.match(user, vectors[places])  # [B, K]

    def match(self, user: Tensor, items: Tensor) -> Tensor:
        """Return the scores [B, K] of vectors of users [B, D] and of their items [B, K, D]."""
        return self.score((items @ user.unsqueeze(-1)).squeeze(-1))  # [B, K]

    @property
    def key_encoder(self) -> nn.Module:
        """Item ids [n] -> keys [n, D] of unit length, for the queries of users to meet."""
        return self.content

    @property
    def key_size(self) -> int:
        """Width D of the keys."""
        return self.content.delta.embedding_dim

    def usable_profiles(self, interaction: Any) -> Tensor:
        """Say which rows [B] may see the text of their user; others have the prefix alone."""
        return usable_in(
            interaction, self.cutoffs, self.USER_ID, self.time_field, is_training=self.training
        )

    def item_vectors(self) -> Tensor:
        """Return the vectors of all items [N, D]; while nothing trains, those of the last call."""
        return self._remembered(self.content, self.content.all)

    def result_extra(self) -> dict[str, Any]:
        """Return what ``result.json`` says: the share of items that have each modality."""
        present = self.content.present(torch.arange(1, self.n_items, device=self.log_q.device))
        shares = present.float().mean(0).tolist()  # [M], of [N - 1, M]
        return {"coverage": dict(zip(self.content.sources, shares, strict=True))}

    def train(self, mode: bool = True) -> TextPreferenceRetriever:
        """Set the mode; the vectors of the last evaluation are forgotten."""
        self._remembered.forget()
        return super().train(mode)

    @property
    def _is_full(self) -> bool:
        """Whether the softmax is over all items."""
        return self.retrieval_loss == "softmax" and self.softmax == "full"

    def _build_fusion(self, config: Any, n_tokens: list[int]) -> nn.Module:
        pooling = config["token_pooling"]
        return build_fusion("late", n_tokens, config["hidden_size"], pooling=pooling)

    def _vectors(self, *ids: Tensor, every: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Return vectors of items [n, D], and the places of ids among them, in their shapes.

        With gradients these are the items that occur, unless every one is wanted.
        """
        if every or not (torch.is_grad_enabled() or self.training):
            return self.item_vectors(), list(ids)
        flat = torch.cat([part.flatten() for part in ids])
        known, places = flat.unique(return_inverse=True)  # [n]
        parts = places.split([part.numel() for part in ids])
        return self.content(known), [p.view_as(i) for p, i in zip(parts, ids, strict=True)]

    def _user(self, items: Tensor, item_seq: Tensor, interaction: Any) -> Tensor:
        """Return users [B, D] for the vectors [B, L, D] of their items [B, L]."""
        mask = self.content.present(item_seq).any(-1)  # [B, L], padding has no content
        user = self.user_profile(items, mask, interaction[self.ITEM_SEQ_LEN])  # [B, D]
        if self.user_text is not None:
            usable = self.usable_profiles(interaction)  # [B]
            user = self.user_text(user, interaction[self.USER_ID], usable)  # [B, D]
        return F.normalize(user, dim=-1, eps=1e-6)

    def _diversity(self, user: Tensor, items: Tensor) -> Tensor:
        """Of the lists [B, K] that the users would have among some items [n, D]."""
        with torch.no_grad():
            top = (user @ items.T).topk(min(self.diversity_top_k, len(items))).indices  # [B, K]
        return diversity(items[top], self.diversity_epsilon)
