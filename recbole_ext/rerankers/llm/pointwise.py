"""A prompt for each candidate, answered by yes or no: the difference of the logits is the score.

As Qwen3-Reranker (Zhang et al., 2025), whose models score so untrained. A user's prompts begin
alike; the engine does that part once.
"""

from __future__ import annotations

from collections.abc import Sequence

from recbole_ext.rerankers.base import target_places
from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.rerankers.llm.budget import Titles
from recbole_ext.rerankers.llm.engine import FLOOR
from recbole_ext.rerankers.llm.labels import YES_NO
from recbole_ext.rerankers.llm.modes import Example, Parts, titles_of
from recbole_ext.rerankers.llm.prompts import Prompt
from recbole_ext.rerankers.random import generator_of

FIELDS = ("history", "candidate")


class Pointwise:
    """Scores by a prompt for each candidate; see :class:`modes.Mode`.

    Args:
        parts: What it is made of.
        n_negatives: Candidates that no target is, drawn in each epoch for each row of training.
        share_prefix: Whether what a user's prompts begin with is done once.
    """

    labels = YES_NO

    def __init__(self, parts: Parts, n_negatives: int, share_prefix: bool) -> None:
        self.parts, self.n_negatives = parts, n_negatives
        self._ask = parts.engine.ask_alike if share_prefix else parts.engine.ask

    def score(self, batch: RerankBatch) -> list[list[float]]:
        """Return the log-odds of yes for each candidate."""
        found = []
        for row, candidates in enumerate(batch.candidates):
            prompts = self._prompts(batch, row, range(len(candidates)))
            answers = self._ask(prompts, YES_NO) if prompts else []
            found.append([_log_odds(yes, no) for yes, no in answers])
        return found

    def examples(self, batch: RerankBatch, row: int, epoch: int) -> list[Example]:
        """Return the first target's prompt, for yes, and those of some others, for no."""
        known = target_places(batch)[row]
        others = [place for place in range(len(batch.candidates[row])) if place not in known]
        draw = generator_of(self.parts.seed, f"epoch {epoch} of {batch.users[row]}")
        places = [known[0], *(others[i] for i in draw.permutation(len(others))[: self.n_negatives])]
        prompts = self._prompts(batch, row, places)
        return [
            Example(prompt, len(YES_NO), answer=0 if place == known[0] else 1)
            for place, prompt in zip(places, prompts, strict=True)
        ]

    def _prompts(self, batch: RerankBatch, row: int, places: Sequence[int]) -> list[Prompt]:
        """Return the prompts of some candidates; all have the same history."""
        candidates = [batch.text_of(batch.candidates[row][place]) for place in places]
        if not candidates:
            return []
        count = self.parts.engine.reader.count
        titles = self.parts.budget.fit(
            titles_of(batch, row),
            candidates,
            lambda titles: max(map(count, self._fill(titles))),
        )
        return self._fill(titles)

    def _fill(self, titles: Titles) -> list[Prompt]:
        template, history = self.parts.template, titles.history
        return [template.fill(history, candidate=title) for title in titles.candidates]


def _log_odds(yes: float, no: float) -> float:
    """Return the log-odds of yes; where neither is told, no even odds but the last place."""
    return FLOOR if yes == no == FLOOR else yes - no
