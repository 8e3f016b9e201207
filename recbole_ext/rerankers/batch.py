"""The rows that rerankers score: a user, the history, the candidates, all by external token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class RerankBatch:
    """Users with their candidates.

    Attributes:
        users: User of each row, [B].
        histories: Items that each user had before, the oldest first.
        candidates: At most N items of each row, best of stage one first.
        scores: Those of stage one, float32 [B, N]; -inf where a row has fewer candidates.
        texts: Item -> its text, for all items that have one; see :meth:`text_of`.
        targets: The items that each user took next, in their order; some may be no candidates.
            ``None`` but in training and for the oracle.
    """

    users: Sequence[str]
    histories: Sequence[Sequence[str]]
    candidates: Sequence[Sequence[str]]
    scores: Tensor
    texts: Mapping[str, str] = field(default_factory=dict)
    targets: Sequence[Sequence[str]] | None = None

    def __post_init__(self) -> None:
        """Check that the parts are of the same rows.

        Raises:
            ValueError: They are not.
        """
        width = max((len(row) for row in self.candidates), default=0)
        rows = {len(self.users), len(self.histories), len(self.candidates), len(self.scores)}
        if self.targets is not None:
            rows.add(len(self.targets))
        if len(rows) > 1 or self.scores.dim() != 2 or self.scores.shape[1] < width:
            raise ValueError(
                f"parts of {sorted(rows)} rows, and scores {list(self.scores.shape)} for at most "
                f"{width} candidates"
            )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def mask(self) -> Tensor:
        """Where candidates stand, bool [B, N]; False is padding."""
        lengths = torch.tensor([len(row) for row in self.candidates])  # [B]
        return torch.arange(self.scores.shape[1]) < lengths[:, None]  # [B, N]

    def text_of(self, item: str) -> str:
        """Return the text of an item, or its token where it has none."""
        return self.texts.get(item) or item

    def rows(self, index: Sequence[int]) -> RerankBatch:
        """Return some rows, padded as far as these need it."""
        candidates = [self.candidates[i] for i in index]
        width = max((len(row) for row in candidates), default=0)
        return replace(
            self,
            users=[self.users[i] for i in index],
            histories=[self.histories[i] for i in index],
            candidates=candidates,
            scores=self.scores[torch.as_tensor(index, dtype=torch.long), :width],
            targets=None if self.targets is None else [self.targets[i] for i in index],
        )

    def batches(self, size: int) -> Iterator[RerankBatch]:
        """Yield the rows in their order, ``size`` at a time."""
        for begin in range(0, len(self), size):
            yield self.rows(range(begin, min(begin + size, len(self))))

    def first(self, n: int) -> RerankBatch:
        """Return the rows with their ``n`` best candidates of stage one."""
        candidates = [row[:n] for row in self.candidates]
        return replace(self, candidates=candidates, scores=self.scores[:, :n])

    def without_targets(self) -> RerankBatch:
        """Return the rows as a reranker may see them."""
        return replace(self, targets=None)


def padded(rows: Sequence[Sequence[Any]], width: int | None = None) -> Tensor:
    """Return a score for each candidate as float32 [B, N], -inf behind the last of each row.

    Args:
        rows: Scores of each row's candidates, [n] each.
        width: N; the longest row's by default.
    """
    width = max((len(row) for row in rows), default=0) if width is None else width
    scores = torch.full((len(rows), width), -torch.inf)  # [B, N]
    for place, row in enumerate(rows):
        scores[place, : len(row)] = torch.as_tensor(row, dtype=torch.float32)
    return scores
