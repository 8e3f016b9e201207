"""KGNewsRec: news as id, text and place in a graph of entities; a user as attention over clicks.

A news is up to three vectors: a learned one of its id, its stored text, and what the graph of news
and entities says of it. Each is brought to one length and mapped to one width, what is missing
takes no part, and a fusion makes one vector of them. The idea is that of DKN (Wang et al., WWW
2018), whose convolution over words and entities is replaced by stored vectors and a graph encoder
(``kg_encoder``: SIGN's precomputed hops, GraphSAGE or GAT).

News that were in no impression and no history of training have no id vector, so that what is
never seen and what is new are scored alike, by text and graph.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.data.features import load_vectors
from recbole_ext.data.news_entities import entity_members, stored_entities
from recbole_ext.models.news.kgnewsrec_parts import (
    NORMS,
    build_graph,
    check_branches,
    ids_of_training,
)
from recbole_ext.models.news.news_recommender import NewsRecommender
from recbole_ext.models.refused_values import (
    check_fraction,
    check_not_negative,
    check_positive,
    check_words,
)
from recbole_ext.modules.content import linear_map
from recbole_ext.modules.feature_table import FeatureTable
from recbole_ext.modules.fusion import LATES, build_fusion
from recbole_ext.modules.losses import exact, match_info_nce
from recbole_ext.modules.modality_dropout import drop_modalities
from recbole_ext.types import Losses

KG_ENCODERS = ("sign", "sage", "gat")


class KGNewsRec(NewsRecommender):
    """News of id, text and graph."""

    of_training = (*NewsRecommender.of_training, "category_head.", "interest_head.")
    seen: Tensor
    category: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size, text = config["embedding_size"], None
        maps, self.norm = {}, config["branch_norm"]
        of_tokens: dict[str, str] = {}
        if config["use_id"]:
            self.id_embedding = nn.Embedding(self.n_items, config["id_embedding_size"])
            nn.init.normal_(self.id_embedding.weight, std=0.1)
            seen = ids_of_training(dataset, self.ITEM_ID, self.USER_ID, self.HISTORY)  # [N]
            self.register_buffer("seen", seen)
            of_tokens |= dict.fromkeys(("id_embedding.weight", "seen"), config["ITEM_ID_FIELD"])
            maps["id"] = linear_map(config["id_embedding_size"], size)
        if config["text_feature"]:
            text = load_vectors(config, dataset, config["text_feature"], "text_feature")  # [N, F]
            self.text = FeatureTable(text)
            maps["text"] = linear_map(self.text.size, size)
        if config["use_graph"]:
            members, tokens = entity_members(dataset, config["ENTITY_FIELD"])  # [N, W]
            stored = stored_entities(config, tokens)  # [E, F']
            self.graph = build_graph(config, members, text, stored, len(tokens))
            if config["use_entity_id"]:
                of_tokens["graph.entity_embedding.weight"] = config["ENTITY_FIELD"]
            maps["graph"] = linear_map(size, size)
        self.maps = nn.ModuleDict(maps)
        self.fusion = build_fusion("late", [1] * len(maps), size, late=config["fusion"])
        self.dropout = nn.Dropout(config["dropout_prob"])
        self.modality_dropout_prob = config["modality_dropout_prob"]
        self.token_fields = of_tokens
        self._init_tasks(config, dataset)

    def _init_tasks(self, config: Any, dataset: Any) -> None:
        """Prepare the auxiliary losses."""
        size, field = config["embedding_size"], config["CATEGORY_FIELD"]
        self.weights = {
            name: config[f"{name}_weight"] for name in ("category", "interest", "contrastive")
        }
        self.temperature = config["contrastive_temperature"]
        if self.weights["category"] or self.weights["interest"]:
            self.register_buffer("category", dataset.item_feat[field], persistent=False)  # [N]
        n_categories = dataset.num(field) if field in dataset.field2type else 0
        if self.weights["category"] > 0:
            self.category_head = nn.Linear(size, n_categories)
        if self.weights["interest"] > 0:
            self.interest_head = nn.Linear(size, n_categories)

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant, and branches without what they are made of."""
        super().check_settings(config, train_dataset)
        check_words(config, {"kg_encoder": KG_ENCODERS, "fusion": LATES, "branch_norm": NORMS})
        check_positive(config, ["id_embedding_size", "n_layers", "contrastive_temperature"])
        check_not_negative(config, ["category_weight", "interest_weight", "contrastive_weight"])
        check_fraction(config, ["modality_dropout_prob"])
        check_branches(config, train_dataset)

    def branches(self, ids: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the vectors of each branch [n, D], and which news have it [n, M].

        The graph, which may be a product over all nodes, is reckoned once in a call.
        """
        of = {"id": "id_embedding", "text": "text", "graph": "graph"}
        raw = [getattr(self, of[name])(ids) for name in self.maps]  # [n, 128], [n, F], [n, D]
        mapped = [
            layer(self._normed(x)) for layer, x in zip(self.maps.values(), raw, strict=True)
        ]  # [n, D] each
        return mapped, torch.stack([mask[ids] for mask in self._masks().values()], 1)

    def _masks(self) -> dict[str, Tensor]:
        """Return which news have each branch, [N] each."""
        found = {}
        for name in self.maps:
            found[name] = self.seen if name == "id" else getattr(self, name).present
        return found

    def encode_news(self, ids: Tensor) -> Tensor:
        """Return the fused vectors, [n] -> [n, D]."""
        return self._fused(*self.branches(ids))

    def says_something(self, ids: Tensor) -> Tensor:
        """Return which of the clicked news have a branch at all, of the ids' shape."""
        return torch.stack(list(self._masks().values())).any(0)[ids] & (ids > 0)

    def losses(self, interaction: Any) -> Losses:
        """Return ``rec``, and ``category``, ``interest``, ``contrastive`` where they have weights.

        The category of a news is told from text and graph alone, for its id would know it by heart.
        A user's interest is the category of the click that follows the history, not of one in it.
        """
        places = self._places(interaction)
        branches, present = self.branches(places.ids)  # M x [n, D], [n, M]
        scored = self._scored(self._fused(branches, present), places)
        found = {"rec": self._loss_of(scored.logits, interaction)}
        clicked = interaction[self.LABEL] > 0  # [B]
        items = interaction[self.ITEM_ID]  # [B]
        if self.weights["category"] > 0:
            found["category"] = self._category_loss(branches, present, places.ids)
        if self.weights["interest"] > 0:
            wanted = self.category[items] * clicked  # [B], 0 counts not
            found["interest"] = self._classified("interest", scored.user, wanted)
        if self.weights["contrastive"] > 0:
            found["contrastive"] = self._contrastive_loss(scored, items, clicked)
        return found

    def _fused(self, branches: list[Tensor], present: Tensor) -> Tensor:
        if self.training and self.modality_dropout_prob > 0:
            present = drop_modalities(present, self.modality_dropout_prob)  # [n, M]
        tokens = [x.unsqueeze(1) for x in branches]  # [n, 1, D] each
        masks = list(present.split(1, 1))  # [n, 1] each
        return self.dropout(self.fusion(tokens, masks, branches[0]))  # [n, D]

    def _normed(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) if self.norm == "l2" else F.layer_norm(x, x.shape[1:])

    def _category_loss(self, branches: list[Tensor], present: Tensor, ids: Tensor) -> Tensor:
        kinds = [i for i, name in enumerate(self.maps) if name != "id"]
        counts = present[:, kinds]  # [n, M']
        x = sum(branches[i] * present[:, [i]] for i in kinds)  # [n, D]
        x = x / counts.sum(1, keepdim=True).clamp_min(1)  # [n, D]
        return self._classified("category", x, self.category[ids] * counts.any(1))

    def _classified(self, task: str, x: Tensor, wanted: Tensor) -> Tensor:
        """Return the weighted cross-entropy of vectors [n, D] and classes [n]; 0 is none."""
        logits = exact(getattr(self, f"{task}_head")(x))  # [n, C]
        total = F.cross_entropy(logits, wanted, ignore_index=0, reduction="sum")
        return self.weights[task] * total / (wanted > 0).sum().clamp_min(1)

    def _contrastive_loss(self, scored: Any, items: Tensor, clicked: Tensor) -> Tensor:
        """Return InfoNCE of users with the news that the batch's users click."""
        if not clicked.any():
            return scored.user.sum() * 0.0
        users, news = scored.user[clicked], scored.shown[clicked, 0]  # [b, D] each
        loss = match_info_nce(users, news, temperature=self.temperature, ids=items[clicked])
        return self.weights["contrastive"] * loss

    def result_extra(self) -> dict[str, Any]:
        """Return what ``result.json`` says: the share of news that have each branch."""
        shares = {name: mask[1:].float().mean().item() for name, mask in self._masks().items()}
        return {"coverage": shares}
