"""Trained models as rerankers: their scores of the candidates are those of their own ranking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rerankers.contracts import RerankerContract, TinyCorpus, tiny_batch
from two_stage_help import loaded

from recbole_ext.pipeline.retrieve import retrieve
from recbole_ext.rerankers.build import build_reranker
from recbole_ext.types import UserError


class RunCorpus(TinyCorpus):
    """Trains by finding one trained."""

    def __init__(self, trained: Path | None = None) -> None:
        self.trained = trained

    def open_run(self, folder: Any) -> Any:
        return loaded(Path(self.trained or folder))

    def train_run(self, model: str, settings: Any, folder: Path) -> None:
        self.asked = (model, settings, folder)


class TestContract(RerankerContract):
    name = "recbole"

    @pytest.fixture
    def given(self, runs: Any) -> dict[str, Any]:
        return {"run": str(runs("SASRec"))}

    @pytest.fixture
    def corpus(self) -> RunCorpus:
        return RunCorpus()


@pytest.mark.parametrize("model", ["SASRec", "BPR", "FM"])
def test_scores_are_those_of_the_models_own_candidates(model, runs):
    """With histories longer than the model's limit, and of every user of the data."""
    rows = retrieve(runs(model), 9, ["test"], "mask").splits["test"]
    assert max(len(history) for history in rows.histories) > 10
    reranker = build_reranker(f"recbole:{runs(model)}", {}, RunCorpus())
    shuffled = [row[::-1] for row in rows.candidates]
    scores = reranker.score(replace(rows, candidates=shuffled, targets=None))
    torch.testing.assert_close(scores.flip(1), rows.scores, rtol=1e-4, atol=1e-5)


def test_a_user_without_a_history_keeps_stage_ones_order(runs):
    batch = tiny_batch().without_targets()
    assert not batch.histories[0]
    scores = build_reranker(f"recbole:{runs('SASRec')}", {}, RunCorpus()).score(batch)
    assert torch.equal(scores[0], batch.scores[0]) and not torch.equal(scores[1], batch.scores[1])


def test_a_model_is_trained_into_the_rerankers_folder(runs, tmp_path):
    given = {"model": "SASRec", "model_settings": {"epochs": 3}}
    corpus = RunCorpus(trained=runs("SASRec"))
    reranker = build_reranker("recbole", given, corpus)
    batch = tiny_batch().without_targets()
    with pytest.raises(UserError, match="SASRec is not trained yet; train it with --train_split"):
        reranker.score(batch)
    reranker.fit(tiny_batch(), None, tmp_path)
    assert corpus.asked == ("SASRec", {"seed": 2020, "epochs": 3}, tmp_path / "run")
    again = build_reranker("recbole", given, corpus)
    again.load(tmp_path)
    assert torch.equal(again.score(batch), reranker.score(batch))


@pytest.mark.parametrize("given", [{}, {"run": "a", "model": "SASRec"}])
def test_a_run_or_a_model_is_named(given):
    with pytest.raises(UserError, match="a trained run .* or a model to train .*one of them"):
        build_reranker("recbole", given, TinyCorpus())


def test_a_model_that_reads_more_than_histories_is_refused(runs, monkeypatch):
    corpus = RunCorpus()
    model = type(corpus.open_run(runs("SASRec")).model)
    monkeypatch.setattr(model, "full_sort_predict", lambda self, rows: rows["timestamp_list"])
    reranker = build_reranker(f"recbole:{runs('SASRec')}", {}, corpus)
    with pytest.raises(UserError, match="SASRec reads the field 'timestamp_list' of a row, which"):
        reranker.score(tiny_batch().without_targets())
