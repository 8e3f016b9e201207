"""Stand-ins for a language model: one that reads words, one that knows what to answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from recbole_ext.rerankers.llm.prompts import Prompt

LINE = re.compile(r"^([A-Za-z])\. (.*)$", re.MULTILINE)


class WordReader:
    """A token is a word."""

    def clean(self, title: str) -> str:
        return " ".join(title.split())

    def cut(self, title: str, n: int) -> str:
        return " ".join(title.split()[:n])

    def count(self, prompt: Prompt) -> int:
        return len(prompt.plain().split())


class KnowingEngine:
    """Scores a letter by the title behind it, and yes by the title of the prompt's last line.

    Attributes:
        asked: All prompts so far.
    """

    reader = WordReader()

    def __init__(self, value: Callable[[str], float]) -> None:
        self.value, self.asked = value, []

    def ask(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[list[float]]:
        self.asked += prompts
        return [self._answer(prompt.user, labels) for prompt in prompts]

    ask_alike = ask

    def _answer(self, text: str, labels: Sequence[str]) -> list[float]:
        if tuple(labels) == ("yes", "no"):
            return [self.value(text.rpartition(": ")[2]), 0.0]
        shown = dict(LINE.findall(text))
        assert list(shown) == list(labels), "a letter for each candidate, in order"
        return [self.value(shown[label]) for label in labels]

    def digest(self) -> str:
        return "knowing"
