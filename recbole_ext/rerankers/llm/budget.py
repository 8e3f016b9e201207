"""What goes into a prompt when not all fits: titles are shortened, then the history; no candidate.

The prompt's own words and all candidates always stay. Titles lose their ends, all to one number of
tokens; when they are as short as they may get, the history loses its oldest items, all but one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recbole_ext.rerankers.llm.readers import Reader
from recbole_ext.types import UserError


@dataclass(frozen=True)
class Titles:
    """Titles as a prompt has them: the history's, the oldest first, and the candidates'."""

    history: tuple[str, ...]
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Budget:
    """The room of a prompt.

    Attributes:
        reader: Counts and cuts.
        max_length: Tokens of a prompt.
        max_history: Items of a history at most, the latest.
        max_title_tokens: Tokens of a title at most.
        min_title_tokens: Tokens to which titles are shortened at most.
    """

    reader: Reader
    max_length: int
    max_history: int
    max_title_tokens: int
    min_title_tokens: int

    def fit(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        count: Callable[[Titles], int],
    ) -> Titles:
        """Return titles with which a prompt fits.

        Args:
            history: Titles, the oldest first.
            candidates: Titles.
            count: Titles -> tokens of the prompt.

        Raises:
            UserError: Not even the shortest titles and one item of history fit.
        """
        last = [self.reader.clean(title) for title in history[-self.max_history :]]
        asked = [self.reader.clean(title) for title in candidates]

        def cut(n_tokens: int, n_history: int) -> Titles:
            kept = last[len(last) - n_history :]
            return Titles(
                tuple(self.reader.cut(title, n_tokens) for title in kept),
                tuple(self.reader.cut(title, n_tokens) for title in asked),
            )

        def fits(n_tokens: int, n_history: int) -> bool:
            return count(cut(n_tokens, n_history)) <= self.max_length

        everything, shortest = len(last), min(self.min_title_tokens, self.max_title_tokens)
        if fits(self.max_title_tokens, everything):
            return cut(self.max_title_tokens, everything)
        if fits(shortest, everything):
            tokens = _most(shortest, self.max_title_tokens, lambda n: fits(n, everything))
            return cut(tokens, everything)
        least = min(everything, 1)
        if not fits(shortest, least):
            n = count(cut(shortest, least))
            raise UserError(
                f"a prompt with {len(asked)} candidates takes {n} tokens with titles of "
                f"min_title_tokens {shortest} and {least} item of history, and max_length is "
                f"{self.max_length}; raise max_length, or lower rerank_top_k or min_title_tokens"
            )
        return cut(shortest, _most(least, everything, lambda n: fits(shortest, n)))


def _most(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number below ``high`` that fits; ``low`` does and ``high`` does not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
