"""The file between the stages: what is written is read, and nothing else is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from rerankers.contracts import tiny_batch

from recbole_ext.pipeline.candidates import Candidates, read_candidates, write_candidates
from recbole_ext.pipeline.manifest import Manifest
from recbole_ext.types import UserError

MANIFEST = Manifest(
    dataset="tiny",
    fingerprint="f" * 64,
    vocabulary={"items": "i", "users": "u"},
    n_users=6,
    n_items=40,
    splits={},
    k=8,
    history="keep",
    retriever={"model": "SASRec", "folder": "/runs/a", "checkpoint": "c"},
    config={"eval_args": {"order": "TO"}},
    seed=1,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_candidates(tmp_path, Candidates(MANIFEST, {"valid": tiny_batch(5), "test": tiny_batch()}))
    return tmp_path


def test_what_is_written_is_read(folder):
    found = read_candidates(folder, fingerprint="f" * 64)
    assert list(found.splits) == ["valid", "test"]
    assert found.manifest.splits == {"valid": 5, "test": 6} and found.manifest.k == 8
    for name, given in (("valid", tiny_batch(5)), ("test", tiny_batch())):
        rows = found.split(name)
        assert (rows.users, rows.targets) == (given.users, given.targets)
        assert (rows.candidates, rows.histories) == (given.candidates, given.histories)
        assert torch.equal(rows.scores, given.scores)


def test_the_file_is_a_row_per_split_and_user_of_tokens(folder):
    table = pd.read_parquet(folder / "candidates.parquet")
    names = ["user", "split", "targets", "cand_id", "cand_score", "hist_id"]
    assert list(table.columns) == names and len(table) == 11
    row, given = table.iloc[5], tiny_batch()
    assert (row["user"], row["split"], list(row["targets"])) == ("u0", "test", ["i99"])
    assert list(row["cand_id"]) == given.candidates[0]
    assert list(row["cand_score"]) == given.scores[0].tolist()


def damage_manifest(folder, **values):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def cut(folder):
    path = folder / "candidates.parquet"
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (cut, "candidates.parquet is damaged or missing .its bytes are not those.*make the"),
        (lambda f: (f / "candidates.parquet").unlink(), "candidates.parquet is damaged or missing"),
        (lambda f: (f / "manifest.json").unlink(), "holds no candidates .no manifest.json.; make"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda f: damage_manifest(f, kind="feature"), "no manifest of candidates of format 1"),
        (lambda f: damage_manifest(f, format=9), "no manifest of candidates of format 1"),
        (lambda f: damage_manifest(f, fingerprint="e" * 64), "candidates of other data .'tiny'"),
    ],
)
def test_what_is_no_whole_folder_of_these_data_is_one_sentence(spoil, sentence, folder):
    spoil(folder)
    with pytest.raises(UserError, match=sentence):
        read_candidates(folder, fingerprint="f" * 64)


def test_a_parquet_of_other_columns_is_refused(folder):
    from recbole_ext.data.feature_origin import file_digest

    pd.DataFrame({"user": ["u1"]}).to_parquet(folder / "candidates.parquet")
    damage_manifest(folder, digest=file_digest(folder / "candidates.parquet"))
    with pytest.raises(UserError, match="it has other columns"):
        read_candidates(folder)


def test_a_split_that_is_not_there_is_named(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    write_candidates(folder, Candidates(MANIFEST, {"valid": tiny_batch()}))
    with pytest.raises(UserError, match="are of valid, not of 'test'.*--split=test"):
        read_candidates(folder).split("test")
