"""A reranker that was trained: its folder, and the rows that it is trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_ext.compare.split import how_split
from recbole_ext.pipeline.corpus import DatasetCorpus
from recbole_ext.rerankers.base import Reranker, target_places
from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.rerankers.build import build_reranker
from recbole_ext.rerankers.random import generator_of
from recbole_ext.run_folder import plain, write_text
from recbole_ext.types import UserError

NAME = "reranker.json"
KIND = "reranker"


@dataclass(frozen=True)
class Spec:
    """Which reranker.

    Attributes:
        name: As ``cross_encoder``, or with its main setting: ``recbole:runs/...``.
        settings: Settings that are not its YAML's.
        seed: Of whatever it draws.
    """

    name: str
    settings: Mapping[str, Any]
    seed: int = 2020

    def build(self, corpus: DatasetCorpus) -> Reranker:
        """Return it, untrained."""
        return build_reranker(self.name, self.settings, corpus, self.seed)


def training_rows(
    rows: RerankBatch, n: int, seed: int, valid_share: float
) -> tuple[RerankBatch, RerankBatch | None]:
    """Return rows to train on and rows to stop by, of users whose target is a candidate.

    They are the held-out rows of the valid split, and not what the retriever was trained on: there
    it ranks the targets better than it will ever again.

    Args:
        rows: Of the valid split, with targets.
        n: Candidates that the reranker will see.
        seed: Which users are kept to stop by; it goes by the user alone.
        valid_share: Share of them.

    Raises:
        UserError: No user has a target among the candidates.
    """
    rows = rows.first(n)
    hits = [row for row, places in enumerate(target_places(rows)) if places]
    if not hits:
        raise UserError(
            f"no user has a target among the first {n} candidates, so there is nothing to train a "
            "reranker on; raise rerank_top_k, or train the retriever longer"
        )
    held = [generator_of(seed, f"split of {rows.users[row]}").random() for row in hits]
    train = [row for row, u in zip(hits, held, strict=True) if u >= valid_share] or hits
    valid = [row for row, u in zip(hits, held, strict=True) if u < valid_share]
    return rows.rows(train), rows.rows(valid) if valid and len(valid) < len(hits) else None


def train_reranker(
    spec: Spec,
    corpus: DatasetCorpus,
    rows: tuple[RerankBatch, RerankBatch | None],
    folder: Path,
    about: Mapping[str, Any],
) -> Reranker:
    """Train a reranker and keep it.

    Args:
        spec: Which.
        corpus: The data.
        rows: Those of :func:`training_rows`.
        folder: Where to, which exists; ``reranker.json`` is written last.
        about: What else is kept of the training.

    Raises:
        UserError: It has nothing to train.
    """
    reranker = spec.build(corpus)
    refuse_untrainable(spec, reranker)
    told = reranker.fit(*rows, folder)
    reranker.save(folder)
    kept = {
        "kind": KIND,
        "reranker": spec.name,
        "settings": spec.settings,
        "seed": spec.seed,
        "dataset": corpus.dataset,
        "fingerprint": corpus.fingerprint,
        "data_split": how_split(corpus.config),
        "n_train": len(rows[0]),
        "n_valid": len(rows[1]) if rows[1] else 0,
        **about,
        "training": told,
    }
    write_text(folder / NAME, json.dumps(plain(kept), indent=2) + "\n")
    return reranker


def refuse_untrainable(spec: Spec, reranker: Reranker) -> None:
    """Refuse to train what has nothing to train."""
    if not reranker.is_trainable:
        raise UserError(f"reranker {spec.name} has nothing to train; leave out --train_split")


def open_reranker(folder: Path, corpus: DatasetCorpus, split: str) -> tuple[Spec, Reranker]:
    """Return a reranker that was trained, and which it is.

    Args:
        folder: As :func:`train_reranker` fills it.
        corpus: The data.
        split: Whose rows it is to rank.

    Raises:
        UserError: The folder holds none, it is damaged, or it was trained on other data, on another
            split of them, or on the rows that it is to rank.
    """
    path = folder / NAME
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["kind"] != KIND:
            raise ValueError(f"its kind is {kept['kind']!r}")
        spec = Spec(kept["reranker"], kept["settings"], kept["seed"])
        fingerprint, learned = kept["fingerprint"], kept["split"]
        data_split = kept["data_split"]
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no trained reranker (no {NAME}); train one with --train_split=valid"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); train the reranker anew") from error
    if fingerprint != corpus.fingerprint:
        raise UserError(
            f"{folder} was trained on other data ('{kept.get('dataset')}', fingerprint "
            f"{fingerprint[:12]}) than the candidates are of ({corpus.fingerprint[:12]}); train it "
            "anew on these"
        )
    corpus.check_split(data_split, f"the reranker in {folder}")
    if learned == split:
        raise UserError(
            f"{folder} was trained on the {split} split, the one that is ranked, so it knows the "
            "answers; rank test with it"
        )
    reranker = spec.build(corpus)
    reranker.load(folder)
    return spec, reranker
