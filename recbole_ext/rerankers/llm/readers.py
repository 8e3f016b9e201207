"""How a model reads: a prompt as its tokens, a title cut to some of them."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import Any, Protocol

from jinja2 import TemplateError

from recbole_ext.features.cost import CHARACTERS_PER_TOKEN, tokens_of
from recbole_ext.features.encoded import text_hash
from recbole_ext.rerankers.llm.prompts import Prompt

REMEMBERED = 512
"""Prompts whose tokens are kept: the budget counts what is asked right after."""


class Reader(Protocol):
    """Reads for a model."""

    def clean(self, title: str) -> str:
        """Return a title on one line, without what the model would take for its own marks."""

    def cut(self, title: str, n: int) -> str:
        """Return at most the first n tokens of a title."""

    def count(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt."""


class TokenReader:
    """Reads by a tokenizer of transformers.

    Args:
        tokenizer: With its chat template, if it has one; the prompt is plain text otherwise.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        marks = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
        words = "|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True) if mark)
        self._marks = re.compile(words) if words else None
        self.encode = lru_cache(REMEMBERED)(self._encode)
        self.cut = lru_cache(1 << 16)(self._cut)

    def clean(self, title: str) -> str:
        """Return a title on one line, without the tokenizer's special tokens."""
        return " ".join((self._marks.sub(" ", title) if self._marks else title).split())

    def _cut(self, title: str, n: int) -> str:
        tokens = self.tokenizer(title, add_special_tokens=False)["input_ids"]
        if len(tokens) <= n:
            return title
        return self.tokenizer.decode(tokens[:n]).replace("\ufffd", "").strip()

    def text(self, prompt: Prompt) -> str:
        """Return the text up to where the answer begins."""
        if self.tokenizer.chat_template is None:
            return prompt.plain()
        try:
            return self._chat(prompt)
        except TemplateError:  # Gemma's, for one, has no place for a system
            if not prompt.system:
                raise
            return self._chat(Prompt(f"{prompt.system}\n\n{prompt.user}"))

    def _chat(self, prompt: Prompt) -> str:
        return self.tokenizer.apply_chat_template(
            prompt.messages(), tokenize=False, add_generation_prompt=True, enable_thinking=False
        )

    def tokens(self, text: str) -> tuple[int, ...]:
        """Return the tokens of such a text; a chat template begins it itself."""
        is_plain = self.tokenizer.chat_template is None
        return tuple(self.tokenizer(text, add_special_tokens=is_plain)["input_ids"])

    def _encode(self, prompt: Prompt) -> tuple[int, ...]:
        return self.tokens(self.text(prompt))

    def count(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt."""
        return len(self.encode(prompt))

    def digest(self) -> str:
        """Return a hash of all that decides the tokens of a prompt."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        known = self.tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
        if backend is not None:  # which the last call has left, and the next one sets anew
            known = {**known, "truncation": None, "padding": None}
        template = self.tokenizer.chat_template
        return text_hash(json.dumps([known, template], sort_keys=True))


class RoughReader:
    """Reads for a server, whose tokenizer is not here: lengths are estimated."""

    def clean(self, title: str) -> str:
        """Return a title on one line."""
        return " ".join(title.split())

    def cut(self, title: str, n: int) -> str:
        """Return the first characters of a title."""
        return title[: n * CHARACTERS_PER_TOKEN].strip()

    def count(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt, estimated."""
        return math.ceil(tokens_of([prompt.plain()]))
