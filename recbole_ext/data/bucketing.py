"""Training loader that wastes little on padding: batches of rows of like length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from recbole.data.dataloader import TrainDataLoader
from torch import Tensor
from torch.utils.data import Sampler

from recbole_ext.types import UserError


class BucketedBatches(Sampler[list[int]]):
    """Batches of rows of like length, each row once per epoch, in an order a generator decides.

    The rows are permuted, cut into windows of ``window`` batches, sorted by length within the
    window, and the batches of a window are shuffled. The incomplete batch is cut at a random place
    of its window, so that it does not always hold the longest rows.

    Args:
        rows: Row ids [R].
        lengths: Length of each of them [R].
        batch_size: Rows of a batch.
        window: Batches of a window; 0 leaves the permutation as it is.
        shuffle: Whether the rows are permuted first.
        generator: Source of all randomness; its state before an epoch decides that epoch.
    """

    def __init__(
        self,
        rows: Tensor,
        lengths: Tensor,
        *,
        batch_size: int,
        window: int,
        shuffle: bool,
        generator: torch.Generator,
    ) -> None:
        self.rows = rows
        self.lengths = lengths
        self.batch_size = batch_size
        self.window = window
        self.shuffle = shuffle
        self.generator = generator

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row ids of each batch."""
        n = len(self.rows)
        places = (
            torch.randperm(n, generator=self.generator) if self.shuffle else torch.arange(n)
        )  # [R]
        if self.window == 0:
            for batch in places.split(self.batch_size):
                yield self.rows[batch].tolist()
            return
        for part in places.split(self.window * self.batch_size):
            part = part[
                self.lengths[part].argsort(stable=True)
            ]  # the window's rows, short ones first
            batches = part.split(self._sizes(len(part)))
            for i in torch.randperm(len(batches), generator=self.generator).tolist():
                yield self.rows[batches[i]].tolist()

    def _sizes(self, n_rows: int) -> list[int]:
        full, rest = divmod(n_rows, self.batch_size)
        sizes = [self.batch_size] * full
        if rest:
            sizes.insert(int(torch.randint(full + 1, (), generator=self.generator)), rest)
        return sizes


class BucketedTrainDataLoader(TrainDataLoader):
    """``TrainDataLoader`` whose batches hold rows of like length.

    ``bucket_window`` (in batches) says how far rows may move from RecBole's order; 0 is that order
    itself. The random numbers come from the loader's ``generator``, as RecBole's do. Distributed
    runs keep RecBole's order.
    """

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        self.bucket_window = _bucket_window(config)
        if self.bucket_window and config["single_spec"]:
            self._set_batches(torch.arange(len(dataset)))

    def _set_batches(self, rows: Tensor) -> None:
        """Draw the batches from ``rows`` [R], row ids of the data set."""
        lengths = self._dataset.inter_feat[self._dataset.item_list_length_field]
        batches = BucketedBatches(
            rows,
            lengths[rows],
            batch_size=self.step,
            window=self.bucket_window,
            shuffle=self.shuffle,
            generator=self.generator,
        )
        # torch's loader guards this attribute once it is built; it derives nothing else from it.
        object.__setattr__(self, "batch_sampler", batches)


def _bucket_window(config: Any) -> int:
    window = config["bucket_window"]
    if isinstance(window, bool) or not isinstance(window, int) or window < 0:
        raise UserError(
            f"bucket_window: {window!r} is no number of batches; give 0 (RecBole's order) or more"
        )
    return window
