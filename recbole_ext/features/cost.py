"""What a paid encoder or writer will be asked for, estimated before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

CHARACTERS_PER_TOKEN = 4
"""The usual estimate, for English; other scripts have more tokens."""


def tokens_of(texts: Sequence[str]) -> float:
    """Return the estimated number of tokens of some texts."""
    return sum(map(len, texts)) / CHARACTERS_PER_TOKEN


@dataclass(frozen=True)
class Estimate:
    """What is to be sent, and what it may cost.

    Attributes:
        n_texts: Texts that are new.
        n_characters: Of them.
        n_written_tokens: Most tokens that can be written in answer.
        price_per_million: Of tokens that are sent, in any currency; ``None`` where not known.
        written_price_per_million: Of tokens that are written; ``None`` where not known.
    """

    n_texts: int
    n_characters: int
    n_written_tokens: int = 0
    price_per_million: float | None = None
    written_price_per_million: float | None = None

    @property
    def n_tokens(self) -> float:
        """Tokens to be sent, estimated."""
        return self.n_characters / CHARACTERS_PER_TOKEN

    @property
    def price(self) -> float | None:
        """Price of all, ``None`` where a price that it needs is not known."""
        if self.price_per_million is None:
            return None
        if self.n_written_tokens and self.written_price_per_million is None:
            return None
        written = self.n_written_tokens * (self.written_price_per_million or 0.0)
        return (self.n_tokens * self.price_per_million + written) / 1e6

    def __str__(self) -> str:
        words = (
            f"{self.n_texts:,} new texts, {self.n_characters:,} characters, about "
            f"{self.n_tokens:,.0f} tokens ({CHARACTERS_PER_TOKEN} characters each, an estimate)"
        )
        if self.n_written_tokens:
            words += f", at most {self.n_written_tokens:,} written"
        if self.price is None:
            return f"{words}; the price is not known (price_per_million)"
        return f"{words}; about {self.price:,.4g} in the currency of price_per_million"


def confirming(
    decide: Callable[[Estimate], bool],
    *,
    max_new_tokens: int = 0,
    price_per_million: float | None = None,
    written_price_per_million: float | None = None,
) -> Callable[[Sequence[str]], bool]:
    """Return what ``build`` and ``write_texts`` take as ``confirm``.

    Args:
        decide: Estimate -> whether to go on; it may print it and ask.
        max_new_tokens: Most tokens that are written for a text; 0 for an encoder.
        price_per_million: See :class:`Estimate`.
        written_price_per_million: See :class:`Estimate`.
    """

    def confirm(texts: Sequence[str]) -> bool:
        written = max_new_tokens * len(texts)
        prices = price_per_million, written_price_per_million
        return decide(Estimate(len(texts), sum(map(len, texts)), written, *prices))

    return confirm
