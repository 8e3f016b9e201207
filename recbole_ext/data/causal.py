"""Training by windows: one pass of a causal encoder serves every prefix of a window.

A training row is a history and its next item. The rows of a user whose histories begin at the same
item are positions of one window, the history of the last of them, so it is enough to feed that row
and to say how many of its last positions count. A history that exceeds the limit begins one item
later than the one before it: it is a window of its own, unless ``causal_stride`` lets windows slide
by several items.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_ext.data.bucketing import BucketedTrainDataLoader
from recbole_ext.data.rows import histories_of
from recbole_ext.modules.histories import PADDED_ROWS, Histories, appended
from recbole_ext.types import UserError

N_SCORED = "n_scored"
"""Field of a batch: how many of the last positions of each window are training rows, [B]."""


def causal_windows(
    users: Tensor,
    item_seq: Tensor | Histories,
    lengths: Tensor,
    targets: Tensor,
    stride: int = 1,
) -> tuple[Tensor, Tensor]:
    """Group training rows into windows.

    Every row belongs to exactly one window. With ``stride`` 1 each keeps its exact history; with a
    larger one a row beyond the limit sees up to ``stride - 1`` items less than its own history has.

    Args:
        users: User of each row [R]; those of a user that follow one another stand together.
        item_seq: Histories [R, L]; where they are offsets, with the next items behind them.
        lengths: Their lengths [R].
        targets: Next items [R].
        stride: Items by which windows slide once histories exceed the limit L.

    Returns:
        ``(rows, n_scored)``, [W] each: the row that carries each window, and how many rows it
        stands for, itself and those just before it.
    """
    n = len(users)
    place = torch.arange(n)
    follows = torch.zeros(n, dtype=torch.bool)  # [R]
    follows[1:] = (users[1:] == users[:-1]) & _goes_on(item_seq, lengths, targets)
    begin = torch.where(follows, 0, place).cummax(0).values  # [R], first row of a row's chain
    slid = (place - begin) - (lengths - lengths[begin])  # [R], items that fell out on the left
    group = (slid + stride - 1) // stride  # [R]
    is_last = torch.ones(n, dtype=torch.bool)
    is_last[:-1] = ~follows[1:] | (group[1:] != group[:-1])
    rows = place[is_last]  # [W]
    return rows, torch.diff(rows, prepend=rows.new_tensor([-1]))


def _goes_on(item_seq: Tensor | Histories, lengths: Tensor, targets: Tensor) -> Tensor:
    """Tell whether a row's history is that of the row before it and its target, [R - 1].

    Of files that are split already a user may have some rows only, so the whole of it is compared.
    """
    if isinstance(item_seq, Histories):  # whose targets stand behind them
        stop = item_seq.windows.stop  # [R]
        return stop[1:] == stop[:-1] + 1
    limit, n = item_seq.size(1), max(0, len(lengths) - 1)
    found = torch.zeros(n, dtype=torch.bool)  # [R - 1]
    for rows in torch.arange(n).split(PADDED_ROWS):
        grown = appended(item_seq[rows], lengths[rows], targets[rows])  # [b, L + 1]
        is_full = (lengths[rows] == limit)[:, None]  # [b, 1], the first item falls out
        grown = torch.where(is_full, grown[:, 1:], grown[:, :-1])  # [b, L]
        found[rows] = (grown == item_seq[rows + 1]).all(1)
    return found


def scored_positions(lengths: Tensor, n_scored: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Tell which positions of a batch of windows are training rows.

    Args:
        lengths: Lengths of the windows [B].
        n_scored: :data:`N_SCORED` [B].
        width: Positions to tell of, L.

    Returns:
        ``(scored, back)``, [B, L] each: whether a position is one, and how many places it stands
        before the window's last.
    """
    position = torch.arange(width, device=lengths.device)  # [L]
    back = lengths[:, None] - 1 - position  # [B, L]
    return (back >= 0) & (back < n_scored[:, None]), back


class CausalTrainDataLoader(BucketedTrainDataLoader):
    """Feeds windows: RecBole's batch of the rows that carry them, plus :data:`N_SCORED`.

    ``train_batch_size`` counts windows. ``causal_stride`` is explained in :func:`causal_windows`;
    ``None`` is the limit, so that a window begins where the one before it ends.
    """

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        if not config["single_spec"]:
            raise UserError(
                "training by windows does not run distributed; leave out nproc, "
                "or use train_on: prefix where the model has it"
            )
        limit = dataset.max_item_list_len
        stride = limit if config["causal_stride"] is None else config["causal_stride"]
        if isinstance(stride, bool) or not isinstance(stride, int) or not 1 <= stride <= limit:
            raise UserError(
                f"causal_stride: {stride!r} must be between 1 (exact) "
                f"and MAX_ITEM_LIST_LENGTH {limit}"
            )
        feat = dataset.inter_feat
        rows, n_scored = causal_windows(
            feat[dataset.uid_field],
            histories_of(feat, dataset.item_id_list_field),
            feat[dataset.item_list_length_field],
            feat[dataset.iid_field],
            stride,
        )
        self.n_scored = torch.zeros(len(dataset), dtype=torch.int64)  # [R], 0 where no window ends
        self.n_scored[rows] = n_scored
        self._set_batches(rows)

    def collate_fn(self, index: list[int]) -> Interaction:
        """Return RecBole's batch of the rows ``index`` with :data:`N_SCORED`."""
        batch = super().collate_fn(index)
        batch.update(Interaction({N_SCORED: self.n_scored[index]}))
        return batch
