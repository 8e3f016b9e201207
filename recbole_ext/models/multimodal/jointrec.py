"""JointRec: SASRec and a preference retriever, whose scores are added.

SASRec knows what follows what; a retriever (of texts, of texts and images, or UR4Rec with a
backbone of its own) knows what items are about. The score is
s_sasrec / t_1 + g(u, i) s_retriever / t_2, with learned temperatures and a gate
g = sigmoid(a . h_u + b . e_i + c). Adding two softmaxes instead would keep SASRec's first item
nearly always.

Which part trains when, by which of the named losses, is said in YAML by the callbacks
``Alternate``, ``AdaptiveAlternate``, ``LossCurriculum``, ``Distill`` and ``Freeze``; see
properties/model/JointRec.yaml.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)
from torch import Tensor, nn

from recbole_ext.config import Config
from recbole_ext.data.bucketing import BucketedTrainDataLoader
from recbole_ext.data.prefix_dataset import PrefixDataset
from recbole_ext.models.base import ExtRecommender
from recbole_ext.models.multimodal.textpreferenceretriever import Towers
from recbole_ext.models.multimodal.ur4rec_parts import Retrieved
from recbole_ext.models.refused_values import check_words
from recbole_ext.models.sas_encoder import build_sas_encoder
from recbole_ext.modules.distillation import candidate_loss
from recbole_ext.modules.losses import bpr, item_cross_entropy
from recbole_ext.modules.match_score import bounded_scale
from recbole_ext.modules.memory_bank import MemoryBank, SlowCopy, bank_info_nce
from recbole_ext.modules.sampling import other_items
from recbole_ext.paths import data_folder
from recbole_ext.registry import get_model
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import Losses, UserError, suggest

CHOICES = {
    "sasrec_loss": ("softmax", "bpr"),
    "combine": ("learned", "rank_fusion"),
    "retriever": ("TextPreferenceRetriever", "MultimodalPreferenceRetriever", "UR4Rec"),
}
"""Settings that take one of a few words."""
RANGES = {
    "joint_negatives": (1, 1e6),
    "rank_constant": (1e-6, 1e6),
    "contrastive_weight": (0, 1e6),
    "consistency_weight": (0, 1e6),
    "diversity_weight": (0, 1e6),
    "memory_bank_size": (0, 1e9),
    "bank_temperature": (0.01, 10),
    "bank_decay": (0, 1),
    "hidden_dropout_prob": (0, 0.99),
    "attn_dropout_prob": (0, 0.99),
}
"""Settings and the range of their values."""
LOSSES = ("sasrec", "joint", "retrieval", "contrastive", "matching", "consistency", "diversity")
"""Names of the losses, the same in every batch."""
OF_RETRIEVER = {"rec": "retrieval", "cl": "contrastive", "cf": "matching"}
"""What a loss of the retriever is called here, where it is called otherwise."""
OF_RUN = (*general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments)
"""RecBole's settings of data, training and evaluation."""
OWN_TRAINING = ("callbacks", "epochs", "item_init", "retriever_config")
"""Settings of the whole that are none of the retriever's."""


