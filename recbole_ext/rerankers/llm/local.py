"""A causal language model of transformers on this machine: labels' logits, and no others."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from recbole_ext.features.encoded import text_hash
from recbole_ext.features.text_encoders import weights_hash
from recbole_ext.rerankers.llm.labels import label_tokens
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
        known = inspect.signature(model.base_model.forward).parameters
        self._cache_key = "cache" if "cache" in known else "past_key_values"  # since 5.24
        self._label_tokens: dict[tuple[str, ...], list[int]] = {}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.get_input_embeddings().weight.device

    def digest(self) -> str:
        """Return a hash of the weights and of what the tokenizer makes of a prompt."""
        template = self.tokenizer.chat_template or ""
        return text_hash(f"{weights_hash(self.model)} {self.model.dtype} {template}")

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

        Its keys and values are then read by every end, at positions that go on from it.
        """
        asked = [self.reader.encode(prompt) for prompt in prompts]
        n = min(common_prefix(asked), min(map(len, asked)) - 1)
        prefix = torch.tensor([asked[0][:n]], device=self.device)  # [1, P]
        past = self._past(self.model.base_model(prefix, use_cache=True)) if n else None
        found: list[list[float]] = []
        for places in self._batches(list(range(len(asked))), self.suffix_batch_size):
            hidden = self._after(past, n, [asked[i][n:] for i in places])  # [b, D]
            found += self.label_logits(hidden, prompts[0], labels).tolist()
        return found

    def last_hidden(self, asked: Sequence[Tokens]) -> Tensor:
        """Return the state at the end of each prompt [B, D]."""
        rows = [{"input_ids": list(tokens)} for tokens in asked]
        padded = self.tokenizer.pad(rows, padding=True, padding_side="left", return_tensors="pt")
        ids = padded["input_ids"].to(self.device)  # [B, T]
        mask = padded["attention_mask"].to(self.device)  # [B, T]
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

    def _after(self, past: Any, n: int, ends: Sequence[Tokens]) -> Tensor:
        """Return the state at the last token of each end [b, D], read after n tokens."""
        lengths = torch.tensor([len(end) for end in ends], device=self.device)  # [b]
        width = int(lengths.max())
        # padded on the right: what comes later is seen by no token of the end
        ids = torch.zeros(len(ends), width, dtype=torch.long, device=self.device)  # [b, T]
        for row, end in enumerate(ends):
            ids[row, : len(end)] = torch.tensor(end, device=self.device)
        mask = torch.arange(n + width, device=self.device) < n + lengths[:, None]  # [b, P + T]
        more = {}
        if past is not None:
            more[self._cache_key] = copy.deepcopy(past)  # reading appends to it
            more[self._cache_key].batch_repeat_interleave(len(ends))
        output = self.model.base_model(
            input_ids=ids,
            attention_mask=mask.long(),
            position_ids=torch.arange(n, n + width, device=self.device)[None],  # [1, T]
            use_cache=past is not None,
            **more,
        )
        rows = torch.arange(len(ends), device=self.device)
        return output.last_hidden_state[rows, lengths - 1]  # [b, D]

    def _past(self, output: Any) -> Any:
        return getattr(output, self._cache_key, None) or output.past_key_values

    def _batches(self, places: list[int], size: int) -> Iterator[list[int]]:
        bar = tqdm(
            range(0, len(places), size),
            unit="batch",
            leave=False,
            disable=not self.show_progress or len(places) <= size,
        )
        for begin in bar:
            yield places[begin : begin + size]


def common_prefix(rows: Sequence[Tokens]) -> int:
    """Return how many tokens all rows begin with."""
    # whatever lies between the least and the greatest row begins as both do
    first, last = min(map(list, rows)), max(map(list, rows))
    for n, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return n
    return min(len(first), len(last))
