"""UR4Rec: what a user prefers, retrieved from texts, at the input of a sequential recommender.

Zhang, Zhu and Dou, UR4Rec (COLING 2025). A user's memory Z holds the text written of the user, if
there is one that may be seen, and the texts of the last items. Learned proxy tokens ask it by
cross-attention; their aggregate is concatenated to each item's embedding at the input of the
backbone (SASRec or GRU4Rec). Training goes in three phases (``callbacks``): the backbone, the
retriever by L_CL + a L_CF, and both together with the backbone's loss.

What differs: the paper's backbones rerank lists and have the candidates at their input; here the
items at the input are those of the history. Beside a candidate's embedding at the output the same
aggregate would add one number to all scores of a user, which changes no ranking.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_ext.data.bucketing import BucketedTrainDataLoader
from recbole_ext.data.features import load_feature
from recbole_ext.data.prefix_dataset import PrefixDataset
from recbole_ext.models.base import ExtRecommender
from recbole_ext.models.multimodal.retriever_settings import check_may_leak, text_feature
from recbole_ext.models.multimodal.stored_texts import open_user_texts, usable_in
from recbole_ext.models.multimodal.ur4rec_parts import (
    ItemKeys,
    Retrieved,
    build_backbone,
    build_retriever,
)
from recbole_ext.models.refused_values import (
    DROPOUTS,
    check_fraction,
    check_not_negative,
    check_positive,
)
from recbole_ext.modules.feature_source import FeatureSource
from recbole_ext.modules.losses import (
    diversity,
    item_cross_entropy,
    match_info_nce,
    matching_bce,
)
from recbole_ext.modules.pooling import TokenPooling
from recbole_ext.modules.proxy_retriever import check_n_proxies
from recbole_ext.modules.sampling import other_items
from recbole_ext.modules.transformer import trim
from recbole_ext.types import Losses, UserError, suggest

BACKBONES = ("SASRec", "GRU4Rec")
POSITIVE = (
    *("temperature", "memory_items", "n_negatives", "gru_size"),
    *("retriever_layers", "retriever_size", "retriever_heads", "retriever_inner_size"),
)
"""Settings that are greater than 0."""
PREFERENCE_STD = 1e-3
"""Of the weights that the preference enters the backbone with: it begins as the backbone alone."""


class UR4Rec(ExtRecommender, SequentialRecommender):
    """A sequential backbone and a retriever of preferences."""

    dataset_class = PrefixDataset
    history_fields = ()
    train_loader_class = BucketedTrainDataLoader
    cutoffs: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.check_settings(config, dataset)
        self.memory_items = config["memory_items"]
        self.temperature = config["temperature"]
        self.contrastive_weight = config["cl_weight"]
        self.matching_weight = config["cf_weight"]
        self.diversity_weight = config["diversity_weight"]
        self.n_negatives = config["n_negatives"]
        self.time_field = config["TIME_FIELD"]
        self.texts = self._open_texts(config, dataset, config["text_feature"])
        self.user_texts: FeatureSource | None = None
        if config["user_feature"]:
            self.user_texts, cutoffs = open_user_texts(config, dataset, config["user_feature"])
            if (self.user_texts.size, self.user_texts.n_tokens) != (self.texts.size, 1):
                raise UserError(
                    f"user_feature '{config['user_feature']}' has {self.user_texts.n_tokens} x "
                    f"{self.user_texts.size} numbers for a user, and text_feature 1 x "
                    f"{self.texts.size} for an item: one memory holds both; build them with one "
                    "encoder"
                )
            self.register_buffer("cutoffs", cutoffs, persistent=False)  # [U]
        self.encoder = build_backbone(config, self.n_items, self.max_seq_length)
        self.retriever = build_retriever(config, self.texts.size)
        size, width = config["hidden_size"], self.retriever.proxies.shape[1]
        self.aggregate = TokenPooling(width, config["proxy_pooling"])
        self.concatenated = nn.Linear(size + width, size, bias=False)
        with torch.no_grad():
            nn.init.normal_(self.concatenated.weight, std=PREFERENCE_STD)
            self.concatenated.weight[:, :size] = torch.eye(size)

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant."""
        backbone = config["backbone"]
        if backbone not in BACKBONES:
            hint = suggest(str(backbone), BACKBONES)
            raise UserError(f"backbone: '{backbone}' is neither SASRec nor GRU4Rec{hint}")
        text_feature(config)
        check_may_leak(config)
        check_positive(config, POSITIVE)
        check_not_negative(config, ("cl_weight", "cf_weight", "diversity_weight"))
        check_fraction(config, ("retriever_dropout_prob", *DROPOUTS))
        if config["memory_items"] < 2 and not config["user_feature"]:
            raise UserError(
                "memory_items: 1 is a memory of one key, which every proxy attends to alike; take "
                "2 or more, or name a user_feature"
            )
        check_n_proxies(config["n_proxies"])

    def encode(self, interaction: Any) -> Tensor:
        """Return the state of each history, [B, D]."""
        return self._state(interaction, self.queries(interaction))

    def towers(self, interaction: Any, candidates: Tensor | None = None) -> Retrieved:
        """Encode once what the losses of a training batch are computed of.

        Args:
            interaction: Histories and users.
            candidates: Ids of items [B, C] that are to be scored beside.
        """
        memory, mask = self.memory(interaction)  # [B, m, F], [B, m]
        proxies = self.retriever.retrieve(memory, mask)  # [B, K, d]
        state, items = self._state(interaction, proxies), self.encoder.item_embedding.weight
        return Retrieved(state, items, candidates, proxies, memory, mask)

    def losses(self, interaction: Any, towers: Retrieved | None = None) -> Losses:
        """Return ``rec`` (the backbone's cross-entropy) and, weighted, ``cl`` and ``cf``.

        And ``diversity`` of the proxies where it has a weight. All but the first are zeros while
        nothing of the retriever trains.

        Args:
            interaction: Histories, users and targets.
            towers: Of them, where they are encoded already.
        """
        target = interaction[self.POS_ITEM_ID]  # [B]
        towers = self.towers(interaction) if towers is None else towers
        table, proxies = self.encoder.item_embedding, towers.queries  # [B, K, d]
        rec = item_cross_entropy(towers.user, table.weight, target)
        names = ["cl", "cf", *(["diversity"] if self.diversity_weight else [])]
        found = {"rec": rec, **dict.fromkeys(names, torch.zeros_like(rec))}
        if not any(weight.requires_grad for weight in self.retriever.parameters()):
            return found
        if self.contrastive_weight:
            items = self.retriever.encode_items(table(target))  # [B, d]
            cl = match_info_nce(proxies, items, temperature=self.temperature, ids=target)
            found["cl"] = self.contrastive_weight * cl
        others = other_items(target, self.n_negatives, self.n_items)  # [B, n]
        asked = table(torch.cat([target.unsqueeze(1), others], 1))  # [B, 1 + n, D]
        logits = self.retriever.match(towers.memory, towers.mask, asked)  # [B, 1 + n]
        found["cf"] = self.matching_weight * matching_bce(logits[:, 0], logits[:, 1:])
        if self.diversity_weight:
            found["diversity"] = self.diversity_weight * diversity(proxies)
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
        """Score candidates [B, K] or, without any, all items: [B, K] or [B, N]."""
        h, table = self.encode(interaction), self.encoder.item_embedding
        if candidates is None:
            return h @ table.weight.T  # [B, N]
        return self.match(h, table(candidates))  # [B, K]

    def match(self, user: Tensor, items: Tensor) -> Tensor:
        """Return the scores [B, K] of states [B, D] and of embeddings of their items [B, K, D]."""
        return (items @ user.unsqueeze(-1)).squeeze(-1)  # [B, K]

    def result_extra(self) -> dict[str, Any]:
        """Return what ``result.json`` says: the share of items that have a text."""
        return {"coverage": {"text": float(self.texts.present[1:].float().mean())}}

    @property
    def key_encoder(self) -> nn.Module:
        """Item ids [n] -> keys [n, d] of unit length, for the queries of users to meet."""
        return ItemKeys(self.encoder.item_embedding, self.retriever)

    @property
    def key_size(self) -> int:
        """Width d of the keys."""
        return self.retriever.proxies.shape[1]

    def queries(self, interaction: Any) -> Tensor:
        """Return what of each user is contrasted with keys, [B, K, d]: the proxies."""
        return self.retriever.retrieve(*self.memory(interaction))

    def memory(self, interaction: Any) -> tuple[Tensor, Tensor]:
        """Return Z of each row [B, m or m + 1, F], and what of it counts [B, m or m + 1]."""
        item_seq, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        back = torch.arange(min(self.memory_items, item_seq.shape[1]), device=item_seq.device)
        place = lengths[:, None] - 1 - back  # [B, m], the last item first
        items = item_seq.gather(1, place.clamp(min=0)) * (place >= 0)  # [B, m]
        values, mask = self.texts(items.flatten())  # [B m, 1, F], [B m, 1]
        memory, mask = values.view(*items.shape, -1), mask.view(items.shape)  # [B, m, F], [B, m]
        if self.user_texts is None:
            return memory, mask
        text, present = self.user_texts(interaction[self.USER_ID])  # [B, 1, F], [B, 1]
        present = present & self.usable_profiles(interaction)[:, None]  # [B, 1]
        return torch.cat([text, memory], 1), torch.cat([present, mask], 1)

    def usable_profiles(self, interaction: Any) -> Tensor:
        """Say which rows [B] may see the text of their user; others have the items alone."""
        return usable_in(
            interaction, self.cutoffs, self.USER_ID, self.time_field, is_training=self.training
        )

    def _state(self, interaction: Any, proxies: Tensor) -> Tensor:
        """Return the backbone's state [B, D]; proxies [B, K, d] stand at its input as one."""
        lengths = interaction[self.ITEM_SEQ_LEN]  # [B]
        item_seq = trim(interaction[self.ITEM_SEQ], lengths)  # [B, L]
        item_emb = self.encoder.item_embedding(item_seq)  # [B, L, D]
        every = torch.ones(proxies.shape[:2], dtype=torch.bool, device=proxies.device)  # [B, K]
        preference = self.aggregate(proxies, every)  # [B, d]
        # W [e; a] = W_e e + W_a a: the second once for a row, and not for each of its items
        of_items, of_user = self.concatenated.weight.split(
            [item_emb.shape[-1], preference.shape[-1]], 1
        )  # [D, D], [D, d]
        joined = F.linear(item_emb, of_items) + F.linear(preference, of_user).unsqueeze(1)
        return self.encoder.encode_embedded(self.encoder.embed_items(joined), lengths)  # [B, D]

    def _open_texts(self, config: Any, dataset: Any, name: str) -> FeatureSource:
        source = FeatureSource(load_feature(config, dataset, name, kind="text"))
        if source.n_tokens > 1:
            raise UserError(
                f"text_feature '{name}' has {source.n_tokens} vectors for an item, and the memory "
                "takes one of each; name a feature with one"
            )
        return source