class JointRec(ExtRecommender, SequentialRecommender):
    """SASRec and a retriever, trained in phases.

    Attributes:
        score_sets: Of the last training batch: name -> scores [B, 1 + K] of the same candidates,
            the positive first; what :class:`~recbole_ext.callbacks.distill.Distill` reads.
    """

    dataset_class = PrefixDataset
    history_fields = ()
    train_loader_class = BucketedTrainDataLoader

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self._check_choices(config)
        self.sasrec_loss = config["sasrec_loss"]
        self.combine = config["combine"]
        self.rank_constant = config["rank_constant"]
        self.n_negatives = config["joint_negatives"]
        self.temperature = config["bank_temperature"]
        self.sasrec = build_sas_encoder(config, self.n_items, self.max_seq_length)
        theirs = retriever_config(config)
        self.retriever = theirs.model_class(theirs, dataset)
        self.mix = ScoreMix(config["hidden_size"])
        self.score_sets: dict[str, Tensor] = {}
        self.bank: MemoryBank | None = None
        if config["memory_bank_size"]:
            self.slow_content = SlowCopy(self.retriever.key_encoder, config["bank_decay"])
            n_keys = min(config["memory_bank_size"], self.n_items - 1)
            self.bank = MemoryBank(n_keys, self.retriever.key_size)
            # its contrast stands in the place of that within a batch, and has its weight
            self.bank_weight = self.retriever.contrastive_weight
            self.retriever.contrastive_weight = 0.0

    @staticmethod
    def _check_choices(config: Any) -> None:
        check_words(config, CHOICES)
        for key, (low, high) in RANGES.items():
            if not low <= config[key] <= high:
                raise UserError(f"{key} takes a number from {low:g} to {high:g}, not {config[key]}")

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant, those of the retriever included."""
        cls._check_choices(config)
        theirs = retriever_config(config)
        theirs.model_class.check_settings(theirs, train_dataset)
        if config["image_feature"] and "image_feature" not in theirs.resolved:
            logging.getLogger().warning(
                "image_feature does nothing: %s reads no pictures; set retriever: "
                "MultimodalPreferenceRetriever, or leave it out",
                config["retriever"],
            )

    def encode(self, interaction: Any) -> Tensor:
        """Return SASRec's states [B, D]."""
        return self.sasrec(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])

    @property
    def item_weight(self) -> Tensor:
        """SASRec's item embeddings [N, D]."""
        return self.sasrec.item_embedding.weight

    def losses(self, interaction: Any) -> Losses:
        """Return the losses of :data:`LOSSES`.

        What is not asked for is zero, and so are the losses of a part that does not train.
        """
        target = interaction[self.POS_ITEM_ID]  # [B]
        negatives = other_items(target, self.n_negatives, self.n_items)  # [B, K]
        candidates = torch.cat([target[:, None], negatives], dim=1)  # [B, 1 + K]
        h = self.encode(interaction)  # [B, D]
        emb = self.item_weight[candidates]  # [B, 1 + K, D]
        ours = (emb @ h.unsqueeze(-1)).squeeze(-1)  # [B, 1 + K]
        towers: Towers | Retrieved | None = None
        if _trains(self.retriever):  # encoded once, for its scores and its losses
            towers = self.retriever.towers(interaction, candidates)
            theirs = self.retriever.match(towers.user, towers.vectors[towers.candidates])
        else:
            theirs = self.retriever.scores(interaction, candidates)  # [B, 1 + K]
        self.score_sets = {"sasrec": ours, "retriever": theirs}
        found: Losses = dict.fromkeys(LOSSES, h.new_zeros(()))
        found["joint"] = candidate_loss(self.mix(ours, theirs, h, emb))
        if _trains(self.sasrec) and self.sasrec_loss == "softmax":
            found["sasrec"] = item_cross_entropy(h, self.item_weight, target)
        elif _trains(self.sasrec):
            found["sasrec"] = bpr(ours[:, 0], ours[:, 1:])
        if towers is not None:
            named = self.retriever.losses(interaction, towers)
            found.update({OF_RETRIEVER.get(name, name): loss for name, loss in named.items()})
            if self.bank is not None:
                found["contrastive"] = self.bank_weight * self._bank_loss(towers.queries, target)
        return found

    def _bank_loss(self, users: Tensor, target: Tensor) -> Tensor:
        """Contrast users [B, D] or [B, K, D] with targets [B] by the bank, which then has these."""
        assert self.bank is not None
        keys = self.slow_content(target)  # [B, D]
        loss = bank_info_nce(users, keys, target, self.bank, self.temperature)
        if self.training:
            self.slow_content.follow()
            self.bank.push(keys, target)
        return loss

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of one item for each history, [B]."""
        return self.scores(interaction, interaction[self.ITEM_ID].unsqueeze(1)).squeeze(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of all items for each history, [B, N]; the padding item never ranks."""
        h = self.encode(interaction)  # [B, D]
        ours, theirs = h @ self.item_weight.T, self.retriever.scores(interaction)  # [B, N] each
        if self.combine == "rank_fusion":
            scores = rank_fusion(ours[:, 1:], theirs[:, 1:], self.rank_constant)  # [B, N - 1]
            return nn.functional.pad(scores, (1, 0), value=-torch.inf)  # [B, N]
        scores = self.mix(ours, theirs, h, self.item_weight)  # [B, N]
        scores[:, 0] = -torch.inf
        return scores

    def scores(self, interaction: Any, candidates: Tensor) -> Tensor:
        """Return the scores of candidates [B, K] for each history, [B, K]."""
        if self.combine == "rank_fusion":  # a rank is among all items
            return self.full_sort_predict(interaction).gather(1, candidates)
        h, emb = self.encode(interaction), self.item_weight[candidates]  # [B, D], [B, K, D]
        ours = (emb @ h.unsqueeze(-1)).squeeze(-1)  # [B, K]
        theirs = self.retriever.scores(interaction, candidates)  # [B, K]
        return self.mix(ours, theirs, h, emb)

    def result_extra(self) -> dict[str, Any]:
        """Return what ``result.json`` says about the retriever."""
        return self.retriever.result_extra()

    def train(self, mode: bool = True) -> JointRec:
        """Set the mode; the scores of the last batch are forgotten."""
        self.score_sets = {}
        return super().train(mode)


