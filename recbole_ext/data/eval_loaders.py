"""Evaluation loaders that make explicit what RecBole leaves open: masking and negatives."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.sampler import RepeatableSampler
from recbole.utils import ModelType

from recbole_ext.data.candidates import Candidates, CandidateTable
from recbole_ext.data.history import History, HistorySampler
from recbole_ext.data.rows import Rows
from recbole_ext.data.scoring import scores_all, scores_once, users_at_a_time

_PHASES = {"valid": 1, "test": 2}


class MaskedFullSortLoader(FullSortEvalDataLoader):
    """Full ranking; ``mask_history`` says whether the user's earlier items are left out.

    RecBole masks them for general models and not for sequential ones, which makes the two
    incomparable.
    """

    history: History | None = None

    def _init_batch_size_and_step(self) -> None:
        """Take as many users as the memory for scores allows, where RecBole takes about one."""
        super()._init_batch_size_and_step()
        if self.is_sequential or scores_all(self.config):
            self.step = users_at_a_time(self.config, self._dataset.item_num)
            self.set_batch_size(self.step)

    def collate_fn(self, index: Any) -> tuple[Any, Any, Any, Any]:
        """Return RecBole's batch with the history index that the setting asks for."""
        interaction, history, positive_u, positive_i = super().collate_fn(index)
        if not self.config["mask_history"]:
            history = None
        elif self.history is not None:
            history = self.history.index(interaction[self.uid_field], positive_i)
        return interaction, history, positive_u, positive_i


class FrozenNegativesLoader(NegSampleEvalDataLoader):
    """Sampled evaluation whose negatives depend on the seed, the phase and the user alone.

    RecBole draws them anew at every evaluation from the global generator, so that the same model
    scores differently twice, and an evaluation changes the training that follows.
    """

    compact = False
    """Let batches hold each history once (:class:`Candidates`); where :attr:`can_be_compact`."""

    _table: CandidateTable | None

    @property
    def can_be_compact(self) -> bool:
        """Whether there are negatives, and a model that scores all items as it scores pairs."""
        return self._draws and scores_once(self.config)

    @property
    def _draws(self) -> bool:  # not in mode `labeled`
        return "none" not in (
            self.neg_sample_args["distribution"],
            self.neg_sample_args["sample_num"],
        )

    def _init_batch_size_and_step(self) -> None:
        self._table = None  # the settings are new, or have changed
        super()._init_batch_size_and_step()
        if self.can_be_compact:
            self.step = users_at_a_time(self.config, self._dataset.item_num)
            self.set_batch_size(self.step)

    def __iter__(self) -> Any:
        if self._draws:
            self.table()  # here, so that loading processes inherit it
        return super().__iter__()

    def table(self) -> CandidateTable:
        """Return the candidates of all users, drawn when they are first asked for."""
        if self._table is None:
            rows = self._dataset.inter_feat
            users, items = rows[self.uid_field].numpy(), rows[self.iid_field].numpy()  # [R]
            saved = np.random.get_state()
            try:
                self._table = CandidateTable(self._negatives, users, items, self.times)
            finally:
                np.random.set_state(saved)
        return self._table

    def _negatives(self, user: int, positives: np.ndarray) -> np.ndarray:
        """Draw the negatives of one user, [n * (times - 1)]."""
        np.random.seed([self.config["seed"] & 0x7FFFFFFF, _PHASES[self._sampler.phase], user])
        users = np.full_like(positives, user)
        return self._sampler.sample_by_user_ids(users, positives, self.neg_sample_num).numpy()

    def collate_fn(self, index: Any) -> tuple[Any, Any, Any, Any]:
        """Return RecBole's batch: pairs, row of each, row and item of the positives.

        A compact batch has :class:`Candidates` in the second place, and first the interaction of
        the histories, or of the users, that the model scores.
        """
        if not self._draws:
            return super().collate_fn(index)
        table, users = self.table(), self.uid_list[np.array(index)]  # [B]
        places, positive_u = table.rows_of(users)  # [P], [P]
        row, source, item, label = (torch.from_numpy(part) for part in table.of(users))  # [C] each
        positives = self._dataset.inter_feat[places]
        positive_i = positives[self.iid_field].clone()  # [P]
        if self.compact:
            batch: Any = Interaction({self.uid_field: torch.from_numpy(users)})
            is_sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
            found = Candidates(batch[self.uid_field], row, source if is_sequential else row, item)
            batch = self._dataset.join(positives if is_sequential else batch)
            return batch, found, torch.from_numpy(positive_u), positive_i
        batch = self.transform(self._dataset, self._dataset.join(positives))
        batch = Rows(batch.interaction)[source]
        batch[self.iid_field] = item
        batch = self._dataset.join(batch)
        batch.update(Interaction({self.label_field: label.float()}))
        return batch, row, torch.from_numpy(positive_u), positive_i


def attach_history(loader: Any, built: list[Any], phase: str) -> None:
    """Give a sequential evaluation loader the users' histories; ``mask_history`` needs them."""
    history = History.before(built, _PHASES[phase])
    loader.history = history
    if isinstance(loader, FrozenNegativesLoader) and isinstance(loader._sampler, RepeatableSampler):
        sampler = copy.copy(loader._sampler)
        sampler.__class__ = HistorySampler
        sampler.history = history
        loader._sampler, loader._table = sampler, None
