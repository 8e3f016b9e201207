"""The run under diagnosis: its data, its model, and what several groups of checks look at."""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import EvaluatorType, ModelType, init_seed
from torch import Tensor

from recbole_ext.callbacks.base import CallbackList
from recbole_ext.data.features import feature_folder
from recbole_ext.diagnose.check import NotApplicable
from recbole_ext.diagnose.evaluation import Evaluation, RowRecorder, ScoreRecorder
from recbole_ext.evaluation.all_items import all_scores
from recbole_ext.features.store import Aligned, FeatureStore
from recbole_ext.interfaces import HasMemory
from recbole_ext.models.item_init import with_item_init
from recbole_ext.quick_start import Run
from recbole_ext.trainer.hooked_trainer import build_trainer
from recbole_ext.types import UserError

IMPRESSION = "impression_id"
"""Field of the rows that were shown together, where a dataset has it."""
ROWS = 256
"""Rows of a batch that is looked at closely."""


class Subject:
    """A finished run, and what is worked out of it once.

    Args:
        run: As :func:`~recbole_ext.quick_start.load_run` gives it.
        steps: Optimizer steps of the checks that train.
    """

    def __init__(self, run: Run, steps: int = 100) -> None:
        self.run, self.steps = run, steps
        self.config, self.model, self.dataset = run.config, run.model, run.dataset
        loaders = {"train": run.train_data, "valid": run.valid_data, "test": run.test_data}
        self.parts = {name: loader._dataset for name, loader in loaders.items()}
        self.uid, self.iid = self.dataset.uid_field, self.dataset.iid_field
        self.label = self.config["LABEL_FIELD"]
        self.has_labels = self.config["eval_type"] == EvaluatorType.VALUE
        self.is_sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        if len(self.rows("test")) == 0:
            raise UserError(
                f"{run.folder} has no test split (eval_args.split), and a diagnosis is of one"
            )

    # ---- data

    def rows(self, split: str) -> Any:
        """Return the rows of ``train``, ``valid`` or ``test``."""
        return self.parts[split].inter_feat

    def column(self, split: str, field: str) -> np.ndarray:
        """Return a field of the rows of a split, [R]."""
        return self.rows(split)[field].numpy()

    def labels(self, split: str) -> np.ndarray | None:
        """Return the labels of a split [R]; ``None`` where every row is a positive."""
        return self.column(split, self.label) if self.label in self.rows(split) else None

    def history_of(self, split: str) -> np.ndarray | None:
        """Return the histories of a split that are joined to its rows, [R, L]; or ``None``."""
        field, users = self.config["HISTORY_FIELD"], self.dataset.user_feat
        if not field or users is None or field not in users:
            return None
        return users[field][self.rows(split)[self.uid]].numpy()

    @cached_property
    def taken(self) -> tuple[Tensor, Tensor]:
        """User and item of each positive of the training, [R] each."""
        rows, labels = self.rows("train"), self.labels("train")
        is_taken = np.ones(len(rows), bool) if labels is None else labels > np.mean(labels)
        mask = torch.from_numpy(is_taken)  # [R]
        return rows[self.uid][mask], rows[self.iid][mask]

    @cached_property
    def popularity(self) -> Tensor:
        """Positives of each item in the training, [N]."""
        return torch.bincount(self.taken[1], minlength=self.dataset.item_num)

    @cached_property
    def seen(self) -> Tensor:
        """Training rows of each item, clicks or not, [N]."""
        return torch.bincount(self.rows("train")[self.iid], minlength=self.dataset.item_num)

    def stored(self, name: str) -> tuple[Aligned, FeatureStore]:
        """Return a stored feature of the items by internal id, and its store."""
        store = FeatureStore(feature_folder(self.config.resolved, name))
        return store.align(self.dataset.field2id_token[self.iid]), store

    @cached_property
    def probe(self) -> Any:
        """Up to :data:`ROWS` rows of the test, evenly spaced, as the model scores them."""
        part, rows = self.parts["test"], self.rows("test")
        some = np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)
        found = part.join(rows[torch.from_numpy(some)])
        return self.run.test_data.transform(part, found).to(self.config["device"])

    def batches(self) -> Iterator[Any]:
        """Yield training batches without an end, of at most :data:`ROWS` rows each."""
        while True:
            for batch in self.run.train_data:
                yield batch[:ROWS].to(self.config["device"])

    def some_batches(self, n: int) -> list[Any]:
        """Return the first training batches; each is drawn as in the last call."""
        init_seed(self.config["seed"], self.config["reproducibility"])
        return list(islice(self.batches(), n))

    @property
    def are_sampled(self) -> bool:
        """Whether the rows of the test without a click are drawn, and were not shown to anyone."""
        return self.config["test_neg_sample_args"]["distribution"] != "none"

    # ---- models

    def trainable(self) -> None:
        """Refuse a model that learns without gradients, where a group needs them.

        Raises:
            NotApplicable: Saying so.
        """
        kind, weights = self.config["MODEL_TYPE"], self.model.parameters()
        if kind == ModelType.TRADITIONAL or sum(w.numel() for w in weights if w.requires_grad) < 2:
            raise NotApplicable(f"{self.config['model']} learns without gradients")
        if len(inspect.signature(self.model.calculate_loss).parameters) > 1:
            raise NotApplicable(f"{self.config['model']} is trained by a loop of its own (RecBole)")

    def trained(self) -> Any:
        """Return a copy of the model, to be changed."""
        return copy.deepcopy(self.model)

    def fresh(self) -> Any:
        """Return the model as it was before training."""
        init_seed(self.config["seed"], self.config["reproducibility"])
        train = self.parts["train"]
        model = with_item_init(self.config.model_class(self.config, train), self.config, train)
        model = model.to(self.config["device"])
        if isinstance(model, HasMemory):
            model.refresh_memory()
        return model

    # ---- scores

    @torch.no_grad()
    def scores(self, rows: Any, model: Any = None) -> Tensor:
        """Return scores of rows as the test has them, on the CPU.

        Args:
            rows: As :attr:`probe`, B of them.
            model: Another than the run's.

        Returns:
            [B, N] without the padding item, whose column is -inf; [B] where rows have labels.
        """
        model = (model or self.model).eval()
        if self.has_labels:
            return model.predict(rows).view(-1).float().cpu()  # [B]
        items = self.dataset.get_item_feature()
        found = all_scores(model, rows, items, self.config["eval_batch_size"])
        found = found.float().cpu()  # [B, N]
        found[:, 0] = -torch.inf
        return found

    @cached_property
    def probed(self) -> Tensor:
        """The scores of :attr:`probe`: [B, N], or [B] where rows have labels."""
        return self.scores(self.probe)

    @cached_property
    def own(self) -> Evaluation:
        """The test by the model.

        Raises:
            NotApplicable: Its scores are no numbers.
        """
        if self.probed.isnan().any():
            raise NotApplicable("the model's scores are not numbers (NaN): see predictions")
        return self.evaluate(self.model)

    def evaluate(self, scorer: Any) -> Evaluation:
        """Return the test by any scorer, by the run's trainer and metrics."""
        trainer = self._trainer
        trainer.model = scorer.to(self.config["device"])
        if not self.has_labels:
            trainer.ranks = recorder = ScoreRecorder()
            metrics = trainer.evaluate(self.run.test_data, load_best_model=False)
            return recorder.evaluation(metrics, max(self.config["topk"]))
        groups = [IMPRESSION] if IMPRESSION in self.rows("test") else []
        fields = [self.uid, self.iid, self.label, *groups]
        collector = trainer.eval_collector
        trainer.eval_collector = rows = RowRecorder(collector, fields)
        try:
            metrics = trainer.evaluate(self.run.test_data, load_best_model=False)
        finally:
            trainer.eval_collector = collector
        return rows.evaluation(metrics)

    @cached_property
    def _trainer(self) -> Any:
        with tempfile.TemporaryDirectory() as folder:  # for TensorBoard, which nobody reads
            trainer = build_trainer(
                self.config, self.trained(), Path(folder), CallbackList([]), self.run.vocabulary
            )
            trainer.tensorboard.close()
        trainer.eval_collector.data_collect(self.run.train_data)
        return trainer


def loss_of(model: Any, batch: Any) -> Tensor:
    """Return the training loss of a batch, a scalar."""
    loss = model.calculate_loss(batch)
    return torch.stack(loss).sum() if isinstance(loss, tuple) else loss


def train(model: Any, batches: Iterator[Any], steps: int, learning_rate: float) -> list[float]:
    """Train a model some steps by Adam; return the loss of each."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    found = []
    model.train()
    for batch in islice(batches, steps):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    model.eval()
    return found
