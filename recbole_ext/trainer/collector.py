"""What the metrics read, collected with less work than by RecBole's collector."""

from __future__ import annotations

from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_ext.modules.hits import hits_of
from recbole_ext.modules.top import top_items

_OURS = ("rec.items", "rec.topk")


class Parts(DataStruct):
    """Keeps the batches of a tensor until they are read; RecBole's copies them at each new one."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, list[Tensor]] = {}

    def update_tensor(self, name: str, value: Tensor) -> None:
        """Add the rows of a batch."""
        self.parts.setdefault(name, []).append(value.detach().clone())

    def taken(self) -> DataStruct:
        """Return everything, on the CPU, and begin anew with the batches."""
        whole = DataStruct()
        for name, value in self._data_dict.items():
            whole.set(name, value)
        for name, parts in self.parts.items():
            whole.set(name, torch.cat(parts).cpu())  # [rows, ...]
        self.parts = {}
        return whole


class Rest:
    """RecBole's register of what the metrics need, less what :class:`FastCollector` collects."""

    def __init__(self, register: Any) -> None:
        self.register = register

    def need(self, key: str) -> bool:
        """Say whether a metric needs it and nobody has collected it."""
        return key not in _OURS and self.register.need(key)


class FastCollector(Collector):
    """RecBole's collector, which looks at the first K items and not at all of them.

    What only GAUC and the value metrics need (mean ranks, scores, labels) RecBole's own code
    collects.
    """

    register: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.data_struct = Parts()

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect a batch: scores [B, N] (or [B] of single pairs), row and item of positives."""
        needed = [key for key in _OURS if self.register.need(key)]
        if needed:
            top = top_items(scores_tensor, max(self.topk))  # [B, K]
            if "rec.items" in needed:
                self.data_struct.update_tensor("rec.items", top)
            if "rec.topk" in needed:
                hits = hits_of(top, positive_u, positive_i, scores_tensor.shape[1])  # [B, K + 1]
                self.data_struct.update_tensor("rec.topk", hits)
        if self.register.need("data.impression"):
            impression = interaction[self.config["IMPRESSION_FIELD"]]  # [B]
            self.data_struct.update_tensor("data.impression", impression)
        register, self.register = self.register, Rest(self.register)
        try:
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        finally:
            self.register = register

    def get_data_struct(self) -> DataStruct:
        """Return what was collected, and forget the batches."""
        return self.data_struct.taken()
