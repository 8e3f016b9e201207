"""Training batches of impressions: each click with non-clicks beside it, or half of all rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataloader.abstract_dataloader import NegSampleDataLoader
from recbole.utils import InputType
from torch import Tensor

from recbole_ext.types import UserError


class RowsLoader(TrainDataLoader):
    """``TrainDataLoader`` of places that a subclass chooses, once an epoch each."""

    sample_size: int

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        negatives = config["train_neg_sample_args"]
        self._set_neg_sample_args(config, dataset, InputType.POINTWISE, negatives)
        is_clicked = dataset.inter_feat[config["LABEL_FIELD"]] > 0  # [R]
        self.clicks, self.others = is_clicked.nonzero()[:, 0], (~is_clicked).nonzero()[:, 0]
        if not len(self.clicks) or not len(self.others):
            has = "clicks alone" if len(self.clicks) else "no click"
            raise UserError(
                f"the training part has {has}, and a model learns from clicks beside non-clicks; "
                f"see LABEL_FIELD ({config['LABEL_FIELD']})"
            )
        self.sample_size = self._choose(config, dataset)
        NegSampleDataLoader.__init__(self, config, dataset, sampler, shuffle=shuffle)

    def _choose(self, config: Any, dataset: Any) -> int:
        """Prepare, and return how many places there are."""
        raise NotImplementedError


class ClickLoader(RowsLoader):
    """A row for each click, with K non-clicks of its impression, drawn anew each time.

    K is ``neg_ratio``, and ``hard_negative_pool`` where the model chooses among them.

    They stand in the field ``neg_item_id`` [B, K]. An impression with fewer repeats them, and a
    click of one without any, which has nothing to be compared with, is no row of training.
    """

    def _choose(self, config: Any, dataset: Any) -> int:
        self.n_negatives = config["neg_ratio"]
        if config["hard_negative_share"] > 0:
            self.n_negatives = max(self.n_negatives, config["hard_negative_pool"])
        self.neg_item_id = config["NEG_PREFIX"] + dataset.iid_field
        field = config["IMPRESSION_FIELD"]
        impression = dataset.inter_feat[field]  # [R]
        order = impression[self.others].argsort(stable=True)
        self.others = self.others[order]  # [O], those of an impression side by side
        counts = torch.bincount(impression[self.others], minlength=int(impression.max()) + 1)
        begins = counts.cumsum(0) - counts  # [I] each
        self.clicks = self.clicks[counts[impression[self.clicks]] > 0]  # [C]
        if not len(self.clicks):
            raise UserError(
                f"no impression of the training part has both a click and a candidate without one "
                f"({field}); take loss: bce, or see LABEL_FIELD"
            )
        of = impression[self.clicks]  # [C]
        self.begin, self.count = begins[of], counts[of]  # [C] each
        return len(self.clicks)

    def collate_fn(self, index: Any) -> Any:
        """Return the joined rows of some clicks, with their non-clicks."""
        places = torch.as_tensor(index)  # [B]
        batch = self.transform(self._dataset, self._dataset[self.clicks[places]])
        items = self._dataset.inter_feat[self.iid_field]  # [R]
        batch.interaction[self.neg_item_id] = items[self._negatives(places)]  # [B, K]
        return batch

    def _negatives(self, places: Tensor) -> Tensor:
        """Draw rows without replacement, as far as there are other ones: [B] -> [B, K]."""
        count = self.count[places].unsqueeze(1)  # [B, 1]
        width = max(int(count.max()), self.n_negatives)
        keys = torch.rand(len(places), width)  # [B, W]
        keys[torch.arange(width) >= count] = 2.0  # behind those that there are
        drawn = keys.argsort(1)[:, : self.n_negatives]  # [B, K]
        # where an impression has too few, the places behind them begin anew
        order = torch.arange(self.n_negatives).expand_as(drawn) % count  # [B, K]
        return self.others[self.begin[places].unsqueeze(1) + drawn.gather(1, order)]  # [B, K]


class BalancedLoader(RowsLoader):
    """Each click once an epoch, and as many non-clicks, which are drawn anew each time."""

    def _choose(self, config: Any, dataset: Any) -> int:
        return 2 * len(self.clicks)

    def collate_fn(self, index: Any) -> Any:
        """Return the joined rows: clicks at the first half of the places, others at the rest."""
        places = torch.as_tensor(np.array(index))  # [B]
        drawn = self.others[torch.randint(len(self.others), places.shape)]  # [B]
        clicks = self.clicks[places % len(self.clicks)]  # [B]
        rows = torch.where(places < len(self.clicks), clicks, drawn)  # [B]
        return self.transform(self._dataset, self._dataset[rows])
