"""What VIP5 reads: the history's item numbers with visual tokens behind each, and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_ext.modules.vip5 import N_WHOLE_WORDS, TEXT, VISUAL, Prompts
from recbole_ext.types import UserError

BEGIN = "Given the following purchase history :"
END = "predict the next possible item to be purchased by the user ?"
"""Of P5's sequential prompts, without the user's number: who is new is served as well."""
BETWEEN = ","
PLACEHOLDER = "<extra_id_0>"


class PromptMaker:
    """Makes prompts of histories, and answers of items.

    Args:
        tokenizer: Of a T5.
        items: The catalogue, in order: an item's number in texts is its place, from 1.
        n_visual_tokens: k, of each item.
        max_history: Items of a history at most, the latest.

    Raises:
        UserError: The tokenizer has no placeholder, or a prompt has more words than there are
            embeddings for.
    """

    def __init__(
        self, tokenizer: Any, items: Sequence[str], n_visual_tokens: int, max_history: int
    ) -> None:
        self.tokenizer, self.n_visual_tokens = tokenizer, n_visual_tokens
        self.max_history = max_history
        self.numbers = {item: number for number, item in enumerate(items, 1)}
        self.placeholder = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        if self.placeholder in (None, tokenizer.unk_token_id):
            raise UserError(
                f"the tokenizer of this model has no {PLACEHOLDER}, in whose place visual tokens "
                "stand; name a T5, as t5-small"
            )
        n_words = len(f"{BEGIN} {END}".split()) + max_history * (2 + n_visual_tokens) + 1
        if n_words > N_WHOLE_WORDS:
            raise UserError(
                f"a prompt of max_history {max_history} and n_visual_tokens {n_visual_tokens} has "
                f"{n_words} words, and VIP5 knows {N_WHOLE_WORDS}; lower one of them"
            )
        self._tokens: dict[str, list[int]] = {}

    def number(self, item: str) -> str:
        """Return the number of an item.

        Raises:
            UserError: The catalogue does not have it.
        """
        if item not in self.numbers:
            raise UserError(f"item '{item}' is not in the catalogue; make the candidates anew")
        return str(self.numbers[item])

    def prompts(self, histories: Sequence[Sequence[str]], vectors: np.ndarray) -> Prompts:
        """Return the prompts of histories.

        Args:
            histories: Items, the oldest first.
            vectors: Of :meth:`shown` items in order [V, F].
        """
        rows = [self._row(history[-self.max_history :]) for history in histories]
        length = max(len(row) for row in rows)
        table = torch.zeros(4, len(rows), length, dtype=torch.long)  # [4, B, T]
        table[0] = self.tokenizer.pad_token_id
        for i, row in enumerate(rows):
            table[:, i, : len(row)] = torch.tensor([(*one, 1) for one in row]).T  # [4, t]
        ids, whole_words, categories, mask = table  # each [B, T]
        return Prompts(ids, mask, whole_words, categories, torch.from_numpy(vectors))

    def shown(self, histories: Sequence[Sequence[str]]) -> list[str]:
        """Return the items of the prompts, in order."""
        return [item for history in histories for item in history[-self.max_history :]]

    def _row(self, history: Sequence[str]) -> list[tuple[int, int, int]]:
        """Return token, word and category of each place: a visual token is a word of its own."""
        row: list[tuple[int, int, int]] = []
        words = BEGIN.split()
        for place, item in enumerate(history):
            words += [BETWEEN] * (place > 0)
            words += [self.number(item), *[PLACEHOLDER] * self.n_visual_tokens]
        for number, word in enumerate([*words, *END.split()], 1):
            if word == PLACEHOLDER:
                row.append((self.placeholder, number, VISUAL))
            else:
                row += [(token, number, TEXT) for token in self._of(word)]
        return [*row, (self.tokenizer.eos_token_id, 0, TEXT)]

    def answers(self, items: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the tokens of items' numbers with the end behind, and the mask, [b, S] each."""
        rows = [[*self._of(self.number(item)), self.tokenizer.eos_token_id] for item in items]
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)  # [b, S]
        mask = torch.zeros_like(tokens)  # [b, S]
        for i, row in enumerate(rows):
            tokens[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        return tokens, mask

    def _of(self, word: str) -> list[int]:
        if word not in self._tokens:
            found = self.tokenizer(word, add_special_tokens=False)["input_ids"]
            self._tokens[word] = list(found)
        return self._tokens[word]