class ScoreMix(nn.Module):
    """s_1 / t_1 + g(u, i) s_2 / t_2.

    The gate begins at .12, nearly closed: a retriever that has not trained does little harm.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(2))
        self.of_user = nn.Linear(size, 1)
        self.of_item = nn.Linear(size, 1, bias=False)
        for layer in (self.of_user, self.of_item):
            nn.init.zeros_(layer.weight)
        nn.init.constant_(self.of_user.bias, -2.0)

    def forward(self, first: Tensor, second: Tensor, user: Tensor, items: Tensor) -> Tensor:
        """Return the mixed scores.

        Args:
            first: [B, C].
            second: [B, C].
            user: [B, D].
            items: [B, C, D], or [C, D] for the same ones in each row.

        Returns:
            [B, C].
        """
        gate = torch.sigmoid(self.of_user(user) + self.of_item(items).squeeze(-1))  # [B, C]
        scale = bounded_scale(self.log_scale)  # [2]
        return scale[0] * first + gate * scale[1] * second


def rank_fusion(first: Tensor, second: Tensor, constant: float = 60.0) -> Tensor:
    """Return 1 / (c + rank in the first) + 1 / (c + rank in the second), [B, N] each.

    Cormack, Clarke and Buettcher, Reciprocal rank fusion, SIGIR 2009. Equal scores have one rank.
    """
    return 1 / (constant + _ranks(first)) + 1 / (constant + _ranks(second))


def _ranks(scores: Tensor) -> Tensor:
    """Return 1 + how many of the row are larger, [B, N]."""
    ordered = scores.sort(dim=1).values  # [B, N], ascending
    at_most = torch.searchsorted(ordered, scores.contiguous(), right=True)  # [B, N]
    return scores.shape[1] - at_most + 1


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def retriever_config(config: Any) -> Config:
    """Return the settings of the retriever: those it shares with the whole, and its own.

    Raises:
        UserError: ``retriever_config`` has a key that the retriever does not know, or one that is
            not for a model alone.
    """
    name = config["retriever"]
    get_model(name)  # a misspelt one is said so
    known = Config(name, config["dataset"]).resolved.keys() - set(OWN_TRAINING)
    _refuse_unknown(config, {*known, *OWN_TRAINING})
    given = getattr(config, "resolved", config.final_config_dict)
    shared = {key: value for key, value in given.items() if key in known and key != "model"}
    if not (config["text_feature"] and config["image_feature"]):
        shared.pop("consistency_weight", None)  # of one modality there is nothing to be so with
    own = config["retriever_config"] or {}
    of_run = {*read_yaml(data_folder("properties") / "base.yaml"), *OF_RUN, *OWN_TRAINING}
    for key in own:
        if key in of_run:
            raise UserError(
                f"retriever_config: '{key}' is of the whole run, and would do nothing here; set it "
                "beside retriever_config"
            )
    theirs = Config(name, config["dataset"], None, {**shared, **own})
    theirs["device"] = config["device"]
    return theirs


def _refuse_unknown(config: Any, known: set[str]) -> None:
    """Refuse keys of ``retriever_config`` that its retriever has not, and say which has them."""
    name = config["retriever"]
    for key in sorted((config["retriever_config"] or {}).keys() - known):
        hint = suggest(key, known)
        for other in CHOICES["retriever"]:
            theirs = Config(other, config["dataset"]).resolved.keys() - known
            if key in theirs:
                hint = f"; it is one of {other}: set retriever: {other}, or leave it out"
            elif not hint and suggest(key, theirs):
                hint = f"{suggest(key, theirs).rstrip('?')}, of retriever: {other}?"
        raise UserError(f"retriever_config: '{key}' is no setting of {name}{hint}")
