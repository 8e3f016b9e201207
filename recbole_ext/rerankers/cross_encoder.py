"""A cross-encoder reads the history's texts and a candidate's text together, and gives one number.

Any model of sentence-transformers' ``CrossEncoder`` with one output. Training is listwise: softmax
cross-entropy of the target among some of the user's other candidates. The history stands latest
first, so what the model's limit cuts off is the oldest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_ext.features.device import device_of
from recbole_ext.rerankers.base import Corpus, Reranker, target_places
from recbole_ext.rerankers.batch import RerankBatch, padded
from recbole_ext.rerankers.llm.loading import check_length
from recbole_ext.rerankers.ranges import check_ranges
from recbole_ext.types import UserError

SAVED = "cross_encoder"
"""Folder of the trained model in the reranker's own."""
HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining")
"""Ends of the names of architectures without an output that was trained to score."""
FROM_ONE = (
    *("max_history", "max_length", "pair_batch_size", "epochs", "train_batch_size", "n_negatives"),
)
MAX_NORM = 1.0
"""Of a step's gradient."""

Pair = tuple[str, str]


class CrossEncoderReranker(Reranker):
    """Scores each (history, candidate) by itself.

    Raises:
        UserError: No model is named, or there is nothing to read.
    """

    argument = "model"
    is_trainable = True

    def __init__(self, settings: Mapping[str, Any], corpus: Corpus) -> None:
        super().__init__(settings, corpus)
        if settings["model"] is None:
            raise UserError(
                "reranker cross_encoder takes a model: cross_encoder:<hub id or folder>, as "
                "cross_encoder:cross-encoder/ms-marco-MiniLM-L6-v2"
            )
        check_ranges(settings, from_one=FROM_ONE)
        self.model: Any = None
        self.is_fitted = False

    def score(self, batch: RerankBatch) -> Tensor:
        """Return the model's logits [B, N]."""
        model = self._opened()
        if not self.is_fitted:
            self._refuse_headless(model)
        pairs = [pair for row in range(len(batch)) for pair in self._pairs(batch, row)]
        values = model.predict(
            pairs,
            batch_size=self.settings["pair_batch_size"],
            activation_fn=torch.nn.Identity(),  # a sigmoid would tie the best of them at 1.0
            show_progress_bar=False,
        ).tolist()
        ends = np.cumsum([0, *(len(row) for row in batch.candidates)]).tolist()  # [B + 1]
        rows = [values[begin:end] for begin, end in zip(ends, ends[1:], strict=False)]
        return padded(rows, batch.scores.shape[1])

    def fit(self, train: RerankBatch, valid: RerankBatch | None, folder: Path) -> dict[str, Any]:
        """Train on rows whose target is a candidate; the epoch with the best MRR on valid stays."""
        model, settings = self._opened(), self.settings
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"])
        rng = np.random.default_rng(settings["seed"])
        rows = [row for row, places in enumerate(target_places(train)) if places]
        losses, quality = [], []
        best: tuple[float, dict[str, Tensor] | None] = (-1.0, None)
        with torch.random.fork_rng():
            torch.manual_seed(settings["seed"])
            for _ in range(settings["epochs"]):
                order = rng.permutation(rows)
                losses.append(self._epoch(model, optimizer, train, order.tolist(), rng))
                self.is_fitted = True
                if valid is not None:
                    quality.append(self._mrr(valid))
                    if quality[-1] > best[0]:
                        state = {k: v.detach().clone() for k, v in model.state_dict().items()}
                        best = (quality[-1], state)
        if best[1] is not None:
            model.load_state_dict(best[1])
        return {"losses": losses, "valid_mrr": quality}

    def save(self, folder: Path) -> None:
        """Write the model, if training has changed it."""
        if self.is_fitted:
            self.model.save_pretrained(str(folder / SAVED))

    def load(self, folder: Path) -> None:
        """Take back a trained model."""
        if (folder / SAVED).is_dir():
            self.model, self.is_fitted = self._load(str(folder / SAVED)), True

    def _epoch(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        train: RerankBatch,
        order: Sequence[int],
        rng: np.random.Generator,
    ) -> float:
        """Train on every row once, a step for each ``train_batch_size`` of them; the mean loss."""
        size, total = self.settings["train_batch_size"], 0.0
        places = target_places(train)
        for begin in range(0, len(order), size):
            model.train()
            optimizer.zero_grad()
            rows = order[begin : begin + size]
            chosen = [self._list_of(train, row, places[row], rng) for row in rows]
            scores = self._logits(model, [pair for pairs in chosen for pair in pairs])  # [P]
            lists = scores.split([len(pairs) for pairs in chosen])
            # the target stands first
            loss = torch.stack([torch.logsumexp(one, 0) - one[0] for one in lists]).mean()
            if not torch.isfinite(loss):
                raise UserError(
                    "reranker cross_encoder: the loss is not finite, training has diverged; lower "
                    "learning_rate"
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            total += loss.item() * len(rows)
        return total / max(len(order), 1)

    def _list_of(
        self, batch: RerankBatch, row: int, targets: Sequence[int], rng: np.random.Generator
    ) -> list[Pair]:
        """Return a target's pair and those of some candidates that are none."""
        pairs = self._pairs(batch, row)
        others = [place for place in range(len(pairs)) if place not in targets]
        n = min(self.settings["n_negatives"], len(others))
        drawn = rng.choice(others, n, replace=False).tolist() if n else []
        return [pairs[int(rng.choice(list(targets)))], *(pairs[place] for place in drawn)]

    def _logits(self, model: Any, pairs: list[Pair]) -> Tensor:
        features = {
            key: value.to(model.device) if isinstance(value, Tensor) else value
            for key, value in model.preprocess(pairs).items()
        }
        return model(features)["scores"].float().view(-1)  # [P]

    def _mrr(self, rows: RerankBatch) -> float:
        """Return the mean reciprocal rank of the best target."""
        scores, gains = self.score(rows.without_targets()), []
        for row, places in zip(scores, target_places(rows), strict=True):
            best = max((row[place] for place in places), default=None)
            gains.append(0.0 if best is None else 1 / (1 + int((row > best).sum())))
        return float(np.mean(gains))

    def _pairs(self, batch: RerankBatch, row: int) -> list[Pair]:
        """Return what the model reads of each candidate of a row."""
        last = batch.histories[row][-self.settings["max_history"] :]
        told = "; ".join(batch.text_of(item) for item in reversed(last))
        return [(told, batch.text_of(item)) for item in batch.candidates[row]]

    def _opened(self) -> Any:
        if self.model is None:
            self.model = self._load(self.settings["model"])
        return self.model

    def _load(self, name: str) -> Any:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError as error:
            raise UserError(
                f"reranker cross_encoder needs sentence-transformers, which cannot be imported "
                f"({error}); run: pip install 'recbole-ext[text]'"
            ) from error
        device = str(device_of(self.settings["device"]))
        try:
            model = CrossEncoder(name, device=device, max_length=self.settings["max_length"])
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"cross-encoder '{name}' cannot be loaded ({first}); name a hub id that can be "
                "reached, or a folder with a saved model"
            ) from error
        check_length(name, model.config, self.settings["max_length"] or 0)
        if model.num_labels != 1:
            raise UserError(
                f"cross-encoder '{name}' gives {model.num_labels} numbers for a pair, and a score "
                "is one; take a model for ranking"
            )
        return model

    def _refuse_headless(self, model: Any) -> None:
        names = getattr(model.config, "architectures", None) or ()
        if names and all(name.endswith(HEADLESS) for name in names):
            raise UserError(
                f"cross-encoder '{self.settings['model']}' is a {names[0]}, whose scores nobody "
                "has trained; train it (--train_split=valid), or take a model for ranking"
            )
