"""What the news models share: clicked and shown news of a batch, losses of clicks, evaluation.

A model gives vectors of news (``encode_news``). A user is attention over those that were clicked,
joined to the batch as ids, and a score is the logit of a click. ``predict`` gives probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_ext.data.impression_loaders import BalancedLoader, ClickLoader
from recbole_ext.models.base import ExtRecommender
from recbole_ext.models.refused_values import (
    check_fields,
    check_fraction,
    check_not_negative,
    check_positive,
    check_shares,
    check_words,
)
from recbole_ext.modules.click_losses import (
    click_bce,
    focal,
    hardest,
    impression_softmax,
    sampled_bce,
)
from recbole_ext.modules.click_score import SCORES, ClickScore
from recbole_ext.modules.remembered import Remembered
from recbole_ext.modules.user_encoder import USER_ENCODERS, UserEncoder
from recbole_ext.types import Losses, UserError

LOSSES = ("impression_softmax", "bce")
IMBALANCES = ("none", "pos_weight", "focal", "sampling")
CHUNK = 8192
"""News that are encoded at a time in an evaluation."""


class Places(NamedTuple):
    """The news of a batch, each once.

    Attributes:
        ids: Distinct news [n].
        history: Which of them was clicked before [B, L].
        shown: Which of them was shown, the first of a row is the row's own [B, 1 + K].
    """

    ids: Tensor
    history: Tensor
    shown: Tensor


class Scored(NamedTuple):
    """What a batch's rows come to.

    Attributes:
        user: [B, D].
        shown: [B, 1 + K, D].
        logits: [B, 1 + K].
    """

    user: Tensor
    shown: Tensor
    logits: Tensor


class NewsRecommender(ExtRecommender, GeneralRecommender):
    """Base of the family; a subclass writes ``encode_news`` and ``says_something``.

    Attributes:
        of_training: Prefixes of weights that no score needs; ``recbole-ext score`` leaves them.
        token_fields: Weight or buffer with a row for each token of a field -> the field. All
            others are good for other data too.
    """

    input_type = InputType.POINTWISE
    of_training: tuple[str, ...] = ("hard_step",)
    token_fields: Mapping[str, str] = MappingProxyType({})
    hard_step: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.check_settings(config, dataset)
        self.HISTORY, self.LABEL = config["HISTORY_FIELD"], config["LABEL_FIELD"]
        self.IMPRESSION = config["IMPRESSION_FIELD"]
        self.loss, self.imbalance = config["loss"], config["imbalance"]
        self.focal_gamma, self.neg_ratio = config["focal_gamma"], config["neg_ratio"]
        self.hard_share = config["hard_negative_share"]
        self.hard_steps = config["hard_negative_steps"]
        if self.hard_share > 0:
            self.register_buffer("hard_step", torch.zeros((), dtype=torch.long))
        self.prior = float((dataset.inter_feat[self.LABEL] > 0).double().mean())
        size = config["embedding_size"]
        self.user = UserEncoder(
            config["user_encoder"], size, config["n_heads"], config["query_size"]
        )
        is_compared = self.loss == "impression_softmax"
        self.score = ClickScore(config["score"], self.prior, is_bias_trained=not is_compared)
        self._remembered = Remembered()

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant, and data without histories or labels."""
        check_words(
            config,
            {
                "loss": LOSSES,
                "imbalance": IMBALANCES,
                "score": SCORES,
                "user_encoder": USER_ENCODERS,
            },
        )
        check_positive(config, ["neg_ratio", "embedding_size", "query_size"])
        check_positive(config, ["hard_negative_pool", "hard_negative_steps"])
        check_shares(config, ["hard_negative_share"])
        check_not_negative(config, ["focal_gamma"])
        check_fraction(config, ["dropout_prob"])
        if config["loss"] == "impression_softmax" and config["imbalance"] != "none":
            raise UserError(
                f"imbalance: {config['imbalance']} is of loss: bce; impression_softmax compares a "
                "click with its own impression, so leave one of the two out"
            )
        if config["loss"] == "bce" and config["hard_negative_share"] > 0:
            raise UserError(
                f"hard_negative_share: {config['hard_negative_share']} is of loss: "
                "impression_softmax; bce has each row by itself, so leave one of the two out"
            )
        if config["train_neg_sample_args"]["distribution"] != "none":
            raise UserError(
                f"train_neg_sample_args: {cls.__name__} learns from what was shown and not "
                "clicked; leave the setting out"
            )
        if train_dataset is not None:
            cls._check_fields(config, train_dataset)

    @classmethod
    def _check_fields(cls, config: Any, train_dataset: Any) -> None:
        wanted = {"HISTORY_FIELD": train_dataset.user_feat}
        wanted |= dict.fromkeys(("LABEL_FIELD", "IMPRESSION_FIELD"), train_dataset.inter_feat)
        for key, rows in wanted.items():
            if rows is None or config[key] not in rows:
                raise UserError(
                    f"dataset '{config['dataset']}' is loaded without '{config[key]}' ({key}), "
                    f"which {cls.__name__} reads; see properties/family/news_on_mind.yaml, which "
                    "recbole-ext convert mind writes beside the data as news_on_<name>.yaml"
                )

    @classmethod
    def train_loader_class(cls, config: Any) -> type:  # type: ignore[override]
        """Return the loader of the loss."""
        if config["loss"] == "impression_softmax":
            return ClickLoader
        return BalancedLoader if config["imbalance"] == "sampling" else TrainDataLoader

    def encode_news(self, ids: Tensor) -> Tensor:
        """Return the vectors of news, [n] -> [n, D]."""
        raise NotImplementedError(f"{type(self).__name__} has no encode_news()")

    def says_something(self, ids: Tensor) -> Tensor:
        """Return which news of a history are read, of the ids' shape; the padding is not."""
        raise NotImplementedError(f"{type(self).__name__} has no says_something()")

    def losses(self, interaction: Any) -> Losses:
        """Return ``rec``, of clicks within their impression or of single rows."""
        places = self._places(interaction)
        scored = self._scored(self.encode_news(places.ids), places)
        return {"rec": self._loss_of(scored.logits, interaction)}

    def _places(self, interaction: Any) -> Places:
        """Return the news of a batch, each once, and where they stand."""
        history, shown = interaction[self.HISTORY], interaction[self.ITEM_ID].unsqueeze(1)
        if self.loss == "impression_softmax":
            check_fields(self, interaction, [self.NEG_ITEM_ID])
            shown = torch.cat([shown, interaction[self.NEG_ITEM_ID]], 1)  # [B, 1 + K]
        flat = torch.cat([history.flatten(), shown.flatten()])  # [B L + B (1 + K)]
        ids, place = flat.unique(return_inverse=True)  # [n], [B L + B (1 + K)]
        first, second = place.split([history.numel(), shown.numel()])
        return Places(ids, first.view_as(history), second.view_as(shown))

    def _scored(self, news: Tensor, places: Places) -> Scored:
        """Return users, shown news and their logits, of the vectors of the distinct news [n, D]."""
        is_read = self.says_something(places.ids)[places.history]  # [B, L]
        user = self.user(news[places.history], is_read)  # [B, D]
        shown = news[places.shown]  # [B, 1 + K, D]
        return Scored(user, shown, self.score(user, shown))

    def _loss_of(self, logits: Tensor, interaction: Any) -> Tensor:
        if self.loss == "impression_softmax":
            if self.hard_share > 0:
                logits = hardest(logits, self.neg_ratio, self._next_hard_share())
            return impression_softmax(logits)
        logits, labels = logits[:, 0], interaction[self.LABEL] > 0  # [B] each
        if self.imbalance == "focal":
            return focal(logits, labels, self.focal_gamma)
        if self.imbalance == "sampling":
            return sampled_bce(logits, labels, self.prior)
        is_weighted = self.imbalance == "pos_weight"
        return click_bce(logits, labels, (1 - self.prior) / self.prior if is_weighted else 1.0)

    def _next_hard_share(self) -> float:
        """Return the share of hard negatives, which grows over the first steps of training."""
        share = self.hard_share * min(1.0, self.hard_step.item() / self.hard_steps)
        if self.training:
            self.hard_step += 1
        return share

    def predict(self, interaction: Any) -> Tensor:
        """Return the probability that each row's news is clicked, [B]."""
        news, (user, row) = self.all_news(), self._users(interaction)  # [N, D], [u, D], [B]
        shown = news[interaction[self.ITEM_ID]].unsqueeze(1)  # [B, 1, D]
        return self.score(user[row], shown)[:, 0].sigmoid()

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the probabilities of all news for each row, [B, N]; the padding never ranks."""
        news, (user, row) = self.all_news(), self._users(interaction)  # [N, D], [u, D], [B]
        scores = self.score(user, news).sigmoid()  # [u, N]
        scores[:, 0] = -torch.inf
        return scores[row]

    def all_news(self) -> Tensor:
        """Return the vectors of all news [N, D]; while nothing trains, those of the last call."""
        return self._remembered(self, self._all_news)

    def _all_news(self) -> Tensor:
        ids = torch.arange(self.n_items, device=self.score.bias.device)  # [N]
        return torch.cat([self.encode_news(part) for part in ids.split(CHUNK)])

    def _users(self, interaction: Any) -> tuple[Tensor, Tensor]:
        """Return the vectors of a batch's histories [u, D], each once, and which a row has [B].

        The rows of an impression share a history: encoding it for each is 37 times the work.
        """
        users, row = interaction[self.USER_ID].unique(return_inverse=True)  # [u], [B]
        any_row = torch.empty_like(users).scatter_(
            0, row, torch.arange(len(row), device=row.device)
        )  # [u]
        history = interaction[self.HISTORY][any_row]  # [u, L]
        return self.user(self.all_news()[history], self.says_something(history)), row

    def train(self, mode: bool = True) -> NewsRecommender:
        """Set the mode; the vectors of the last evaluation are forgotten."""
        self._remembered.forget()
        return super().train(mode)
