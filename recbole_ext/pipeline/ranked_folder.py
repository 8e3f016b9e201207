"""The folder of a ranking: lists, ranks, report, and, last, ``result.json``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from recbole_ext.atomic import replacing
from recbole_ext.evaluation.rerank_metrics import random_baseline
from recbole_ext.pipeline.candidates import Candidates, table_of
from recbole_ext.pipeline.corpus import DatasetCorpus
from recbole_ext.pipeline.folders import make
from recbole_ext.pipeline.ground_truth import sampled
from recbole_ext.pipeline.ranking import Ranking
from recbole_ext.pipeline.rerank import Reranked, rerank, write_ranked
from recbole_ext.pipeline.rerank_report import report_of
from recbole_ext.pipeline.sizes import Sizes
from recbole_ext.pipeline.trained import Spec
from recbole_ext.rerankers.base import Reranker
from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.rerankers.build import build_reranker
from recbole_ext.run_folder import plain, versions, write_text

FILES = ("ranked.parquet", "per_user.parquet", "sampled.parquet", "report.md", "reranker")
"""What a ranking that was broken off may leave; ``result.json`` comes last."""


def rank_and_write(
    found: Candidates,
    corpus: DatasetCorpus,
    texts: Mapping[str, str],
    reranker: tuple[Spec, Reranker],
    ranking: Ranking,
    sizes: Sizes,
    folder: Path,
) -> dict[str, Any]:
    """Rank a split's rows, and write lists, ranks, report and, last, ``result.json``."""
    spec, ready = reranker
    rows = replace(found.split(ranking.split), texts=texts)
    is_sampled = ranking.mode == "ground_truth"
    if is_sampled:
        rows = _sampled(found, rows, corpus, sizes.rerank_top_k, spec.seed)
    began = time.perf_counter()
    reranked = rerank(rows, ready, sizes, ranking.cutoffs, ranking.batch_size)
    result = _result(found, reranked, spec, ranking, time.perf_counter() - began)
    if is_sampled:
        result["metrics"]["random"] = random_baseline(
            sizes.rerank_top_k, sizes.cutoffs(ranking.cutoffs)
        )
        result["n_again"] = sum(
            targets[0] in history
            for targets, history in zip(rows.targets or (), rows.histories, strict=True)
        )
    make(folder)
    if is_sampled:
        with replacing(folder / "sampled.parquet") as temporary:
            pq.write_table(table_of(ranking.split, rows), temporary, compression="zstd")
    write_ranked(folder, ranking.split, reranked, sizes.output_top_k)
    write_text(folder / "report.md", report_of(result))
    write_text(folder / "result.json", json.dumps(plain(result), indent=2) + "\n")
    return {**result, "folder": str(folder)}


def _sampled(
    found: Candidates, rows: RerankBatch, corpus: DatasetCorpus, n: int, seed: int
) -> RerankBatch:
    """Draw the candidates; the retriever orders them where its run is there still."""
    run = found.manifest.retriever.get("folder")
    score: Callable[[RerankBatch], Any] | None = None
    if run and (Path(run) / "best.pt").is_file():
        score = build_reranker(f"recbole:{run}", {}, corpus).score
    return sampled(rows, n, corpus.items, corpus.known(rows.users), seed, score)


def _result(
    found: Candidates, reranked: Reranked, spec: Spec, ranking: Ranking, seconds: float
) -> dict[str, Any]:
    manifest, n_users = found.manifest, len(reranked.rows)
    return {
        "mode": ranking.mode,
        "dataset": manifest.dataset,
        "fingerprint": manifest.fingerprint,
        "split": ranking.split,
        "retriever": manifest.name,
        "history": manifest.history,
        "candidates": manifest.digest,
        "reranker": spec.name,
        "settings": dict(spec.settings),
        "seed": spec.seed,
        "n_users": n_users,
        "n_hits": reranked.n_hits,
        "hit_rate": reranked.n_hits / n_users,
        "ceilings": reranked.ceilings,
        "metrics": {name: dict(block) for name, block in reranked.metrics.items()},
        "seconds": {"score": seconds},
        "versions": versions(),
    }
