"""Stage one against a loop over all items, and against the interactions as the file has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import N_ITEMS, N_USERS
from two_stage_help import loaded

from recbole_ext.data.feature_origin import file_digest
from recbole_ext.evaluation.all_items import all_scores
from recbole_ext.pipeline import retrieve as module
from recbole_ext.pipeline.retrieve import retrieve
from recbole_ext.types import UserError

MODELS = ["SASRec", "BPR", "FM"]


@pytest.fixture(autouse=True)
def each_run_is_loaded_once(monkeypatch):
    monkeypatch.setattr(module, "load_run", lambda folder, settings: loaded(folder))


def taken(data_path: Path) -> dict[str, list[str]]:
    """What each user took in the order of time, read from the file without RecBole."""
    events = pd.read_csv(data_path / "tiny" / "tiny.inter", sep="\t")
    events.columns = [name.partition(":")[0] for name in events.columns]
    events = events.sort_values("timestamp", kind="stable")
    return {user: mine["item_id"].tolist() for user, mine in events.groupby("user_id")}


@pytest.mark.parametrize("model", MODELS)
def test_targets_and_histories_are_those_of_the_file(model, runs, tiny_data_path):
    found, told = retrieve(runs(model), 5, ["valid", "test"], "mask"), taken(tiny_data_path)
    for split, place in (("valid", -2), ("test", -1)):
        rows = found.splits[split]
        assert sorted(rows.users) == sorted(told) and len(rows) == N_USERS
        for user, history, targets in zip(rows.users, rows.histories, rows.targets, strict=True):
            assert list(history) == told[user][:place] and list(targets) == [told[user][place]]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("history", ["mask", "keep"])
def test_the_best_items_are_those_of_a_loop_over_all_pairs(model, history, runs, tiny_data_path):
    """``predict`` scores each pair by itself, ``full_sort_predict`` has no say in it."""
    folder, told = runs(model), taken(tiny_data_path)
    rows = retrieve(folder, 7, ["test"], history).splits["test"]
    run = loaded(folder)
    items, users = (run.dataset.field2token_id[f] for f in ("item_id", "user_id"))
    split = run.test_data._dataset
    for row in (0, 11, 29):
        user = rows.users[row]
        batch = split.inter_feat[(split.inter_feat["user_id"] == users[user]).nonzero().flatten()]
        batch = split.join(batch)
        score = {}
        for item, number in items.items():
            batch["item_id"] = torch.tensor([number])
            with torch.no_grad():
                score[item] = float(run.model.predict(batch.to("cpu")))
        allowed = set(items) - {"[PAD]"}
        if history == "mask":
            allowed -= set(told[user][:-1])
        best = sorted(allowed, key=lambda item: -score[item])[:7]
        assert list(rows.candidates[row]) == best
        np.testing.assert_allclose(rows.scores[row], [score[i] for i in best], atol=1e-5)


def test_recall_is_that_of_the_runs_own_test(runs):
    """SASRec is tested without masking, BPR with it, which lets a target of the history through.

    Among candidates that would tell a reranker the answer: the one that stands in the history.
    """
    n_again = 0
    for model, policy in (("SASRec", "keep"), ("BPR", "mask")):
        found = retrieve(runs(model), 10, ["test"], None)
        assert found.manifest.history == policy
        ranks = pd.read_parquet(runs(model) / "per_user.parquet").set_index("user_id")["rank"]
        rows = found.splits["test"]
        columns = (rows.users, rows.candidates, rows.histories, rows.targets)
        for user, items, history, targets in zip(*columns, strict=True):
            is_again = policy == "mask" and targets[0] in history
            n_again += is_again
            assert (targets[0] in items) == (ranks[user] <= 10 and not is_again)
    assert n_again, "somebody takes an item again"


def test_a_model_without_full_ranking_gives_the_same_by_pairs(runs, monkeypatch):
    whole = retrieve(runs("BPR"), 6, ["test"], "mask").splits["test"]
    model = loaded(runs("BPR")).config.model_class

    def missing(self, interaction):
        raise NotImplementedError

    monkeypatch.setattr(model, "full_sort_predict", missing)
    by_pairs = retrieve(runs("BPR"), 6, ["test"], "mask").splits["test"]
    assert by_pairs.candidates == whole.candidates
    torch.testing.assert_close(by_pairs.scores, whole.scores)


@pytest.mark.parametrize("n_pairs", [1, 7, 1000])
def test_pairs_in_chunks_are_all_pairs(n_pairs):
    from recbole.data.interaction import Interaction

    class Model:
        def full_sort_predict(self, interaction):
            raise NotImplementedError

        def predict(self, pairs):
            assert len(pairs) <= n_pairs
            return 100.0 * pairs["user_id"] + pairs["item_id"]

    users, items = Interaction({"user_id": torch.tensor([3, 1])}), torch.arange(5)
    found = all_scores(Model(), users, Interaction({"item_id": items}), n_pairs)
    assert torch.equal(found, torch.tensor([[300.0], [100.0]]) + items)


def test_masking_may_leave_fewer_than_k(runs, tiny_data_path):
    rows = retrieve(runs("SASRec"), N_ITEMS, ["test"], "mask").splits["test"]
    told = taken(tiny_data_path)
    for user, items, row in zip(rows.users, rows.candidates, rows.scores, strict=True):
        left = N_ITEMS - len(set(told[user][:-1]))
        assert len(items) == left == len(set(items)) and set(items).isdisjoint(told[user][:-1])
        assert row[:left].isfinite().all() and (row[left:] == -torch.inf).all()


def test_the_manifest_says_what_they_are(runs):
    manifest = retrieve(runs("SASRec"), 5, ["test"], "mask").manifest
    run = loaded(runs("SASRec"))
    assert (manifest.dataset, manifest.n_users, manifest.n_items) == ("tiny", N_USERS, N_ITEMS)
    assert manifest.fingerprint == run.dataset.fingerprint and manifest.seed == run.config["seed"]
    assert manifest.retriever == {
        "model": "SASRec",
        "folder": str(runs("SASRec").resolve()),
        "checkpoint": file_digest(runs("SASRec") / "best.pt"),
    }
    assert manifest.config["hidden_size"] == 8 and manifest.config["topk"] == [5, 10]


def test_too_many_candidates_are_refused(runs):
    with pytest.raises(UserError, match="k: 41 candidates are more than the 40 items of tiny"):
        retrieve(runs("SASRec"), N_ITEMS + 1, ["test"], "mask")


def test_scores_that_are_no_numbers_are_refused(runs, monkeypatch):
    model = loaded(runs("BPR")).config.model_class
    nan: Any = lambda self, interaction: torch.full((len(interaction), 41), torch.nan)  # noqa: E731
    monkeypatch.setattr(model, "full_sort_predict", nan)
    with pytest.raises(UserError, match="scores are not numbers"):
        retrieve(runs("BPR"), 5, ["test"], "keep")
