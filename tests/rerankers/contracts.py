"""What every reranker keeps to. A test file inherits it in three lines::

class TestContract(RerankerContract):
    name, settings = "cross_encoder", {"model": "..."}
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from recbole_ext.paths import reranker_yaml
from recbole_ext.rerankers.base import Reranker
from recbole_ext.rerankers.batch import RerankBatch, padded
from recbole_ext.rerankers.build import build_reranker, find_reranker, settings_of
from recbole_ext.settings_check import typed_comments
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import UserError

ITEMS = [f"i{i}" for i in range(40)]


class TinyCorpus:
    """Forty items, the first the most popular."""

    dataset, fingerprint = "tiny", "of tiny"

    def counts(self) -> dict[str, int]:
        return {item: len(ITEMS) - i for i, item in enumerate(ITEMS)}

    def open_run(self, folder: Any) -> Any:
        raise AssertionError(f"{folder} is no run of the contract tests")

    def train_run(self, model: str, settings: Any, folder: Path) -> None:
        raise AssertionError("nothing is trained in the contract tests")


def tiny_batch(n_users: int = 6, n: int = 8, seed: int = 0) -> RerankBatch:
    """Users with two to n candidates in an order by chance; of every third user no target is one.

    The texts are those of ``conftest.write_tiny_dataset``, and item i39 has none.
    """
    rng = np.random.default_rng(seed)
    lengths = [n, 2, *rng.integers(2, n + 1, n_users - 2)]
    candidates = [rng.permutation(ITEMS)[:length].tolist() for length in lengths]
    scores = padded([np.sort(rng.normal(size=length))[::-1].copy() for length in lengths])
    targets = [
        [row[int(rng.integers(len(row)))]] if user % 3 else ["i99"]
        for user, row in enumerate(candidates)
    ]
    return RerankBatch(
        users=[f"u{user}" for user in range(n_users)],
        histories=[rng.permutation(ITEMS)[:length].tolist() for length in range(n_users)],
        candidates=candidates,
        scores=scores,
        texts={item: f"Title {item[1:]} of 40" for item in ITEMS[:-1]},
        targets=targets,
    )


class RerankerContract:
    """Inherit, and set ``name``; ``settings`` are the reranker's own for small data."""

    name: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def given(self) -> dict[str, Any]:
        """Override where settings name what a fixture makes: a model's folder."""
        return self.settings

    @pytest.fixture
    def corpus(self) -> Any:
        return TinyCorpus()

    @pytest.fixture
    def reranker(self, given, corpus) -> Reranker:
        return build_reranker(self.name, given, corpus, seed=1)

    @pytest.fixture
    def batch(self) -> RerankBatch:
        return tiny_batch()

    def visible(self, batch: RerankBatch) -> RerankBatch:
        """The batch as the reranker gets it."""
        is_told = find_reranker(self.name).needs_targets
        return batch if is_told else batch.without_targets()

    def test_scores_are_float32_and_padding_is_minus_infinity(self, reranker, batch):
        scores = reranker.score(self.visible(batch))
        assert scores.dtype == torch.float32 and scores.shape == batch.scores.shape
        assert scores.device.type == "cpu" and not scores.requires_grad
        lengths = [len(row) for row in batch.candidates]
        assert min(lengths) < max(lengths), "the batch has padding"
        for row, length in zip(scores, lengths, strict=True):
            assert row[:length].isfinite().all() and (row[length:] == -torch.inf).all()

    def test_a_row_is_scored_alone_as_among_others(self, reranker, batch):
        batch = self.visible(batch)
        together = reranker.score(batch)
        for i in range(len(batch)):
            alone = reranker.score(batch.rows([i]))
            torch.testing.assert_close(
                alone[0], together[i, : alone.shape[1]], rtol=1e-4, atol=1e-5
            )

    def test_the_same_rows_give_the_same_scores(self, given, corpus, reranker, batch):
        batch = self.visible(batch)
        again = build_reranker(self.name, given, corpus, seed=1)
        assert torch.equal(reranker.score(batch), reranker.score(batch))
        assert torch.equal(again.score(batch), reranker.score(batch))

    def test_candidates_in_another_order_keep_their_places_in_the_list(self, reranker, batch):
        """Not so for listwise prompts, in which the order is read: override with a reason."""
        batch = self.visible(batch).rows([0])
        order = torch.arange(len(batch.candidates[0])).flip(0)
        turned = replace(
            batch,
            candidates=[batch.candidates[0][::-1]],
            scores=batch.scores[:, order],
        )
        torch.testing.assert_close(
            reranker.score(turned), reranker.score(batch)[:, order], rtol=1e-4, atol=1e-5
        )

    def test_a_user_without_a_history_is_served(self, reranker, batch):
        assert len(batch.histories[0]) == 0
        assert reranker.score(self.visible(batch).rows([0])).isfinite().all()

    def test_the_list_is_of_the_candidates_best_first(self, reranker, batch):
        batch = self.visible(batch)
        lists, scores = reranker.rerank(batch, 3), reranker.score(batch)
        for row, found, score in zip(batch.candidates, lists, scores, strict=True):
            best = sorted(range(len(row)), key=lambda place: -score[place].item())
            assert found == [row[place] for place in best[:3]]

    def test_saved_and_loaded_scores_are_identical(self, reranker, given, corpus, batch, tmp_path):
        batch = self.visible(batch)
        reranker.save(tmp_path)
        other = build_reranker(self.name, given, corpus, seed=1)
        other.load(tmp_path)
        assert torch.equal(other.score(batch), reranker.score(batch))

    def test_training_is_done_and_kept_or_refused(self, reranker, given, corpus, batch, tmp_path):
        if not reranker.is_trainable:
            with pytest.raises(UserError, match="has nothing to train"):
                reranker.fit(batch, None, tmp_path)
            return
        before = reranker.score(self.visible(batch)).clone()
        assert isinstance(reranker.fit(batch, None, tmp_path), dict)
        trained = reranker.score(self.visible(batch))
        assert not torch.equal(trained, before)
        reranker.save(tmp_path)
        other = build_reranker(self.name, given, corpus, seed=1)
        other.load(tmp_path)
        assert torch.equal(other.score(self.visible(batch)), trained)

    def test_an_unknown_setting_is_named(self, given):
        with pytest.raises(UserError, match=f"reranker {self.name} has no setting 'qqqq'"):
            settings_of(self.name, {**given, "qqqq": 1})

    def test_every_setting_has_a_typed_comment_and_the_file_a_command(self):
        path = reranker_yaml(self.name)
        assert typed_comments([path]).keys() == read_yaml(path).keys()
        head = path.read_text(encoding="utf-8").splitlines()[0]
        assert head.startswith("# recbole-ext ") and f"--reranker={self.name}" in head
