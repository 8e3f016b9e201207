"""What the trainer needs in several processes: one stop for all, and metrics of all the users."""

from __future__ import annotations

from typing import Any

import torch

from recbole_ext.trainer.collector import FastCollector
from recbole_ext.types import UserError

_BY_ROW = (
    *("rec.items", "rec.topk", "rec.meanrank", "rec.score", "data.label"),
    "data.impression",
)
"""What the metrics read that has a row for each user or pair; the rest is the data set's."""


class GatheringCollector(FastCollector):
    """The collector, which gives every process what all of them have collected.

    RecBole computes the metrics of each process and averages them, which is right for means over
    users, and wrong for what looks at all lists at once: GiniIndex, ItemCoverage, AUC.
    """

    def get_data_struct(self) -> Any:
        """Return the rows of all processes; the same in each of them."""
        struct = super().get_data_struct()
        parts = gathered({key: struct.get(key) for key in _BY_ROW if key in struct})
        for key in parts[0]:
            struct.set(key, torch.cat([part[key] for part in parts]))  # [rows, ...]
        return struct


def gathered(value: Any) -> list[Any]:
    """Return the value that each process has, the first one's first; all must call it."""
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, value)
    return parts


def of_first(value: Any) -> Any:
    """Return the value that the first process has; all must call it."""
    parts = [value]
    torch.distributed.broadcast_object_list(parts, src=0)
    return parts[0]


def drop_padding(loader: Any) -> None:
    """Let an evaluation loader give each user once.

    RecBole's sampler repeats the first users until each process has as many; training needs that,
    an evaluation would count them twice.

    Raises:
        UserError: There are fewer users than processes.
    """
    sampler = loader.sampler
    n_rows = len(sampler.dataset)
    if n_rows < sampler.num_replicas:
        raise UserError(
            f"an evaluation has {n_rows} users or pairs, fewer than the {sampler.num_replicas} "
            "processes; lower nproc"
        )
    sampler.total_size = n_rows
    sampler.num_samples = len(range(sampler.rank, n_rows, sampler.num_replicas))
