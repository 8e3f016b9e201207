"""What every reranker keeps to: a batch of candidates in, one score for each out.

A reranker is ``recbole_ext/rerankers/<name>.py`` with the class ``<Name>Reranker``, its settings in
``properties/reranker/<name>.yaml``, and a contract test of three lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.types import UserError


class Corpus(Protocol):
    """What a reranker may know of the data beside a batch; each is read when it is asked for.

    Attributes:
        dataset: Name of the dataset.
        fingerprint: Its fingerprint; what a reranker keeps of the data is good for this one alone.
    """

    dataset: str
    fingerprint: str

    def counts(self) -> Mapping[str, int]:
        """Return the training interactions of every item of the catalogue, by token."""
        ...

    def open_run(self, folder: str | Path) -> Any:
        """Return a finished run with model and data, as ``quick_start.load_run`` does.

        Raises:
            UserError: The folder holds no run, or one of another dataset.
        """
        ...

    def train_run(self, model: str, settings: Mapping[str, Any], folder: Path) -> None:
        """Train a model into a run folder, on the data of the candidates; go on if broken off."""
        ...


class Reranker:
    """Scores candidates; a higher score ranks better.

    Args:
        settings: Every key of ``properties/reranker/<name>.yaml``, checked; ``seed`` beside them.
        corpus: The data.

    Attributes:
        argument: Setting that is meant by what stands behind the colon of ``name:value``.
        is_trainable: Whether :meth:`fit` has something to do, with these settings.
        needs_targets: Whether :meth:`score` reads the targets: a control, and no reranker.
    """

    argument: ClassVar[str | None] = None
    is_trainable: bool = False
    needs_targets: ClassVar[bool] = False

    def __init__(self, settings: Mapping[str, Any], corpus: Corpus) -> None:
        self.settings, self.corpus = settings, corpus

    def score(self, batch: RerankBatch) -> Tensor:
        """Return float32 scores on the CPU [B, N], -inf where ``batch.scores`` has padding."""
        raise NotImplementedError(f"{type(self).__name__} has no score()")

    def fit(self, train: RerankBatch, valid: RerankBatch | None, folder: Path) -> Mapping[str, Any]:
        """Train on rows with targets.

        Args:
            train: All rows to train on; ``train.batches(size)`` and ``train.rows(index)`` cut it.
            valid: Rows of other users to stop by.
            folder: Where the reranker may write while it trains; :meth:`save` writes there after.

        Returns:
            What is worth telling of the training, for ``result.json``.

        Raises:
            UserError: There is nothing to train.
        """
        raise UserError(f"{type(self).__name__} has nothing to train; use it without training")

    def save(self, folder: Path) -> None:
        """Write all that training has changed into a folder that exists."""

    def load(self, folder: Path) -> None:
        """Take back what :meth:`save` wrote.

        Raises:
            UserError: A file is missing or damaged.
        """

    def rerank(self, batch: RerankBatch, k: int) -> list[list[str]]:
        """Return the ``k`` best candidates of each row, the best first; ties as they stood."""
        order = self.score(batch).argsort(dim=1, descending=True, stable=True)  # [B, N]
        return [
            [row[place] for place in places if place < len(row)][:k]
            for row, places in zip(batch.candidates, order.tolist(), strict=True)
        ]


def target_places(batch: RerankBatch) -> list[list[int]]:
    """Return the places of each row's targets among its candidates; none where all are missed.

    Raises:
        ValueError: The batch has no targets.
    """
    if batch.targets is None:
        raise ValueError("this batch has no targets: only training and the oracle see them")
    return [
        [place for place, item in enumerate(row) if item in targets]
        for row, targets in zip(batch.candidates, batch.targets, strict=True)
    ]
