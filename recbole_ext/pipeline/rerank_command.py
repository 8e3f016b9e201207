"""``recbole-ext rerank``: candidates and a reranker to ranked lists and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_ext.pipeline.candidates import read_candidates
from recbole_ext.pipeline.corpus import DatasetCorpus
from recbole_ext.pipeline.folders import check_free, make, remove_if_empty
from recbole_ext.pipeline.ranked_folder import FILES, rank_and_write
from recbole_ext.pipeline.ranking import Ranking
from recbole_ext.pipeline.trained import (
    Spec,
    open_reranker,
    refuse_untrainable,
    train_reranker,
    training_rows,
)
from recbole_ext.rerankers.build import settings_of
from recbole_ext.types import UserError, suggest

VALID_SHARE = 0.1
"""Of the training rows, kept to stop by."""


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
        output_dir: Folder to be made; runs/rerank-<reranker>-<candidates>... by default.
        settings: The reranker's own, by key.

    Returns:
        What ``result.json`` holds.
    """
    settings = settings or {}
    _check(ranking, reranker, reranker_dir, train_split, settings)
    name = (reranker or Path(str(reranker_dir)).name).replace(":", "-").replace("/", "-")
    what = "-".join([name, Path(candidates).name, *ranking.beside_default])
    folder = Path(output_dir or f"runs/rerank-{what}")
    check_free(folder, FILES)
    found = read_candidates(candidates)
    corpus = DatasetCorpus(found.manifest)
    texts = corpus.texts(ranking.text_template)
    sizes = ranking.sizes(found.manifest.k)
    if reranker_dir is not None:
        spec, ready = open_reranker(Path(reranker_dir), corpus, ranking.split)
        spec = replace(spec, seed=seed)
    else:
        spec = Spec(str(reranker), dict(settings), seed)
        ready = spec.build(corpus)
    if train_split is not None:
        refuse_untrainable(spec, ready)  # before there is a folder
        rows = replace(found.split(train_split), texts=texts)
        parts = training_rows(rows, sizes.rerank_top_k, seed, VALID_SHARE)
        about = {"candidates": found.manifest.digest, "split": train_split}
        place = make(folder / "reranker")
        try:
            ready = train_reranker(spec, corpus, parts, place, about)
        except UserError:
            for one in (place, folder):
                remove_if_empty(one)
            raise
    return rank_and_write(found, corpus, texts, (spec, ready), ranking, sizes, folder)


def _check(
    ranking: Ranking,
    reranker: str | None,
    reranker_dir: str | None,
    train_split: str | None,
    settings: Mapping[str, Any],
) -> None:
    """Refuse options that do not go together, before anything is read."""
    if (reranker is None) == (reranker_dir is None):
        raise UserError(
            "rerank takes a reranker (--reranker=popularity) or one that was trained "
            "(--reranker_dir=<folder>): one of the two"
        )
    if reranker_dir is not None and (settings or train_split):
        what = next(iter(settings), "train_split")
        raise UserError(
            f"{what} was set when the reranker of --reranker_dir was trained; leave it out"
        )
    if train_split == ranking.split:
        raise UserError(
            f"train_split {train_split} is the split that is ranked, so the reranker would know the"
            " answers; train on valid and rank test"
        )
    if train_split not in (None, "valid"):  # histories of test rows have valid's targets
        raise UserError(
            f"train_split takes valid, where test is ranked, not '{train_split}'"
            f"{suggest(str(train_split), ['valid'])}"
        )
    if reranker is not None:
        settings_of(reranker, settings)
