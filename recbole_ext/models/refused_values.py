"""Refuses settings and batches that cannot be meant, in one sentence that says what is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from recbole_ext.types import UserError, suggest

DROPOUTS = ("hidden_dropout_prob", "attn_dropout_prob")
"""RecBole's names of the dropout of a sequential model."""


def check_words(config: Any, choices: Mapping[str, Iterable[str]]) -> None:
    """Check settings that take one of a few words.

    Args:
        config: The run's settings.
        choices: Key -> the words it takes.

    Raises:
        UserError: Naming the key, the word given, those it takes and the nearest of them.
    """
    for key, words in choices.items():
        if config[key] not in words:
            near = suggest(str(config[key]), words)
            raise UserError(f"{key}: '{config[key]}' is none of {', '.join(words)}{near}")


def check_positive(config: Any, keys: Iterable[str]) -> None:
    """Check settings that are greater than 0.

    Raises:
        UserError: Naming the key and the value given.
    """
    for key in keys:
        if not config[key] > 0:  # NaN too
            raise UserError(f"{key}: {config[key]} must be greater than 0")


def check_shares(config: Any, keys: Iterable[str]) -> None:
    """Check settings that are shares or probabilities, which together are 1 at most.

    Raises:
        UserError: Naming the keys and the values given.
    """
    values = {key: config[key] for key in keys}
    if any(not 0 <= value <= 1 for value in values.values()) or sum(values.values()) > 1:
        given = ", ".join(f"{key}: {value}" for key, value in values.items())
        what = "lie in [0, 1]" if len(values) == 1 else "be shares, together at most 1"
        raise UserError(f"{given} must {what}")


def check_fields(model: Any, interaction: Any, fields: Iterable[str]) -> None:
    """Check that a training batch has the fields that our loaders add to RecBole's.

    Raises:
        UserError: Naming the model and the field.
    """
    for field in fields:
        if field not in interaction:
            raise UserError(
                f"{type(model).__name__}: the training batch has no field '{field}'; "
                "build the data with the model's dataset_class and train_loader_class"
            )


def check_not_negative(config: Any, keys: Iterable[str]) -> None:
    """Check settings that are 0 or greater.

    Raises:
        UserError: Naming the key and the value given.
    """
    for key in keys:
        if not config[key] >= 0:  # NaN too
            raise UserError(f"{key}: {config[key]} must be at least 0")


def check_fraction(config: Any, keys: Iterable[str]) -> None:
    """Check settings from 0 to below 1.

    Raises:
        UserError: Naming the key and the value given.
    """
    for key in keys:
        if not 0 <= config[key] < 1:
            raise UserError(f"{key}: {config[key]} must be at least 0 and less than 1")
