"""Options that several commands have: written, described and checked once.

A group is a dataclass, whose fields are options (:mod:`recbole_ext.arguments`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from recbole_ext.features.build import DTYPES
from recbole_ext.features.cost import Estimate, confirming
from recbole_ext.features.endpoint import Endpoint
from recbole_ext.types import UserError, suggest

SERVER = "endpoint:"
"""Before the name of a model that a server has."""
OF = ("item", "user")
"""What a feature has a row for."""


@dataclass(frozen=True)
class Feature:
    """A stored feature, or where one is to be.

    Attributes:
        dataset: Dataset.
        name: Of the feature.
        features_dir: Where it lies: features_dir/dataset/name.
    """

    dataset: str
    name: str
    features_dir: str = "features"

    def __post_init__(self) -> None:
        _refuse_path("dataset", self.dataset)

    @property
    def folder(self) -> Path:
        """Where it is written, ``features_dir/dataset/name``; one that is read may be a path.

        Raises:
            UserError: ``name`` would lead elsewhere.
        """
        _refuse_path("name", self.name)
        return Path(self.features_dir) / self.dataset / self.name


def _refuse_path(key: str, value: str) -> None:
    if value in ("", ".", "..") or "/" in value or "\\" in value or "\0" in value:
        raise UserError(
            f"--{key} takes the name of one folder, not '{value}'; another place is named by "
            "--features_dir"
        )


@dataclass(frozen=True)
class FeatureOfData(Feature):
    """A feature, and the files of its dataset.

    Attributes:
        data_path: Folder of the datasets.
    """

    data_path: str | None = None


@dataclass(frozen=True)
class Kept:
    """What is kept.

    Attributes:
        of: item or user.
        dtype: float16 or float32.
    """

    of: str = "item"
    dtype: str = "float16"

    def __post_init__(self) -> None:
        one_of("of", self.of, OF)
        one_of("dtype", self.dtype, DTYPES)


@dataclass(frozen=True)
class Server:
    """A server of OpenAI's protocol, which may ask for money.

    Attributes:
        requests_per_minute: Limit for a server.
        price_per_million: Tokens sent; for the estimate before a server is asked.
        yes: Do not ask before a server is.
    """

    requests_per_minute: float | None = None
    price_per_million: float | None = None
    yes: bool = False

    def __post_init__(self) -> None:
        for key in ("price_per_million", "written_price_per_million"):
            price = getattr(self, key, None)
            if price is not None and not (price >= 0 and math.isfinite(price)):
                raise UserError(f"--{key} takes a price from 0, not {price}")
        limit = self.requests_per_minute
        if limit is not None and not limit > 0:
            raise UserError(f"--requests_per_minute takes a number above 0, not {limit}")

    def endpoint(self) -> Endpoint:
        """Return the server of ``OPENAI_BASE_URL``."""
        return Endpoint(requests_per_minute=self.requests_per_minute)

    def confirm(self, max_new_tokens: int = 0) -> Callable[[Sequence[str]], bool]:
        """Return what shows an estimate of texts to be sent, and asks."""
        return confirming(
            self._ask,
            max_new_tokens=max_new_tokens,
            price_per_million=self.price_per_million,
            written_price_per_million=getattr(self, "written_price_per_million", None),
        )

    def _ask(self, estimate: Estimate) -> bool:
        print(estimate)
        if self.yes:
            return True
        if not sys.stdin.isatty():
            raise UserError("nobody is there to confirm this; give --yes")
        return input("send them? [y/N] ").strip().lower() in ("y", "yes")


@dataclass(frozen=True)
class WritingServer(Server):
    """A server whose answers are paid for too.

    Attributes:
        written_price_per_million: Tokens written; for the estimate.
    """

    written_price_per_million: float | None = None


def one_of(key: str, value: str, words: Sequence[str]) -> None:
    """Refuse a value that is none of some words."""
    if value not in words:
        raise UserError(f"--{key} takes {' or '.join(words)}, not '{value}'{suggest(value, words)}")


def at_least(least: int, **given: int | None) -> None:
    """Refuse numbers that are smaller."""
    for key, value in given.items():
        if value is not None and value < least:
            raise UserError(f"--{key} takes a number from {least}, not {value}")


def at_most(most: int, **given: int | None) -> None:
    """Refuse numbers that are larger, for which no memory would do."""
    for key, value in given.items():
        if value is not None and value > most:
            raise UserError(f"--{key} takes a number up to {most}, not {value}")


def refuse_given(options: Any, what: str) -> None:
    """Refuse options that would be ignored.

    Args:
        options: A group, none of whose options is to be given.
        what: Whose they are, for the error: ``"a server (--encoder=endpoint:MODEL)"``.
    """
    for option in fields(options):
        if getattr(options, option.name) != option.default:
            raise UserError(
                f"--{option.name} is for {what}, and would do nothing here; leave it out"
            )
