"""What the settings of a language model's YAML may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from recbole_ext.features.device import WEIGHT_DTYPES
from recbole_ext.rerankers.llm.training import Training
from recbole_ext.rerankers.ranges import check_ranges
from recbole_ext.types import UserError, suggest

CHOICES = {
    "engine": ("local", "server"),
    "scoring": ("listwise", "pointwise"),
    "loss": ("candidates", "lm"),
    "dtype": WEIGHT_DTYPES,
}
FROM_ONE = (
    *("max_length", "max_history", "max_title_tokens", "min_title_tokens", "prompt_batch_size"),
    *("suffix_batch_size", "lora_rank", "train_batch_size", "accumulation_steps", "stopping_step"),
    *("epochs", "n_negatives", "top_logprobs", "concurrency"),
)
FROM_ZERO = ("learning_rate", "weight_decay", "lora_alpha")
OF_PROMPTS = (
    *("scoring", "max_length", "max_history", "max_title_tokens", "min_title_tokens", "shuffle"),
    *("window", "window_step", "seed"),
)
"""What decides which prompts there are, and what becomes of their answers."""
OF_TRAINING = (
    *("lora", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "loss", "epochs"),
    *("learning_rate", "weight_decay", "warmup_ratio", "clip_grad_norm", "train_batch_size"),
    *("accumulation_steps", "stopping_step", "n_negatives"),
)
PARTS = ("warmup_ratio", "lora_dropout")
"""Below 1."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what cannot be meant.

    Raises:
        UserError: Naming the key, its values and the value given.
    """
    for key, words in CHOICES.items():
        if settings[key] not in words:
            raise UserError(
                f"{key} takes {' or '.join(words)}, not '{settings[key]}'"
                f"{suggest(str(settings[key]), words)}"
            )
    check_ranges(settings, from_one=FROM_ONE, from_zero=FROM_ZERO, above_zero=("clip_grad_norm",))
    for key in PARTS:
        if not 0 <= settings[key] < 1:
            raise UserError(f"{key} takes 0 to below 1, not {settings[key]}")
    if settings["load_in_4bit"] and not settings["lora"]:
        raise UserError("load_in_4bit leaves adapters alone to train; set lora to True")


def training_of(settings: Mapping[str, Any]) -> Training:
    """Return how a reranker's settings say that it is trained."""
    names = {field.name for field in fields(Training)}
    own = {key: value for key, value in settings.items() if key in names}
    return Training(**{**own, "batch_size": settings["train_batch_size"]})
