"""``recbole-ext rerank``: candidates and a reranker to ranked lists and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from recbole_ext.atomic import replacing
from recbole_ext.pipeline.candidates import Candidates, read_candidates, table_of
from recbole_ext.pipeline.corpus import DatasetCorpus
from recbole_ext.pipeline.folders import check_free, make
from recbole_ext.pipeline.ground_truth import sampled
from recbole_ext.pipeline.rerank import Reranked, random_baseline, rerank, write_ranked
from recbole_ext.pipeline.rerank_report import report_of
from recbole_ext.pipeline.sizes import Sizes, sizes_of
from recbole_ext.pipeline.trained import Spec, open_reranker, train_reranker, training_rows
from recbole_ext.rerankers.base import Reranker
from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.rerankers.build import build_reranker, settings_of
from recbole_ext.run_folder import plain, versions, write_text
from recbole_ext.types import UserError, suggest

MODES = ("retrieval", "ground_truth")
FILES = ("ranked.parquet", "per_user.parquet", "sampled.parquet", "report.md", "reranker")
"""What a broken-off ``rerank`` may leave; ``result.json`` comes last."""
VALID_SHARE = 0.1
"""Of the training rows, kept to stop by."""


@dataclass(frozen=True)
class Ranking:
    """How candidates are ranked and measured.

    Attributes:
        mode: retrieval ranks stage one's candidates; ground_truth one positive among sampled ones.
        split: Whose users are ranked: valid or test.
        retrieval_top_k: Candidates of each user that are looked at; all by default.
        rerank_top_k: Candidates that the reranker scores; 50 by default, or fewer.
        output_top_k: Length of the resulting lists; 20 by default, or fewer.
        topk: Cut-offs of the metrics, with commas between.
        batch_size: Users that are scored together.
        text_template: Text of an item, as "{movie_title} ({release_year})"; its title by default.
    """

    mode: str = "retrieval"
    split: str = "test"
    retrieval_top_k: int | None = None
    rerank_top_k: int | None = None
    output_top_k: int | None = None
    topk: str = "5,10,20"
    batch_size: int = 64
    text_template: str | None = None

    def __post_init__(self) -> None:
        for key, value, words in (
            ("mode", self.mode, MODES),
            ("split", self.split, ("valid", "test")),
        ):
            if value not in words:
                raise UserError(
                    f"{key} takes {' or '.join(words)}, not '{value}'{suggest(value, words)}"
                )
        if self.batch_size < 1:
            raise UserError(f"batch_size takes a number from 1, not {self.batch_size}")

    @property
    def cutoffs(self) -> list[int]:
        """The cut-offs of the metrics."""
        parts = self.topk.strip("[]").replace(" ", "").split(",")
        if not all(part.isdecimal() and int(part) for part in parts):
            raise UserError(f"topk takes numbers with commas between, 5,10,20, not '{self.topk}'")
        return sorted({int(part) for part in parts})

    def sizes(self, k: int) -> Sizes:
        """Return the three sizes; of sampled candidates, any number may be drawn."""
        given = (self.retrieval_top_k, self.rerank_top_k, self.output_top_k)
        if self.mode == "ground_truth":
            if self.retrieval_top_k is not None:
                raise UserError(
                    "retrieval_top_k is for mode retrieval; of sampled candidates rerank_top_k is "
                    "the number"
                )
            n = self.rerank_top_k or 20
            return sizes_of(n, n, self.output_top_k, n)
        return sizes_of(*given, k)


def rerank_candidates(
    candidates: str,
    ranking: Ranking,
    reranker: str | None = None,
    reranker_dir: str | None = None,
    train_split: str | None = None,
    seed: int = 2020,
    output_dir: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Rank the candidates of stage one anew, and say what that is worth.

    Args:
        candidates: Folder of candidates.
        ranking: How.
        reranker: Its name, as popularity, or recbole:<run folder>.
        reranker_dir: A reranker that was trained, in place of a name.
        train_split: Train the reranker on these rows first: valid, where test is ranked.
        seed: Of sampled candidates and of whatever the reranker draws.
        output_dir: Folder to be made; runs/rerank-<reranker>-<candidates> by default.
        settings: The reranker's own, by key.

    Returns:
        What ``result.json`` holds.
    """
    if (reranker is None) == (reranker_dir is None):
        raise UserError(
            "rerank takes a reranker (--reranker=popularity) or one that was trained "
            "(--reranker_dir=<folder>): one of the two"
        )
    if reranker_dir is not None and (settings or train_split):
        what = next(iter(settings or {}), "train_split")
        raise UserError(
            f"{what} was set when the reranker of --reranker_dir was trained; leave it out"
        )
    if train_split == ranking.split:
        raise UserError(
            f"train_split {train_split} is the split that is ranked, so the reranker would know the"
            " answers; train on valid and rank test"
        )
    if reranker is not None:
        settings_of(reranker, settings or {})  # a slip shows before anything is read
    name = (reranker or Path(str(reranker_dir)).name).replace(":", "-").replace("/", "-")
    folder = Path(output_dir or f"runs/rerank-{name}-{Path(candidates).name}")
    check_free(folder, FILES)
    found = read_candidates(candidates)
    corpus = DatasetCorpus(found.manifest)
    texts = corpus.texts(ranking.text_template)
    sizes = ranking.sizes(found.manifest.k)
    if reranker_dir is not None:
        spec, ready = open_reranker(Path(reranker_dir), corpus)
    else:
        spec = Spec(str(reranker), dict(settings or {}), seed)
        ready = spec.build(corpus)
        if train_split is not None:
            rows = replace(found.split(train_split), texts=texts)
            parts = training_rows(rows, sizes.rerank_top_k, seed, VALID_SHARE)
            place = make(folder / "reranker")
            about = {"candidates": found.manifest.digest, "split": train_split}
            ready = train_reranker(spec, corpus, parts, place, about)
    return rank_and_write(found, corpus, texts, (spec, ready), ranking, sizes, folder)


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
