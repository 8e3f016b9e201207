"""A causal language model of transformers on this machine: labels' logits, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from recbole_ext.features.encoded import text_hash
from recbole_ext.features.llm import left_padded
from recbole_ext.features.text_encoders import weights_hash
from recbole_ext.rerankers.llm.labels import label_tokens
from recbole_ext.rerankers.llm.prefix import Prefix, can_share, common_prefix
from recbole_ext.rerankers.llm.prompts import Prompt
from recbole_ext.rerankers.llm.readers import TokenReader

Tokens = Sequence[int]


class LocalEngine:
    """Scores labels by a model; see :class:`engine.Engine`.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer, which pads on the left.
        batch_size: Prompts that go through the model together.
        suffix_batch_size: Ends of prompts that begin alike that go through it together.
        is_compiled: Whether whole prompts go through ``torch.compile``.
        show_progress: Whether many prompts have a progress bar.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int = 8,
        suffix_batch_size: int = 64,
        is_compiled: bool = False,
        show_progress: bool = False,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.reader = TokenReader(tokenizer)
        self.batch_size, self.suffix_batch_size = batch_size, suffix_batch_size
        self.show_progress = show_progress
        self._read: Callable[..., Any] = model.base_model
        if is_compiled:
            self._read = torch.compile(model.base_model, dynamic=True)
        self._can_share = can_share(model.base_model)
        self._label_tokens: dict[tuple[str, ...], list[int]] = {}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.get_input_embeddings().weight.device

    def digest(self) -> str:
        """Return a hash of the weights and of what the tokenizer makes of a prompt."""
        weights = weights_hash(self.model)
        return text_hash(f"{weights} {self.model.dtype} {self.reader.digest()}")

    @torch.no_grad()
    def ask(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[list[float]]:
        """Return the labels' logits, each prompt by itself, those of about one length together."""
        asked = [self.reader.encode(prompt) for prompt in prompts]
        found: list[list[float]] = [[] for _ in asked]
        order = sorted(range(len(asked)), key=lambda i: len(asked[i]))
        for places in self._batches(order, self.batch_size):
            hidden = self.last_hidden([asked[i] for i in places])  # [b, D]
            logits = self.label_logits(hidden, prompts[0], labels)  # [b, labels]
            for place, row in zip(places, logits.tolist(), strict=True):
                found[place] = row
        return found

    @torch.no_grad()
    def ask_alike(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[list[float]]:
        """Return the labels' logits; what all prompts begin with goes through the model once.

        Models with which that cannot be done read each prompt by itself.
        """
        if not self._can_share:
            return self.ask(prompts, labels)
        asked = [self.reader.encode(prompt) for prompt in prompts]
        n = min(common_prefix(asked), min(map(len, asked)) - 1)
        prefix = Prefix(self.model.base_model, asked[0][:n], self.device)
        found: list[list[float]] = []
        for places in self._batches(list(range(len(asked))), self.suffix_batch_size):
            hidden = prefix.last_hidden([asked[i][n:] for i in places])  # [b, D]
            found += self.label_logits(hidden, prompts[0], labels).tolist()
        return found

    def last_hidden(self, asked: Sequence[Tokens]) -> Tensor:
        """Return the state at the end of each prompt [B, D]."""
        padding = self.tokenizer.pad_token_id
        ids, mask = left_padded(asked, padding, self.device)  # [B, T] each
        positions = (mask.cumsum(1) - 1).clamp(min=0)  # [B, T]
        output = self._read(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        )
        return output.last_hidden_state[:, -1]  # [B, D]

    def label_logits(self, hidden: Tensor, prompt: Prompt, labels: Sequence[str]) -> Tensor:
        """Return the logits of the labels [B, labels] in 32 bits; of no other token.

        Args:
            hidden: States where answers begin [B, D].
            prompt: One of the prompts, by which the labels' tokens are found.
            labels: The answers.
        """
        return self._logits(hidden, self.tokens_of(prompt, labels))

    def all_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of every token [B, vocabulary] in 32 bits, for the LM loss."""
        return self._logits(hidden, slice(None))

    def tokens_of(self, prompt: Prompt, labels: Sequence[str]) -> list[int]:
        """Return the labels' tokens where the answer to a prompt begins."""
        key = tuple(labels)
        if key not in self._label_tokens:
            text = self.reader.text(prompt)
            self._label_tokens[key] = label_tokens(self.reader.tokens, text, labels)
        return self._label_tokens[key]

    def _logits(self, hidden: Tensor, rows: list[int] | slice) -> Tensor:
        head = self.model.get_output_embeddings()
        logits = hidden.float() @ head.weight[rows].float().T  # [B, n]
        bias = getattr(head, "bias", None)
        return logits if bias is None else logits + bias[rows].float()

    def _batches(self, places: list[int], size: int) -> Iterator[list[int]]:
        bar = tqdm(
            range(0, len(places), size),
            unit="batch",
            leave=False,
            disable=not self.show_progress or len(places) <= size,
        )
        for begin in bar:
            yield places[begin : begin + size]
