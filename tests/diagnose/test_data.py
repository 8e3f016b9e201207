"""Groups 4 and 5: what is wrong with data and features is seen, by planting it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from conftest import N_ITEMS
from diagnose.conftest import checks_of, rescored, starting
from models.feature_help import item_feature

from recbole_ext.diagnose import coverage, interactions, leakage
from recbole_ext.diagnose.check import FAIL, OK


def replaced(subject, split, **columns):
    """Let a split have other columns."""
    rows = subject.rows(split)[torch.arange(len(subject.rows(split)))]
    for field, values in columns.items():
        rows[field] = values
    subject.parts[split] = SimpleNamespace(inter_feat=rows)


def test_sound_data_pass(ranking, clicks):
    for subject in (ranking, clicks):
        found = checks_of(interactions, subject)
        assert FAIL not in {one.severity for one in found.values()}
        assert starting(found, "share of test rows before their user's last").value == 0


def test_a_split_of_one_class_fails(clicks):
    replaced(clicks, "test", label=torch.zeros(len(clicks.rows("test"))))
    found = checks_of(interactions, clicks)
    assert starting(found, "share of positives in test").severity == FAIL
    assert starting(found, "largest share of positives").severity == FAIL
    one = starting(found, "share of each user_id of one class")
    assert one.severity == FAIL and one.value == 1


def test_impressions_are_the_groups_where_there_are_some(clicks):
    n = len(clicks.rows("test"))
    replaced(clicks, "test", impression_id=torch.arange(n) // 4)
    found = checks_of(interactions, clicks)
    assert starting(found, "rows of the test for each impression_id").value == n / np.ceil(n / 4)


def test_empty_histories_and_unknown_items_are_told(ranking):
    n = len(ranking.rows("test"))
    replaced(ranking, "test", item_length=torch.zeros(n).long(), item_id=torch.full((n,), 99))
    found = checks_of(interactions, ranking)
    assert starting(found, "share of test rows without a history").severity == FAIL
    assert starting(found, "share of test rows whose item is not in").severity == FAIL


def test_overlap_doubles_and_times_are_seen(ranking):
    train = ranking.rows("train")[torch.arange(len(ranking.rows("train")))]
    fields = {field: train[field] for field in train.columns}
    n = len(ranking.rows("test"))
    replaced(ranking, "test", **{f: v[:n] for f, v in fields.items()})
    found = checks_of(interactions, ranking)
    assert starting(found, "share of test pairs (user, item)").value == 1
    assert starting(found, "share of test pairs (user, item)").severity == FAIL
    early = starting(found, "share of test rows before their user's last")
    assert early.severity == FAIL and early.value > 0.5
    twice = torch.arange(len(train)).repeat(2)
    ranking.parts["train"] = SimpleNamespace(inter_feat=train[twice])
    assert starting(checks_of(interactions, ranking), "share of training rows").value == 0.5


# ---- leakage


def test_sound_runs_have_no_leak(ranking, clicks):
    for subject in (ranking, clicks):
        found = checks_of(leakage, subject)
        assert FAIL not in {one.severity for one in found.values()}
        assert starting(found, "largest change of a score").value == 0
    assert 0.4 < starting(checks_of(leakage, clicks), "AUC of timestamp alone").value < 0.6


def test_a_model_that_reads_its_target_fails(ranking, clicks):
    def cheat(scores, rows):
        return scores.scatter_add(1, rows["item_id"][:, None], torch.ones(len(scores), 1))

    one = starting(checks_of(leakage, rescored(ranking, cheat)), "largest change of a score")
    assert one.severity == FAIL and "item_id" in one.advice
    rescored(clicks, lambda scores, rows: scores + 0.1 * rows["label"])
    one = starting(checks_of(leakage, clicks), "largest change of a score")
    assert one.severity == FAIL and one.value > 0.09


def test_a_field_that_tells_the_label_fails(clicks):
    labels = clicks.rows("test")["label"]
    assert len(clicks.probe) == len(clicks.probed)  # of the rows as they were
    train = clicks.rows("train")["label"].long()
    replaced(clicks, "train", code=1 + train)
    replaced(clicks, "test", code=1 + labels.long(), dwell=1 - labels)
    found = checks_of(leakage, clicks)
    for field in ("dwell", "code"):
        one = starting(found, f"AUC of {field} alone")
        assert one.severity == FAIL and one.value == 1


def test_a_history_that_ends_in_its_target_fails(ranking):
    rows = ranking.probe
    last = (rows["item_length"] - 1).unsqueeze(1)
    rows["item_id_list"].scatter_(1, last, rows["item_id"].unsqueeze(1))
    found = checks_of(leakage, ranking)
    assert starting(found, "share of targets that end their history").severity == FAIL
    assert starting(found, "share of targets that are in their history").value == 1


# ---- coverage


def test_a_feature_that_covers_few_items_fails(ranking, tmp_path):
    ranking.config.resolved["text_feature"] = item_feature(
        tmp_path, "title", missing=range(2, N_ITEMS)
    )
    found = checks_of(coverage, ranking)
    one = starting(found, "title: share of items")
    assert one.severity == FAIL and one.value == 2 / N_ITEMS and "features" in one.advice
    ids = ranking.dataset.field2token_id["item_id"]
    wanted = np.isin(ranking.column("test", "item_id"), [ids["i0"], ids["i1"]])
    assert starting(found, "title: share of rows of test").value == wanted.mean()
    slots = ranking.rows("train")[torch.arange(len(ranking.rows("train")))]["item_id_list"].numpy()
    covered = np.isin(slots[slots > 0], [ids["i0"], ids["i1"]]).mean()
    assert starting(found, "title: share of history slots of train").value == covered
    assert any(name.startswith("ndcg@10 by positive of without title") for name in found)


def test_strata_are_of_the_right_rows(ranking, clicks):
    found = checks_of(coverage, ranking)
    assert starting(found, "coverage of features").severity == "SKIP"
    assert starting(found, "ndcg@10 by positive of all").value == ranking.own.value
    found = checks_of(coverage, clicks)
    assert starting(found, "AUC of all").value == clicks.own.value
    assert starting(found, "AUC of all").severity == OK
