"""The part of the hooks that evaluates: from a checkpoint, in all processes, with ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recbole_ext.data.candidates import Candidates
from recbole_ext.data.eval_loaders import FrozenNegativesLoader
from recbole_ext.trainer import checkpoint
from recbole_ext.trainer.collector import FastCollector
from recbole_ext.trainer.processes import GatheringCollector, drop_padding

if TYPE_CHECKING:
    from recbole.trainer import Trainer as _Host

    from recbole_ext.evaluation.ranks import RankRecorder
else:  # a mixin: it stands in front of whichever trainer RecBole has for the model
    _Host = object


class EvalHooks(_Host):
    """RecBole's evaluation with our collector; see :class:`RunHooks` for the arguments."""

    saved_model_file: str

    def __init__(self, config: Any, model: Any, vocabulary: dict[str, str]) -> None:
        super().__init__(config, model)
        self.vocabulary = vocabulary
        self.ranks: RankRecorder | None = None
        collector = FastCollector if config["single_spec"] else GatheringCollector
        self.eval_collector = collector(config)

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> dict[str, float]:
        """Evaluate as RecBole does, from ``best.pt`` by default, and return plain floats."""
        if load_best_model:
            if not self.config["single_spec"]:
                torch.distributed.barrier()  # the first process has written the file
            path = Path(model_file or self.saved_model_file)
            payload = checkpoint.read_checkpoint(path)
            checkpoint.check_identity(payload, path, self.config["model"], self.vocabulary)
            checkpoint.load_weights(self.model, payload, path)
        if eval_data and not self.config["single_spec"]:
            drop_padding(eval_data)
        with _compact(eval_data):
            result = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        if self.ranks is not None and not self.config["single_spec"]:
            self.ranks.gather()
        return {name: float(value) for name, value in (result or {}).items()}

    def _map_reduce(self, result: dict[str, float], num_sample: int) -> dict[str, float]:
        return result  # of all processes already: see GatheringCollector

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        interaction, scores, positive_u, positive_i = super()._full_sort_batch_eval(batched_data)
        if self.ranks is not None:
            self.ranks.add(
                scores, interaction[self.config["USER_ID_FIELD"]], positive_u, positive_i
            )
        return interaction, scores, positive_u, positive_i

    def _neg_sample_batch_eval(self, batched_data: Any) -> Any:
        """Score the candidates, as columns of [B, N]; each history of a compact batch once."""
        interaction, candidates, positive_u, positive_i = batched_data
        if isinstance(candidates, Candidates):
            users, scores = candidates.users, self._scores_of(interaction, candidates)  # [B, N]
        else:
            _, scores, positive_u, positive_i = super()._neg_sample_batch_eval(batched_data)
            # value metrics (AUC) take scores [n] of single pairs: nothing is ranked
            if self.ranks is None or candidates is None or scores.dim() != 2:
                return interaction, scores, positive_u, positive_i
            users = torch.empty(scores.shape[0], dtype=torch.long)  # [B]
            users[candidates] = interaction[self.config["USER_ID_FIELD"]].cpu()
        if self.ranks is not None:
            self.ranks.add(scores, users, positive_u, positive_i)
        return interaction, scores, positive_u, positive_i

    def _scores_of(self, interaction: Any, candidates: Candidates) -> torch.Tensor:
        """Return the scores of the candidates, [B, N]; -inf for all other items."""
        every = self.model.full_sort_predict(interaction.to(self.device))
        every = every.view(len(interaction), -1)  # [B or P, N]
        encoded, items = candidates.encoded.to(self.device), candidates.items.to(self.device)
        scores = every.new_full((len(candidates.users), every.shape[1]), -torch.inf)  # [B, N]
        scores[candidates.rows.to(self.device), items] = every[encoded, items]
        return scores


@contextmanager
def _compact(loader: Any) -> Iterator[None]:
    """Let a sampled evaluation's batches hold each history once, where the model allows it."""
    if not isinstance(loader, FrozenNegativesLoader) or not loader.can_be_compact:
        yield
        return
    loader.compact = True
    try:
        yield
    finally:
        loader.compact = False
