"""Refuses values of settings that cannot be meant, in one sentence that says what is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from recbole_ext.types import UserError, suggest


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
        if config[key] <= 0:
            raise UserError(f"{key}: {config[key]} must be greater than 0")


def check_fraction(config: Any, keys: Iterable[str]) -> None:
    """Check settings from 0 to below 1.

    Raises:
        UserError: Naming the key and the value given.
    """
    for key in keys:
        if not 0 <= config[key] < 1:
            raise UserError(f"{key}: {config[key]} must be at least 0 and less than 1")
