"""Any trained model of RecBole or of ours as a reranker: it scores the candidates.

A sequential model encodes each history once and all of the user's candidates are looked up; it
reads the histories of the batch, so it also serves ones that no split has. A general model goes by
the user, a context-aware one by pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor

from recbole_ext.evaluation.all_items import all_scores
from recbole_ext.rerankers.base import Corpus, Reranker
from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.types import UserError

RUN = "run"
"""Folder in the reranker's own where the run of a model that it trains lies."""


class RecBoleReranker(Reranker):
    """Scores by the run that ``run`` names, or by a model that it trains itself.

    Raises:
        UserError: Neither a run nor a model is named, or both are.
    """

    argument = "run"

    def __init__(self, settings: Mapping[str, Any], corpus: Corpus) -> None:
        super().__init__(settings, corpus)
        if (settings["run"] is None) == (settings["model"] is None):
            raise UserError(
                "reranker recbole takes a trained run (--reranker=recbole:<run folder>) or a model "
                "to train (--model=BERT4Rec): one of them"
            )
        self.is_trainable = settings["model"] is not None
        self.run: Any = None

    def score(self, batch: RerankBatch) -> Tensor:
        """Return the model's scores of the candidates [B, N].

        A user without a history keeps stage one's scores where the model reads histories.
        """
        run = self._opened()
        dataset, device = run.dataset, run.config["device"]
        ids = dataset.field2token_id[dataset.iid_field]
        n = max(batch.scores.shape[1], 1)
        items = torch.zeros(len(batch), n, dtype=torch.long)  # [B, N], padding is item 0
        for row, tokens in enumerate(batch.candidates):
            items[row, : len(tokens)] = torch.tensor([ids[token] for token in tokens])
        try:
            found = all_scores(
                run.model,
                self._interaction(batch).to(device),
                dataset.get_item_feature(),
                run.config["eval_batch_size"],
            )  # [B, items]
        except KeyError as error:
            raise UserError(
                f"reranker recbole: {run.config['model']} reads the field {error} of a row, which "
                "candidates do not have (they have users, items and histories); take another model"
            ) from error
        scores = found.float().cpu().gather(1, items)[:, : batch.scores.shape[1]]  # [B, N]
        if run.config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
            is_empty = torch.tensor([len(history) == 0 for history in batch.histories])  # [B]
            scores[is_empty] = batch.scores[is_empty]
        return scores.masked_fill(~batch.mask, -torch.inf)  # [B, N]

    def fit(self, train: RerankBatch, valid: RerankBatch | None, folder: Path) -> dict[str, Any]:
        """Train the model on the training split, into ``<folder>/run``; candidates are not read."""
        if not self.is_trainable:
            return dict(super().fit(train, valid, folder))
        given = {"seed": self.settings["seed"], **(self.settings["model_settings"] or {})}
        self.corpus.train_run(self.settings["model"], given, folder / RUN)
        self.run = self.corpus.open_run(folder / RUN)
        return {"run": str(folder / RUN)}

    def load(self, folder: Path) -> None:
        """Open the run that training has left; one that ``run`` names lies elsewhere."""
        if self.is_trainable:
            self.run = self.corpus.open_run(folder / RUN)

    def _opened(self) -> Any:
        if self.run is None:
            if self.is_trainable:
                raise UserError(
                    f"reranker recbole: {self.settings['model']} is not trained yet; train it "
                    "with --train_split=valid, or name a trained run: recbole:<run folder>"
                )
            self.run = self.corpus.open_run(self.settings["run"])
        return self.run

    def _interaction(self, batch: RerankBatch) -> Any:
        """Return what the model scores, B rows: the users, and for a sequential model histories."""
        run = self.run
        dataset = run.dataset
        users = dataset.field2token_id[dataset.uid_field]
        rows = {dataset.uid_field: torch.tensor([users[user] for user in batch.users])}  # [B]
        if run.config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
            return dataset.join(Interaction(rows))
        ids, most = dataset.field2token_id[dataset.iid_field], run.config["MAX_ITEM_LIST_LENGTH"]
        item_seq = torch.zeros(len(batch), most, dtype=torch.long)  # [B, L]
        lengths = torch.ones(len(batch), dtype=torch.long)  # [B]; 1 where there is none
        for row, history in enumerate(batch.histories):
            last = [ids[item] for item in history[-most:]]
            item_seq[row, : len(last)] = torch.tensor(last, dtype=torch.long)
            lengths[row] = max(len(last), 1)
        rows[dataset.iid_field + run.config["LIST_SUFFIX"]] = item_seq
        rows[run.config["ITEM_LIST_LENGTH_FIELD"]] = lengths
        return run.test_data.transform(dataset, dataset.join(Interaction(rows)))
