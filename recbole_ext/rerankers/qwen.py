"""A text language model, Qwen3 or any other: all candidates in one prompt, or a prompt for each.

``listwise`` reads the letters' logits behind one prompt, ``pointwise`` those of yes and no behind
the prompt of each candidate. The model runs here or behind a server of OpenAI's protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_ext.features.encoded import text_hash
from recbole_ext.features.endpoint import Endpoint
from recbole_ext.rerankers.base import Corpus, Reranker, target_places
from recbole_ext.rerankers.batch import RerankBatch, padded
from recbole_ext.rerankers.llm import keeping, listwise, pointwise
from recbole_ext.rerankers.llm.budget import Budget
from recbole_ext.rerankers.llm.engine import Engine
from recbole_ext.rerankers.llm.loading import add_adapter, as_settings, load_model, read_adapter
from recbole_ext.rerankers.llm.local import LocalEngine
from recbole_ext.rerankers.llm.modes import Mode, Parts
from recbole_ext.rerankers.llm.prompts import template_of
from recbole_ext.rerankers.llm.server import ServerEngine
from recbole_ext.rerankers.llm.settings import (
    OF_PROMPTS,
    OF_TRAINING,
    check_settings,
    training_of,
)
from recbole_ext.rerankers.llm.training import FILE, Trainer
from recbole_ext.rerankers.score_cache import ScoreCache, row_text
from recbole_ext.types import UserError


class QwenReranker(Reranker):
    """Scores by a language model that reads titles; trains LoRA adapters, or all weights.

    Raises:
        UserError: A setting is out of range.
    """

    argument = "model"

    def __init__(self, settings: Mapping[str, Any], corpus: Corpus) -> None:
        super().__init__(settings, corpus)
        check_settings(settings)
        self.is_trainable = settings["engine"] == "local"
        name = f"qwen_{settings['scoring']}"
        fields = listwise.FIELDS if settings["scoring"] == "listwise" else pointwise.FIELDS
        self.template = template_of(name, settings["prompt"], fields)
        self._load, self._lora = as_settings(settings)
        self._name, self._is_trained, self._adapter = settings["model"], False, None

    @cached_property
    def engine(self) -> Engine:
        """What scores labels; a model is loaded when it is first asked."""
        settings = self.settings
        if settings["engine"] == "server":
            endpoint = Endpoint(concurrency=settings["concurrency"])
            return ServerEngine(
                endpoint, self._name, settings["top_logprobs"], settings["request"] or {}
            )
        tokenizer, model = load_model(self._name, self._load)
        return LocalEngine(
            model,
            tokenizer,
            batch_size=settings["prompt_batch_size"],
            suffix_batch_size=settings["suffix_batch_size"],
            is_compiled=settings["compile"],
            show_progress=settings["show_progress"],
        )

    @cached_property
    def mode(self) -> Mode:
        """How the engine is asked."""
        settings = self.settings
        keys = ("max_length", "max_history", "max_title_tokens", "min_title_tokens")
        budget = Budget(self.engine.reader, *(settings[key] for key in keys))
        parts = Parts(self.template, budget, self.engine, settings["seed"])
        if settings["scoring"] == "pointwise":
            n_negatives, share_prefix = settings["n_negatives"], settings["share_prefix"]
            return pointwise.Pointwise(parts, n_negatives, share_prefix)
        return listwise.Listwise(
            parts, settings["window"], settings["window_step"], settings["shuffle"]
        )

    @cached_property
    def cache(self) -> ScoreCache | None:
        """Where scores are kept, if anywhere."""
        if self.settings["cache_dir"] is None:
            return None
        return ScoreCache(Path(self.settings["cache_dir"]), self._digest(OF_PROMPTS))

    def score(self, batch: RerankBatch) -> Tensor:
        """Return logits or log-odds [B, N]; of rows in windows the places from the end."""
        if self.cache is None:
            return self._score(batch)
        return self.cache.score(self._score, batch)

    def _score(self, batch: RerankBatch) -> Tensor:
        return padded(self.mode.score(batch), batch.scores.shape[1])

    def fit(self, train: RerankBatch, valid: RerankBatch | None, folder: Path) -> dict[str, Any]:
        """Train on rows with a target among two candidates or more; the others are counted.

        Raises:
            UserError: There is no such row, a server's model cannot be trained, or
                ``folder/training.pt`` is of another training.
        """
        if self.settings["engine"] == "server":
            raise UserError("a model behind a server is trained there; set engine to local")
        rows, stops = _learnable(train), _learnable(valid)
        if rows is None:
            raise UserError(
                "no row has two candidates and a target among them, so there is nothing to train "
                "on; take more candidates"
            )
        self.__dict__.pop("cache", None)  # it is of the weights so far
        engine = self._trainable()
        mode, identity = self.mode, self._identity(rows, stops)
        trainer = Trainer(
            engine,
            mode.labels,
            lambda row, epoch: mode.examples(rows, row, epoch),
            len(rows),
            training_of(self.settings),
        )
        told = trainer.fit(
            None if stops is None else lambda: self._valid_loss(stops), folder, identity
        )
        self._is_trained = True
        n_out = len(train) - len(rows)
        return {"n_train": len(rows), "n_left_out": n_out, **told}

    def _trainable(self) -> LocalEngine:
        """Return the engine with adapters to train, or all its weights."""
        engine = self.engine
        assert isinstance(engine, LocalEngine)
        if self._lora is not None and self._adapter is None:
            self._adapter = add_adapter(engine.model, self._lora, self.settings["seed"])
        return engine

    def _valid_loss(self, valid: RerankBatch) -> float:
        """Return the mean cross-entropy of the first target among the candidates, by the scores."""
        scores = self._score(valid.without_targets())  # [B, N]
        targets = torch.tensor([places[0] for places in target_places(valid)])  # [B]
        return F.cross_entropy(scores, targets).item()

    def _digest(self, keys: Sequence[str]) -> str:
        """Return a hash of weights, template and some settings."""
        settings = [self.settings[key] for key in keys]
        return text_hash(json.dumps([self.engine.digest(), self.template.text, settings]))

    def _identity(self, *parts: RerankBatch | None) -> str:
        """Return a hash of all that decides what training comes to."""
        about = [
            [row_text(rows, row), sorted(targets)]
            for rows in parts
            if rows is not None
            for row, targets in enumerate(rows.targets or ())
        ]
        return text_hash(json.dumps([self._digest([*OF_PROMPTS, *OF_TRAINING]), about]))

    def save(self, folder: Path) -> None:
        """Write the adapters, or all weights; the state of a training that is over goes."""
        engine = self.engine
        if isinstance(engine, LocalEngine):
            parts = (engine.model, self._adapter, engine.tokenizer)
            keeping.save_model(folder, *parts, self._is_trained)
            (folder / FILE).unlink(missing_ok=True)

    def load(self, folder: Path) -> None:
        """Take back what :meth:`save` wrote.

        Raises:
            UserError: A file is missing or damaged.
        """
        if self.settings["engine"] == "server":
            return
        kept = keeping.what_is_kept(folder)
        for part in ("engine", "mode", "cache"):
            self.__dict__.pop(part, None)
        if kept == keeping.WEIGHTS:
            self._name = str(folder / keeping.WEIGHTS)
        elif kept == keeping.ADAPTER:
            engine = self.engine
            assert isinstance(engine, LocalEngine)
            self._adapter = read_adapter(engine.model, folder / keeping.ADAPTER)
            engine.model.eval()
        self._is_trained = kept != keeping.NOTHING


def _learnable(batch: RerankBatch | None) -> RerankBatch | None:
    """Return the rows that can be learnt from or stopped by, ``None`` if there is none."""
    if batch is None:
        return None
    places = target_places(batch)
    rows = [row for row, mine in enumerate(places) if mine and len(batch.candidates[row]) > 1]
    return batch.rows(rows) if rows else None
