"""What the two modes share: the parts they are made of, and an example to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.rerankers.llm.budget import Budget
from recbole_ext.rerankers.llm.engine import Engine
from recbole_ext.rerankers.llm.prompts import Prompt, PromptTemplate


@dataclass(frozen=True)
class Parts:
    """What a mode is made of.

    Attributes:
        template: Of its prompts.
        budget: Room of a prompt.
        engine: Scores labels.
        seed: Of whatever is drawn.
    """

    template: PromptTemplate
    budget: Budget
    engine: Engine
    seed: int


@dataclass(frozen=True)
class Example:
    """A prompt with its answer: label number ``answer`` of the first ``n_labels``."""

    prompt: Prompt
    n_labels: int
    answer: int


class Mode(Protocol):
    """A way to ask for scores."""

    @property
    def labels(self) -> Sequence[str]:
        """The answers."""

    def score(self, batch: RerankBatch) -> list[list[float]]:
        """Return a score for each candidate of each row."""

    def examples(self, batch: RerankBatch, row: int, epoch: int) -> list[Example]:
        """Return what a row is trained on in an epoch."""


def titles_of(batch: RerankBatch, row: int) -> list[str]:
    """Return the texts of a row's history, the oldest first."""
    return [batch.text_of(item) for item in batch.histories[row]]
