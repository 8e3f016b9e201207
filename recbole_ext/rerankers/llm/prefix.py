"""What several prompts begin with is read once; their ends are packed behind it.

Each end sees the prefix and itself, at the positions that it has in its own prompt, so that the
states are those of the whole prompts. Several ends share a row: a row holds a copy of the prefix's
keys and values, and the more rows, the more there is to copy.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Tokens = Sequence[int]


class Prefix:
    """Tokens that a model has read.

    Args:
        model: The part of a causal language model that gives states; all layers attend to all.
        tokens: P tokens; there may be none.
        device: Where the model is.
    """

    def __init__(self, model: Any, tokens: Tokens, device: torch.device) -> None:
        self._model, self._n, self._device = model, len(tokens), device
        known = inspect.signature(model.forward).parameters
        self._key = "cache" if "cache" in known else "past_key_values"  # renamed in 5.24
        self._past: Any = None
        if tokens:
            output = model(input_ids=torch.tensor([tokens], device=device), use_cache=True)
            self._past = output[self._key] if self._key in output else output.past_key_values

    def last_hidden(self, ends: Sequence[Tokens]) -> Tensor:
        """Return the state at the last token of each end [B, D], as if it came after the prefix."""
        lengths = [len(end) for end in ends]
        width = max(lengths)
        # ends add at most half as many keys to a row as the prefix has
        per_row = min(max(self._n // (2 * width), 1), len(ends))
        n_rows = -(-len(ends) // per_row)
        # padded on the right: no token of an end sees what comes later
        ids = torch.zeros(n_rows * per_row, width, dtype=torch.long, device=self._device)
        for row, end in enumerate(ends):
            ids[row, : len(end)] = torch.tensor(end, device=self._device)
        ids = ids.view(n_rows, per_row * width)  # [rows, E * T]
        positions = torch.arange(self._n, self._n + width, device=self._device)  # [T]
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask(per_row, width),
            position_ids=positions.repeat(per_row)[None],  # [1, E * T]
            use_cache=self._past is not None,
            **self._copies(n_rows),
        )
        hidden = output.last_hidden_state.reshape(n_rows * per_row, width, -1)  # [rows * E, T, D]
        last = torch.tensor(lengths, device=self._device) - 1  # [B]
        return hidden[torch.arange(len(ends), device=self._device), last]  # [B, D]

    def _mask(self, n_ends: int, width: int) -> Tensor:
        """Return 0 where an end's token sees a token, and the least number elsewhere."""
        ones = torch.ones(width, width, dtype=torch.bool, device=self._device).tril()  # [T, T]
        within = torch.block_diag(*[ones] * n_ends).bool()  # [E * T, E * T]
        before = within.new_ones(len(within), self._n)  # [E * T, P]
        sees = torch.cat([before, within], 1)[None, None]  # [1, 1, E * T, P + E * T]
        dtype = self._model.dtype
        return torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)

    def _copies(self, n: int) -> dict[str, Any]:
        """Return the prefix's keys and values n times, for reading appends to them."""
        if self._past is None:
            return {}
        past = copy.deepcopy(self._past)
        past.batch_repeat_interleave(n)
        return {self._key: past}


def can_share(model: Any) -> bool:
    """Tell whether a prefix that was read once serves all ends.

    All layers must attend to all that is before, at positions that are told: not in a sliding
    window, nor by a state, nor by the distance in the row (ALiBi), which packing changes.

    Args:
        model: The part of a causal language model that gives states.
    """
    config = model.config
    kinds = {
        *(getattr(config, "layer_types", None) or ()),
        *(getattr(config, "attention_layers", None) or ()),  # GPT-Neo's words: global, local
    }
    is_told = "position_ids" in inspect.signature(model.forward).parameters
    is_limited = getattr(config, "sliding_window", None) or getattr(config, "alibi", False)
    return is_told and not is_limited and kinds <= {"full_attention", "global"}


def common_prefix(rows: Sequence[Tokens]) -> int:
    """Return how many tokens all rows begin with."""
    # whatever lies between the least and the greatest row begins as both do
    first, last = min(map(list, rows)), max(map(list, rows))
    for n, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return n
    return min(len(first), len(last))
