"""What a comparison sets for all of its models, and what must not differ between their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_ext.types import UserError

PROTOCOL: dict[str, Any] = {
    "mask_history": False,
    "eval_args": {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "group_by": "user",
        "mode": "full",
    },
    "metrics": ["Recall", "NDCG", "MRR", "Hit"],
    "topk": [5, 10, 20],
    "valid_metric": "NDCG@10",
    "MAX_ITEM_LIST_LENGTH": 50,
}
"""What RecBole sets by the model's family, and a comparison for all runs."""

TRAINING: dict[str, Any] = {"epochs": 100, "stopping_step": 10}
"""The same for models that train from nothing; one that starts from another has its own."""

FILTERS = ("val_interval", "user_inter_num_interval", "item_inter_num_interval", "rm_dup_inter")
EQUAL_KEYS = (
    "eval_args",
    "mask_history",
    "topk",
    "metrics",
    "valid_metric",
    "TIME_FIELD",
    *FILTERS,
)
"""Settings that all runs on one dataset must share."""

BY_USER = ("recall", "ndcg", "mrr", "hit", "precision")
"""Metrics that the report computes from the ranks, user by user."""

SHOWN_KEYS = (
    "epochs",
    "stopping_step",
    "MAX_ITEM_LIST_LENGTH",
    "train_batch_size",
    "learning_rate",
    "accelerate",
)
"""Settings that may differ, and that the report shows by model where they do."""


def refuse_unequal(
    one: str,
    ours: Mapping[str, Any],
    other: str,
    theirs: Mapping[str, Any],
    dataset: str,
    remedy: str = "set one for all",
) -> None:
    """Refuse two runs whose numbers do not belong into one table.

    Args:
        one: Name of a run.
        ours: Its settings.
        other: Name of another run.
        theirs: Its settings.
        dataset: The dataset of both.
        remedy: What to do about it.

    Raises:
        UserError: Naming the first setting in which they differ.
    """
    for key in EQUAL_KEYS:
        if ours.get(key) != theirs.get(key):
            raise UserError(
                f"{key} on {dataset} is {ours.get(key)} for {one} and {theirs.get(key)} for "
                f"{other}: their numbers do not compare; {remedy}"
            )
