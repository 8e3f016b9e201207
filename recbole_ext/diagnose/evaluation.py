"""What an evaluation of RecBole's trainer looked at: ranks of positives, or scores with labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from recbole_ext.evaluation.impressions import per_impression
from recbole_ext.evaluation.ranks import RankRecorder

NEGATIVES = 4
"""Items of each row whose scores are kept beside those of the positives."""


@dataclass(frozen=True)
class Evaluation:
    """A test by one scorer.

    Attributes:
        metrics: RecBole's, by name, as in ``result.json``.
        name: The metric that scorers are compared by.
        value: Its value; more is better.
        gains: What each unit of ``value`` has [n]: a positive, or an impression; ``None`` where
            the metric is one of all rows (AUC).
        users: Internal id of each positive, or of each row [n].
        items: The same of items.
        scores: Of the positives, or of all rows [n].
        negatives: Scores of other items, drawn [m]; of rows without a click where rows have labels.
        ranks: Of the positives [n]; ``None`` where rows have labels.
        ties: Other items of a positive's score [n].
        labels: Of the rows [n]; ``None`` where items are ranked.
        group: Impression of each row [n], where there are such.
    """

    metrics: dict[str, float]
    name: str
    value: float
    gains: np.ndarray | None
    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray
    negatives: np.ndarray
    ranks: np.ndarray | None = None
    ties: np.ndarray | None = None
    labels: np.ndarray | None = None
    group: np.ndarray | None = None

    @property
    def is_binary(self) -> bool:
        """Whether the labels are clicks, and no ratings."""
        return self.labels is not None and are_clicks(self.labels)

    @property
    def n(self) -> int:
        """Units that the test has: positives, ratings, or rows of the rarer class."""
        if self.labels is None or not self.is_binary:
            return len(self.scores)
        return int(min(self.labels.sum(), (1 - self.labels).sum()))


class ScoreRecorder(RankRecorder):
    """Keeps the scores of positives, and of some other items, beside the ranks."""

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(0)
        self._scores: list[tuple[Tensor, Tensor]] = []

    def add(self, scores: Tensor, users: Tensor, positive_u: Tensor, positive_i: Tensor) -> None:
        """Record a batch; see :class:`~recbole_ext.evaluation.ranks.RankRecorder`."""
        super().add(scores, users, positive_u, positive_i)
        scores = scores.detach().cpu()
        # a pair that the test has twice is one positive
        rows, items = torch.stack([positive_u.cpu(), positive_i.cpu()]).unique(dim=1)  # [P] each
        size = len(scores), NEGATIVES
        drawn = torch.randint(1, scores.shape[1], size, generator=self._generator)
        others = scores.gather(1, drawn)  # [B, NEGATIVES]
        self._scores.append((scores[rows, items], others[others.isfinite()]))

    def evaluation(self, metrics: dict[str, float], k: int) -> Evaluation:
        """Return what was recorded; scorers are compared by NDCG at ``k``."""
        users, items, ranks, ties = (
            torch.cat(column).numpy() for column in zip(*self._parts, strict=True)
        )
        scores, negatives = (torch.cat(part).numpy() for part in zip(*self._scores, strict=True))
        gains = np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0.0)  # [P]
        found = (f"ndcg@{k} by positive", float(gains.mean()), gains)
        return Evaluation(metrics, *found, users, items, scores, negatives, ranks, ties)


class RowRecorder:
    """Stands before RecBole's collector, and keeps scores and labels of rows that have some.

    Args:
        collector: RecBole's.
        fields: Names of the fields of users, items, labels and, where there are such, impressions.
    """

    def __init__(self, collector: Any, fields: list[str]) -> None:
        self.collector, self.fields = collector, fields
        self._parts: list[tuple[np.ndarray, ...]] = []

    def eval_batch_collect(self, scores: Tensor, interaction: Any, *rest: Any) -> None:
        """Record a batch and hand it on: scores [B] of single rows."""
        columns = [interaction[field].cpu().numpy() for field in self.fields]
        self._parts.append((scores.double().cpu().numpy().reshape(-1), *columns))
        self.collector.eval_batch_collect(scores, interaction, *rest)

    def __getattr__(self, name: str) -> Any:
        """Return whatever else the collector has."""
        return getattr(self.collector, name)

    def evaluation(self, metrics: dict[str, float]) -> Evaluation:
        """Return what was recorded; scorers are compared by AUC, or by the error of ratings."""
        scores, users, items, labels, *group = (
            np.concatenate(column) for column in zip(*self._parts, strict=True)
        )
        impression = group[0] if group else None
        found = compared_by(scores, labels, impression)
        negatives = scores[labels <= 0] if are_clicks(labels) else scores[:0]
        rows = (users, items, scores, negatives)
        return Evaluation(metrics, *found, *rows, labels=labels, group=impression)


def are_clicks(labels: np.ndarray) -> bool:
    """Return whether labels [n] are 0 or 1, and no ratings."""
    return bool(np.isin(labels, (0, 1)).all())


def compared_by(
    scores: np.ndarray, labels: np.ndarray, impression: np.ndarray | None
) -> tuple[str, float, np.ndarray | None]:
    """Return name, value and gains of the metric by which labelled rows are compared.

    Args:
        scores: [n].
        labels: [n]; clicks, or ratings.
        impression: Of each row [n]; ``None`` where all rows are one list.
    """
    if not are_clicks(labels):
        gains = -((scores - labels) ** 2)  # [n]
        return "-squared error", float(gains.mean()), gains
    if impression is not None:
        gains = per_impression(impression, scores, labels)["auc"].to_numpy()  # [I]
        counted = gains[~np.isnan(gains)]
        return "AUC by impression", float(counted.mean()) if len(counted) else np.nan, gains
    both = 0 < labels.mean() < 1 and np.isfinite(scores).all()
    return "AUC", float(roc_auc_score(labels, scores)) if both else np.nan, None


def margin(one: Evaluation, other: Evaluation) -> float:
    """Return twice the standard error of the difference of two scorers' values."""
    if one.gains is not None and other.gains is not None:
        difference = one.gains - other.gains  # [n]
        difference = difference[~np.isnan(difference)]
        return float(2 * difference.std() / max(len(difference), 1) ** 0.5)
    labels = one.labels if one.labels is not None else np.zeros(0)
    n = max(labels.sum(), 1.0), max((1 - labels).sum(), 1.0)
    # of an AUC by chance (Mann and Whitney, 1947), twice over: one of each scorer
    return float(2 * (2 * (n[0] + n[1] + 1) / (12 * n[0] * n[1])) ** 0.5)
