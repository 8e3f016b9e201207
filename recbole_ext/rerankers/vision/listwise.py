"""Listwise prompts whose candidates have a picture, or words about it, behind the title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_ext.features.qwen_vision import PICTURE
from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.rerankers.llm.budget import Titles
from recbole_ext.rerankers.llm.labels import LETTERS
from recbole_ext.rerankers.llm.listwise import Listwise
from recbole_ext.rerankers.llm.modes import titles_of
from recbole_ext.rerankers.llm.prompts import Prompt
from recbole_ext.rerankers.vision.engine import PicturedPrompt
from recbole_ext.rerankers.vision.evidence import Evidence
from recbole_ext.rerankers.vision.pixels import Picture


class PicturedListwise(Listwise):
    """Scores by one prompt for a user; the history is of titles alone.

    Args:
        arguments: As for ``Listwise``.
        evidence: What is told of a candidate.
        title_tokens: Tokens of a title at most.
        text_tokens: Tokens of what is told in words at most.
    """

    def __init__(
        self, *arguments: Any, evidence: Evidence, title_tokens: int, text_tokens: int
    ) -> None:
        super().__init__(*arguments)
        self.evidence, self.title_tokens, self.text_tokens = evidence, title_tokens, text_tokens

    def _prompt(self, batch: RerankBatch, row: int, places: Sequence[int]) -> Prompt:
        items = [batch.candidates[row][place] for place in places]
        pictures = [self.evidence.picture(item) for item in items]
        budget, reader = self.parts.budget, self.parts.engine.reader
        titles = budget.fit(
            [self._cut(title, self.title_tokens) for title in titles_of(batch, row)],
            [self._told(batch, item) for item in items],
            lambda titles: reader.count(self._shown_with(titles, pictures)),
        )
        return self._shown_with(titles, pictures)

    def _told(self, batch: RerankBatch, item: str) -> str:
        """Return a candidate's title and what is told of it; the budget shortens it at the end."""
        title = self._cut(batch.text_of(item), self.title_tokens)
        text = self._cut(self.evidence.text(item), self.text_tokens)
        return f"{title}: {text}" if text else title

    def _cut(self, text: str, n: int) -> str:
        reader = self.parts.engine.reader
        return reader.cut(reader.clean(text), n)

    def _shown_with(self, titles: Titles, pictures: Sequence[Picture | None]) -> PicturedPrompt:
        rows = zip(LETTERS, titles.candidates, pictures, strict=False)
        lines = [
            f"{letter}. {title}{f' {PICTURE}' if shown else ''}" for letter, title, shown in rows
        ]
        prompt = self.parts.template.fill(titles.history, candidates="\n".join(lines))
        there = tuple(picture for picture in pictures if picture)
        return PicturedPrompt(prompt.user, prompt.system, there)
