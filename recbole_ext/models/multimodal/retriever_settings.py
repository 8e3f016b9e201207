"""The settings of the preference retrievers: what is refused before anything is built."""

from __future__ import annotations

from typing import Any

from recbole_ext.data.features import which_there_are
from recbole_ext.models.refused_values import check_not_negative, check_positive, check_words
from recbole_ext.modules.pooling import POOLINGS
from recbole_ext.types import UserError

CHOICES = {
    "retrieval_loss": ("softmax", "bpr", "bce"),
    "softmax": ("full", "in_batch"),
    "profile": ("pooled", "stored"),
    "token_pooling": POOLINGS,
    "profile_pooling": POOLINGS,
}
"""Settings that take one of a few words."""
POSITIVE = (
    "scale",
    "n_negatives",
    "contrastive_temperature",
    "diversity_epsilon",
    "content_memory",
)


def check_values(config: Any) -> None:
    """Refuse values that cannot be meant.

    Raises:
        UserError: Naming the key, the value and what it takes.
    """
    check_words(config, CHOICES)
    check_positive(config, POSITIVE)
    check_not_negative(config, ("contrastive_weight", "diversity_weight"))
    if config["diversity_top_k"] < 2:
        raise UserError("diversity_top_k: a list of one is never diverse; take 2 or more")
    if (config["profile"] == "stored") != bool(config["user_feature"]):
        raise UserError(
            "profile: stored and user_feature go together; name the stored texts of the users, "
            "or set profile: pooled and leave user_feature out"
        )
    check_may_leak(config)


def check_may_leak(config: Any) -> None:
    """Refuse to allow a leak where there is nothing to leak.

    Raises:
        UserError: ``user_feature_may_leak`` without ``user_feature``.
    """
    if config["user_feature_may_leak"] and not config["user_feature"]:
        raise UserError(
            "user_feature_may_leak: no user_feature is named, of which it could be true; leave it "
            "out"
        )


def text_feature(config: Any) -> str:
    """Return the name of the items' texts.

    Raises:
        UserError: None is named.
    """
    if not config["text_feature"]:
        raise UserError(
            "text_feature: name the stored texts of the items, as --text_feature=title "
            f"{which_there_are(config)}"
        )
    return config["text_feature"]
