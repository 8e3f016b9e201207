"""What scores the labels of a prompt: a model here (``local``) or a server (``server``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from recbole_ext.rerankers.llm.prompts import Prompt
from recbole_ext.rerankers.llm.readers import Reader

FLOOR = -100.0
"""Log-probability of a label of which a server tells none."""


class Engine(Protocol):
    """Says how likely each label is as the answer to a prompt."""

    @property
    def reader(self) -> Reader:
        """How the model reads."""

    def ask(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[list[float]]:
        """Return a score for each label of each prompt, logits or log-probabilities [B, labels]."""

    def ask_alike(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[list[float]]:
        """Return the same for prompts that begin alike, and perhaps do that part once."""

    def digest(self) -> str:
        """Return a hash of all that decides the scores, but for the prompts."""
