"""All candidates in one prompt, each behind a letter; the letters' logits are the scores.

LlamaRec (Yue et al., 2023): one forward pass for a user, and no text is written.
"""

from __future__ import annotations

from collections.abc import Sequence

from recbole_ext.rerankers.base import target_places
from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.rerankers.llm.budget import Titles
from recbole_ext.rerankers.llm.labels import LETTERS
from recbole_ext.rerankers.llm.modes import Example, Parts, titles_of
from recbole_ext.rerankers.llm.prompts import Prompt
from recbole_ext.rerankers.llm.windows import Places, slide
from recbole_ext.rerankers.random import generator_of
from recbole_ext.types import UserError

FIELDS = ("history", "candidates")


class Listwise:
    """Scores by one prompt for a user; see :class:`modes.Mode`.

    Args:
        parts: What it is made of.
        window: Candidates of a prompt, where more come in windows; ``None``: more are an error.
        step: By how many a window moves up.
        shuffle: Whether candidates stand in an order drawn by seed and user, not stage one's.
    """

    labels = LETTERS

    def __init__(self, parts: Parts, window: int | None, step: int | None, shuffle: bool) -> None:
        if window is not None and not 2 <= window <= len(LETTERS):
            raise UserError(f"window takes 2 to {len(LETTERS)} candidates, not {window}")
        step = step if step is not None else max((window or 2) // 2, 1)
        if window is not None and not 1 <= step < window:
            raise UserError(f"window_step takes 1 to {window - 1}, below window, not {step}")
        self.parts, self.window, self.step, self.shuffle = parts, window, step, shuffle

    def score(self, batch: RerankBatch) -> list[list[float]]:
        """Return the letters' logits; for a row in windows n for the best of n, 1 for the last.

        Raises:
            UserError: There are more candidates than letters, and no windows.
        """
        lengths = [len(row) for row in batch.candidates]
        size = self._size(max(lengths, default=0))
        found: list[list[float]] = [[] for _ in lengths]
        few = [row for row, n in enumerate(lengths) if 0 < n <= size]
        for row, scores in zip(
            few, self._ask(batch, [(row, range(lengths[row])) for row in few]), strict=True
        ):
            found[row] = scores
        many = [row for row, n in enumerate(lengths) if n > size]
        rows = batch.rows(many)
        orders = slide(
            [lengths[row] for row in many], size, self.step, lambda asked: self._ask(rows, asked)
        )
        for row, order in zip(many, orders, strict=True):
            ranked = {place: float(len(order) - rank) for rank, place in enumerate(order)}
            found[row] = [ranked[place] for place in range(len(order))]
        return found

    def _ask(self, batch: RerankBatch, windows: list[tuple[int, Places]]) -> list[list[float]]:
        """Return the logits of some candidates of some rows, in the order of the places given."""
        found: list[list[float]] = [[] for _ in windows]
        for n in sorted({len(places) for _, places in windows}):
            alike = [i for i, (_, places) in enumerate(windows) if len(places) == n]
            shown = [self._shown(batch, *windows[i], "scoring") for i in alike]
            prompts = [
                self._prompt(batch, windows[i][0], places)
                for i, places in zip(alike, shown, strict=True)
            ]
            logits = self.parts.engine.ask(prompts, LETTERS[:n])
            for i, places, scores in zip(alike, shown, logits, strict=True):
                by_place = dict(zip(places, scores, strict=True))
                found[i] = [by_place[place] for place in windows[i][1]]
        return found

    def examples(self, batch: RerankBatch, row: int, epoch: int) -> list[Example]:
        """Return the row's prompt, in an order of its own in each epoch, and the first target's.

        Of more candidates than a window takes the target is asked for among the best others.

        Raises:
            UserError: There are more candidates than letters, and no windows.
        """
        target = target_places(batch)[row][0]
        others = [place for place in range(len(batch.candidates[row])) if place != target]
        size = self._size(len(batch.candidates[row]))
        places = sorted([target, *others[: size - 1]])
        shown = self._shown(batch, row, places, f"epoch {epoch}")
        return [Example(self._prompt(batch, row, shown), len(shown), shown.index(target))]

    def _size(self, n: int) -> int:
        """Return how many of n candidates a prompt takes; without windows it must take all."""
        size = self.window or len(LETTERS)
        if self.window is None and n > size:
            raise UserError(
                f"{n} candidates for {size} labels; set rerank_top_k to {size} or less, "
                "or window, in which more are ranked in parts, or take scoring pointwise"
            )
        return size

    def _shown(self, batch: RerankBatch, row: int, places: Places, what: str) -> list[int]:
        """Return places in the order in which a prompt shows them."""
        if not self.shuffle:
            return list(places)
        # by token first: the order in which they came changes nothing
        by_token = sorted(places, key=lambda place: batch.candidates[row][place])
        draw = generator_of(self.parts.seed, f"{what} of {batch.users[row]}")
        return [by_token[i] for i in draw.permutation(len(by_token))]

    def _prompt(self, batch: RerankBatch, row: int, places: Sequence[int]) -> Prompt:
        candidates = [batch.text_of(batch.candidates[row][place]) for place in places]
        budget, reader = self.parts.budget, self.parts.engine.reader
        titles = budget.fit(
            titles_of(batch, row), candidates, lambda titles: reader.count(self._fill(titles))
        )
        return self._fill(titles)

    def _fill(self, titles: Titles) -> Prompt:
        named = zip(LETTERS, titles.candidates, strict=False)
        lines = "\n".join(f"{letter}. {title}" for letter, title in named)
        return self.parts.template.fill(titles.history, candidates=lines)
