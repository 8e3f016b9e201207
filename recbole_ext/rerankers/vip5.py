"""VIP5 (Geng et al., EMNLP Findings 2023): a T5 that reads item numbers and CLIP features.

Behind each item of the history stand k visual tokens, projected from the vector of its picture.
A candidate's score is the log-likelihood of its whole number as the answer; the prompt is encoded
once for a user. What trains is small: Houlsby adapters, the projection, the embeddings of words
and categories; the T5 itself as an option. Unlike the paper's, the prompt has no user number, one
template serves, and the embeddings train, which are new to the T5.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_ext.data.features import feature_folder
from recbole_ext.features.device import device_of
from recbole_ext.features.encoded import text_hash
from recbole_ext.features.store import Aligned, FeatureStore
from recbole_ext.features.text_encoders import weights_hash
from recbole_ext.modules.vip5 import VIP5
from recbole_ext.rerankers.base import Corpus, Reranker
from recbole_ext.rerankers.batch import RerankBatch, padded
from recbole_ext.rerankers.llm.settings import training_of
from recbole_ext.rerankers.llm.training import FILE, Trainer, Training
from recbole_ext.rerankers.ranges import check_ranges
from recbole_ext.rerankers.vision.t5 import load_t5
from recbole_ext.rerankers.vision.vip5_prompts import PromptMaker
from recbole_ext.trainer.checkpoint import read_checkpoint, write_checkpoint
from recbole_ext.types import UserError

WEIGHTS = "vip5.pt"
FROM_ONE = (
    *("n_visual_tokens", "adapter_reduction", "max_history", "prompt_batch_size"),
    *("decode_batch_size", "epochs", "train_batch_size", "accumulation_steps", "stopping_step"),
)
FROM_ZERO = ("learning_rate", "weight_decay", "warmup_ratio")
OF_WEIGHTS = ("n_visual_tokens", "adapter_reduction", "train_all")
OF_TRAINING = (
    *("max_history", "epochs", "learning_rate", "weight_decay", "warmup_ratio"),
    *("clip_grad_norm", "train_batch_size", "accumulation_steps", "stopping_step", "seed"),
)


class VIP5Reranker(Reranker):
    """Scores by how likely a T5 finds a candidate's number.

    Raises:
        UserError: A setting is out of range, or the feature or the model is missing.
    """

    argument = "model"
    is_trainable = True

    def __init__(self, settings: Mapping[str, Any], corpus: Corpus) -> None:
        super().__init__(settings, corpus)
        check_ranges(
            settings, from_one=FROM_ONE, from_zero=FROM_ZERO, above_zero=("clip_grad_norm",)
        )
        if not settings["feature"]:
            raise UserError(
                "vip5 reads vectors of pictures; set feature to the name of one (recbole-ext "
                "features image)"
            )
        self.without: set[str] = set()

    @cached_property
    def items(self) -> list[str]:
        """The catalogue, in order."""
        return list(self.corpus.counts())

    @cached_property
    def _feature(self) -> tuple[Aligned, str]:
        """The pictures' vectors by the items' numbers, and a hash of what made them."""
        place = {"features_dir": self.settings["features_dir"], "dataset": self.corpus.dataset}
        name = self.settings["feature"]
        store = FeatureStore(feature_folder(place, name))
        if store.values.ndim != 2 or store.manifest.of != "item":
            raise UserError(
                f"feature '{name}' has {' x '.join(map(str, store.values.shape[1:]))} numbers for "
                f"each {store.manifest.of}, and vip5 reads one vector for each item; build it with "
                "--tokens=global"
            )
        aligned = store.align(["[PAD]", *self.items])
        if not aligned.present.any():
            raise UserError(
                f"feature '{name}' has a vector for none of the {len(self.items)} items of "
                f"'{self.corpus.dataset}'; build it for that dataset"
            )
        return aligned, store.manifest.source.digest()

    @cached_property
    def _parts(self) -> tuple[VIP5, PromptMaker, str]:
        settings = self.settings
        size = self._feature[0].values.shape[1]
        with torch.random.fork_rng():
            torch.manual_seed(settings["seed"])
            tokenizer, t5 = load_t5(settings["model"], settings["random_weights"])
            base = weights_hash(t5)
            tokens, reduction = settings["n_visual_tokens"], settings["adapter_reduction"]
            model = VIP5(t5, size, tokens, reduction)
        model.train_parts(settings["train_all"])
        maker = PromptMaker(tokenizer, self.items, tokens, settings["max_history"])
        return model.to(device_of(settings["device"])).eval(), maker, base

    @property
    def model(self) -> VIP5:
        """The network."""
        return self._parts[0]

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.model.category_embedding.weight.device

    def score(self, batch: RerankBatch) -> Tensor:
        """Return the log-likelihoods [B, N]."""
        found: list[list[float]] = []
        n_before = len(self.without)
        for part in batch.batches(self.settings["prompt_batch_size"]):
            found += self._score(part)
        if len(self.without) > n_before:
            logging.getLogger().warning(
                "%d items of histories have no vector in feature %s, and zeros in its place; "
                "the first is '%s'",
                *(len(self.without), self.settings["feature"], min(self.without)),
            )
        return padded(found, batch.scores.shape[1])

    @torch.no_grad()
    def _score(self, batch: RerankBatch) -> list[list[float]]:
        hidden, mask = self._encode(batch.histories)  # [B, T, D] and [B, T]
        pairs = [(row, item) for row, items in enumerate(batch.candidates) for item in items]
        found: list[list[float]] = [[] for _ in batch.candidates]
        size = self.settings["decode_batch_size"]
        for begin in range(0, len(pairs), size):
            part = pairs[begin : begin + size]
            rows = [row for row, _ in part]
            likely = self._likely(hidden[rows], mask[rows], [item for _, item in part])  # [b]
            for row, value in zip(rows, likely.tolist(), strict=True):
                found[row].append(value)
        return found

    def _encode(self, histories: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Return the encoder's states [B, T, D] and their mask [B, T]."""
        (model, maker, _), (feature, _) = self._parts, self._feature
        shown = maker.shown(histories)
        ids = np.array([int(maker.number(item)) for item in shown], dtype=np.int64)  # [V]
        self.without.update(
            item for item, there in zip(shown, feature.present[ids], strict=True) if not there
        )
        prompts = maker.prompts(histories, feature.take(ids)[0]).to(self.device)
        return model.encode(prompts), prompts.mask

    def _likely(self, hidden: Tensor, mask: Tensor, items: Sequence[str]) -> Tensor:
        """Return the log-likelihood of items as the answers to some prompts [b]."""
        model, maker, _ = self._parts
        tokens, there = (value.to(self.device) for value in maker.answers(items))
        return model.log_likelihood(hidden, mask, tokens, there)

    def fit(self, train: RerankBatch, valid: RerankBatch | None, folder: Path) -> dict[str, Any]:
        """Train on the first target of each row, whether it is a candidate or not.

        Raises:
            UserError: No row has a target in the catalogue, or ``folder/training.pt`` is of
                another training.
        """
        rows, stops = self._learnable(train), self._learnable(valid)
        if not rows:
            raise UserError(
                "no row has a target in the catalogue, so there is nothing to train on; take "
                "another split"
            )
        how = training_of({**self.settings, "loss": "lm"})
        trainer = VIP5Trainer(self, rows, how)
        # the T5's own weights too, of which training sets out: all of them may train
        of_training = [self.settings[key] for key in OF_TRAINING]
        about = [self._about(), self._parts[2], of_training, rows, stops]
        judge = (lambda: self._valid_loss(stops)) if stops else None
        told = trainer.fit(judge, folder, text_hash(json.dumps(about)))
        return {"n_train": len(rows), "n_left_out": len(train) - len(rows), **told}

    def _learnable(self, batch: RerankBatch | None) -> list[tuple[list[str], str]]:
        """Return history and target of the rows whose first target is in the catalogue."""
        if batch is None:
            return []
        known = self._parts[1].numbers
        pairs = zip(batch.histories, batch.targets or (), strict=False)
        return [(list(history), mine[0]) for history, mine in pairs if mine and mine[0] in known]

    def loss(self, rows: Sequence[tuple[list[str], str]]) -> Tensor:
        """Return the mean negative log-likelihood of the targets."""
        hidden, mask = self._encode([history for history, _ in rows])
        return -self._likely(hidden, mask, [target for _, target in rows]).mean()

    @torch.no_grad()
    def _valid_loss(self, rows: Sequence[tuple[list[str], str]]) -> float:
        size, total = self.settings["train_batch_size"], 0.0
        for begin in range(0, len(rows), size):
            part = rows[begin : begin + size]
            total += self.loss(part).item() * len(part)
        return total / len(rows)

    def _about(self) -> dict[str, Any]:
        """Return what weights depend on."""
        known = {key: self.settings[key] for key in OF_WEIGHTS}
        # of a T5 that trains too, all is kept
        base = None if self.settings["train_all"] else self._parts[2]
        items = text_hash(json.dumps(self.items))
        return {**known, "T5": base, "feature": self._feature[1], "items": items}

    def _trained(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def save(self, folder: Path) -> None:
        """Write what trains: adapters, projection and embeddings, or all."""
        weights = {name: p.detach().cpu() for name, p in self._trained().items()}
        write_checkpoint(folder / WEIGHTS, {"about": self._about(), "weights": weights})
        (folder / FILE).unlink(missing_ok=True)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Take back what :meth:`save` wrote.

        Raises:
            UserError: The file is missing or damaged, or of other settings or items.
        """
        path = folder / WEIGHTS
        payload = read_checkpoint(path)
        about, mine = payload.get("about", {}), self._about()
        for key, value in mine.items():
            if about.get(key) != value:
                raise UserError(
                    f"{path} was trained with other {key} ({about.get(key)}, here {value}); take "
                    "those, or train anew"
                )
        parameters = self._trained()
        for name, value in payload["weights"].items():
            parameters[name].copy_(value)


class VIP5Trainer(Trainer):
    """Trains by the likelihood of the targets' numbers.

    Args:
        reranker: With the model.
        rows: History and target of each.
        how: Steps and lengths.
    """

    def __init__(self, reranker: Any, rows: Sequence[Any], how: Training) -> None:
        super().__init__(reranker, [], lambda row, epoch: [rows[row]], len(rows), how)
        self._loss = reranker.loss

    def loss(self, examples: Sequence[Any]) -> Tensor:
        """Return the mean negative log-likelihood."""
        return self._loss(examples)
