"""Scores that are kept: a rerank that was broken off goes on, and nothing old is taken for new."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rerankers.contracts import TinyCorpus, tiny_batch

from recbole_ext.rerankers import score_cache
from recbole_ext.rerankers.build import build_reranker
from recbole_ext.rerankers.score_cache import ScoreCache
from recbole_ext.types import UserError

BATCH = tiny_batch(7, 5).without_targets()


class Slow:
    """The random reranker, which notes whom it scores and can be killed."""

    def __init__(self, dies_after=99):
        self.reranker = build_reranker("random", {}, TinyCorpus())
        self.users, self.left = [], dies_after

    def score(self, batch):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.users += batch.users
        return self.reranker.score(batch)


def test_what_was_scored_before_a_kill_is_not_scored_again(tmp_path):
    expected = Slow().score(BATCH)
    killed, other = Slow(dies_after=2), Slow()
    with pytest.raises(KeyboardInterrupt):
        ScoreCache(tmp_path, "a", every=2).score(killed.score, BATCH)
    assert torch.equal(ScoreCache(tmp_path, "a", every=2).score(other.score, BATCH), expected)
    assert killed.users == ["u0", "u1", "u2", "u3"] and other.users == ["u4", "u5", "u6"]
    third = Slow()
    assert torch.equal(ScoreCache(tmp_path, "a").score(third.score, BATCH), expected)
    assert third.users == []


def test_another_source_or_anything_new_in_a_row_is_scored(tmp_path):
    def scored(batch, source="a"):
        slow = Slow()
        ScoreCache(tmp_path, source).score(slow.score, batch)
        return slow.users

    row = BATCH.rows([3])
    assert scored(row) == ["u3"] and scored(row) == []
    item = row.candidates[0][0]
    changed = [
        replace(row, histories=[["i1", "i2"]]),
        replace(row, candidates=[row.candidates[0][::-1]]),
        replace(row, scores=row.scores + 1),
        replace(row, texts={**row.texts, item: "Another"}),
        replace(row, users=["u9"]),
    ]
    for other in changed:
        assert scored(other) == list(other.users)
    assert scored(row, source="b") == ["u3"]
    assert scored(replace(row, texts={**row.texts, "i99": "of no row"})) == []


def test_many_small_files_become_one(tmp_path, monkeypatch):
    monkeypatch.setattr(score_cache, "MOST_PARTS", 3)
    slow, again = Slow(), Slow()
    expected = ScoreCache(tmp_path, "a", every=2).score(slow.score, BATCH)
    assert len(slow.users) == len(BATCH)
    assert [path.name for path in tmp_path.glob("*.parquet")] == ["scores.parquet"]
    assert torch.equal(ScoreCache(tmp_path, "a").score(again.score, BATCH), expected)
    assert again.users == []


@pytest.mark.parametrize("name", ["scores.parquet", "part-x.parquet"])
def test_a_damaged_file_is_one_sentence(name, tmp_path):
    ScoreCache(tmp_path, "a").score(Slow().score, BATCH)
    (tmp_path / name).write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=f"{name} is damaged .*move it away, and its rows are scor"):
        ScoreCache(tmp_path, "a")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder .*file: .*; choose another c"):
        ScoreCache(tmp_path / "file", "a")
