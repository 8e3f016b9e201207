"""Stage two: the candidates in a reranker's order, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from recbole_ext.atomic import replacing
from recbole_ext.evaluation.rerank_metrics import blocks, ceiling, target_ranks, user_metrics
from recbole_ext.pipeline.sizes import Sizes
from recbole_ext.rerankers.base import Reranker, target_places
from recbole_ext.rerankers.batch import RerankBatch, padded
from recbole_ext.types import UserError


@dataclass(frozen=True)
class Reranked:
    """Rows with a reranker's scores, and the metrics of both orders.

    Attributes:
        rows: The rows that were scored, with targets.
        scores: The reranker's scores [U, N], -inf at padding.
        before: Ranks of each user's targets among the candidates by stage one.
        after: The same by the reranker.
        ceilings: Setting -> how many items it lets through, and their recall.
        metrics: The three blocks, and of sampled candidates ``random``.
    """

    rows: RerankBatch
    scores: Tensor
    before: Sequence[Sequence[float]]
    after: Sequence[Sequence[float]]
    ceilings: Mapping[str, Mapping[str, float]]
    metrics: Mapping[str, Mapping[str, float]]

    @property
    def n_hits(self) -> int:
        """Users with a target among what was scored."""
        return sum(bool(ranks) for ranks in self.after)


def rerank(
    rows: RerankBatch, reranker: Reranker, sizes: Sizes, topk: list[int], batch_size: int
) -> Reranked:
    """Score the best candidates of every user, and measure.

    Args:
        rows: With targets.
        reranker: Sees the targets only if it says that it needs them.
        sizes: How many candidates go where.
        topk: Cut-offs of the metrics; those beyond ``output_top_k`` are left out.
        batch_size: Users that are scored together.

    Raises:
        UserError: The scores are not numbers.
    """
    assert rows.targets is not None
    n_targets = [len(targets) for targets in rows.targets]
    everywhere = target_places(rows.first(sizes.retrieval_top_k))
    ceilings = {
        name: {"k": k, "recall": ceiling(everywhere, n_targets, k)}
        for name, k in vars(sizes).items()
    }
    rows = rows.first(sizes.rerank_top_k)
    scores = score_all(rows, reranker, batch_size)  # [U, N]
    places = target_places(rows)
    before, after = (target_ranks(which, places) for which in (rows.scores, scores))
    topk = sizes.cutoffs(topk)
    metrics = blocks(
        user_metrics(before, n_targets, topk),
        user_metrics(after, n_targets, topk),
        np.array([bool(mine) for mine in places], dtype=bool),  # [U]
    )
    return Reranked(rows, scores, before, after, ceilings, metrics)


def score_all(rows: RerankBatch, reranker: Reranker, batch_size: int) -> Tensor:
    """Return a reranker's scores of all rows [U, N], -inf at padding.

    Raises:
        UserError: The scores are not numbers.
    """
    seen = rows if reranker.needs_targets else rows.without_targets()
    found = []
    for batch in seen.batches(batch_size):
        scores = reranker.score(batch)  # [b, n]
        if not scores[batch.mask].isfinite().all():
            raise UserError(
                f"{type(reranker).__name__} gives scores that are not numbers (NaN or infinite): "
                "its training has diverged, or its weights are damaged; train it anew"
            )
        found += [row[: len(items)] for row, items in zip(scores, batch.candidates, strict=True)]
    return padded([row.tolist() for row in found], rows.scores.shape[1])


def write_ranked(folder: Path, split: str, reranked: Reranked, k: int) -> None:
    """Write ``ranked.parquet``, the list of every user, and ``per_user.parquet``, the ranks.

    ``ranked.parquet`` has a row per user: user, split, item list, score list. ``per_user.parquet``
    has a row per target: user_id, item_id, its rank by stage one and by the reranker; no rank where
    it is no candidate.
    """
    rows, order = reranked.rows, reranked.scores.argsort(dim=1, descending=True, stable=True)
    best = order[:, :k]  # [U, K]
    values = reranked.scores.gather(1, best).tolist()
    lists = [
        [row[place] for place in places if place < len(row)]
        for row, places in zip(rows.candidates, best.tolist(), strict=True)
    ]
    ranked = {
        "user": rows.users,
        "split": split,
        "item": lists,
        "score": [row[: len(items)] for row, items in zip(values, lists, strict=True)],
    }
    _write(folder / "ranked.parquet", pd.DataFrame(ranked))
    _write(folder / "per_user.parquet", _ranks(reranked))


def _ranks(reranked: Reranked) -> pd.DataFrame:
    rows, found = reranked.rows, []
    assert rows.targets is not None
    places = target_places(rows)
    for number, (user, targets) in enumerate(zip(rows.users, rows.targets, strict=True)):
        mine = [rows.candidates[number][place] for place in places[number]]
        ranks = dict(
            zip(
                mine, zip(reranked.before[number], reranked.after[number], strict=True), strict=True
            )
        )
        found += [(user, item, *ranks.get(item, (np.nan, np.nan))) for item in targets]
    return pd.DataFrame(found, columns=["user_id", "item_id", "stage_one_rank", "rank"])


def _write(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)
