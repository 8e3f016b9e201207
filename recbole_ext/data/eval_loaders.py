"""Evaluation loaders that make explicit what RecBole leaves open: masking and negatives."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.sampler import RepeatableSampler

from recbole_ext.data.history import History, HistorySampler

_PHASES = {"valid": 1, "test": 2}


class MaskedFullSortLoader(FullSortEvalDataLoader):
    """Full ranking; ``mask_history`` says whether the user's earlier items are left out.

    RecBole masks them for general models and not for sequential ones, which makes the two
    incomparable.
    """

    history: History | None = None

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

    def _neg_sampling(self, inter_feat: Any) -> Any:
        if self._sampler is None:  # mode `labeled`: nothing is drawn
            return super()._neg_sampling(inter_feat)
        saved = np.random.get_state()
        user = int(inter_feat[self.uid_field][0])
        np.random.seed([self.config["seed"] & 0x7FFFFFFF, _PHASES[self._sampler.phase], user])
        try:
            return super()._neg_sampling(inter_feat)
        finally:
            np.random.set_state(saved)


def attach_history(loader: Any, built: list[Any], phase: str) -> None:
    """Give a sequential evaluation loader the users' histories; ``mask_history`` needs them."""
    history = History.before(built, _PHASES[phase])
    loader.history = history
    if isinstance(loader, FrozenNegativesLoader) and isinstance(loader._sampler, RepeatableSampler):
        sampler = copy.copy(loader._sampler)
        sampler.__class__ = HistorySampler
        sampler.history = history
        loader._sampler = sampler
