"""The words of a report's tables, from runs made by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from recbole_ext.compare import tables
from recbole_ext.compare.analysis import Analysis
from recbole_ext.compare.collect import Done
from recbole_ext.compare.page import markdown
from recbole_ext.compare.report import _dataset
from recbole_ext.compare.split import Split, write_split
from recbole_ext.compare.start import Start
from recbole_ext.features.build import Subject
from recbole_ext.types import UserError
from tests.models.feature_help import Fake, write_feature


def done(name, model="BPR", seed=1, control_of=None, valid=None, warm_start=None, **settings):
    ranks = pd.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"], "rank": [1, 3]})
    result = {
        "test": {"ndcg@10": 0.75},
        "best_valid": {} if valid is None else {"ndcg@10": valid},
        "dataset_fingerprint": "abc",
        "versions": {},
        "warm_start": warm_start,
        "seconds": {"train": 1.0},
        "n_epochs": 1,
        "n_parameters": 3,
        "peak_memory_gib": {"train": 1.0},
    }
    known = {
        "topk": [10],
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "valid_metric": "NDCG@10",
        "mask_history": False,
        "eval_args": {"split": {}, "order": "TO", "group_by": "user", "mode": "full"},
        **settings,
    }
    row = {"name": name, "model": model, "seed": seed, "control_of": control_of, "folder": name}
    return Done(row, result, known, ranks.assign(ties=0), [], Start())


def row_of(runs, head):
    (value,) = [row[1] for row in tables.equal(Analysis(runs)) if row[0] == head]
    return value


def test_variants_are_counted_by_model():
    runs = [
        done("Pop", "Pop"),
        done("BPR"),
        done("BPR, wide"),
        done("BPR, wider"),
        done("mine", "Pop"),
        done("control", "BPR", control_of="BPR"),
    ]
    said = row_of(runs, "tuning budget")
    assert said.endswith("; variants with other settings are shown: 2 of BPR, 1 of Pop")
    assert "variants" not in row_of(runs[:2], "tuning budget")


def test_without_validation_nothing_is_chosen_on_it(tmp_path):
    runs = [done("Pop", "Pop"), done("BPR")]
    head = "early stopping and choice of the epoch"
    assert row_of(runs, head) == "none: the last epoch for all"
    text = str(_dataset(Analysis(runs), tmp_path / "none.json"))
    assert "on validation" not in text and "Pop is the first baseline" in text
    runs[1] = done("BPR", valid=0.5)
    assert row_of(runs, head) == "none: the last epoch: Pop; NDCG@10 on validation: the others"
    assert "BPR is the baseline with the best ndcg@10 on validation" in str(
        _dataset(Analysis(runs), tmp_path / "none.json")
    )


def test_the_best_baseline_has_the_lowest_value_where_lower_is_better():
    runs = [done(name, valid_metric="GiniIndex@10") for name in ("Pop", "BPR")]
    for one, value in zip(runs, (0.9, 0.4), strict=True):
        one.result["best_valid"] = {"giniindex@10": value}
    assert Analysis(runs).best == "BPR"


def test_seeds_of_a_control_that_differ_are_named():
    runs = [
        done("BPR", epochs=9),
        done("BPR", seed=2, epochs=9),
        done("Pop", "Pop", epochs=9),
        done("more", control_of="BPR", epochs=12),
        done("more", seed=2, control_of="BPR", epochs=15),
    ]
    assert row_of(runs, "most epochs") == "12: more (seed 1); 15: more (seed 2); 9: the others"


def test_what_recbole_rounds_off_is_no_contradiction():
    """NDCG is .75; RecBole's result has as many digits as it was asked for."""
    for value, digits in ((0.8, 1), (0.75, 2), (0.75, 4)):
        one = done("BPR", metric_decimal_place=digits)
        one.result["test"] = {"ndcg@10": value}
        assert one.tied() == {}
    one.result["test"] = {"ndcg@10": 0.8}
    with pytest.raises(UserError, match=r"ndcg@10 0.8000, and per_user.parquet 0.7500"):
        one.tied()


def test_gains_of_fewer_seeds_say_so_and_count_as_tests_where_there_are_any(tmp_path):
    runs = [
        *(done("Pop", "Pop", seed, valid=0.9) for seed in (1, 2)),
        *(done("BPR", seed=seed) for seed in (1, 2)),
        done("few", seed=2),
        done("other", seed=3),
    ]
    text = markdown(_dataset(Analysis(runs), tmp_path / "none.json"))
    assert "Holm's correction for 2 comparisons" in text
    assert "which are fewer than those of the means above for few and Pop: 2." in text
    assert "| other | no seed in common |" in text
    text = markdown(_dataset(Analysis(runs[:4]), tmp_path / "none.json"))
    assert "which are fewer than" not in text


def of_items(name, ranks, ndcg, seed=1):
    one = done(name, seed=seed)
    one.ranks["rank"], one.result["test"] = ranks, {"ndcg@10": ndcg}
    return one


def test_warm_and_cold_items_have_their_own_means(tmp_path):
    """Item x trains 9 times and y twice; gains are 1 / log2(1 + rank)."""
    runs = [
        of_items("Pop", [3, 1], 0.75),
        of_items("BPR", [1, 3], 0.75),
        of_items("BPR", [1, 12], 0.5, seed=2),
    ]
    path = tmp_path / "split.json"
    write_split(path, Split("abc", {"a": 3, "b": 8}, {"x": 9, "y": 2, "z": 0}))
    text = markdown(_dataset(Analysis(runs), path))
    _, _, found = text.partition("Warm and cold items")
    lines = [line for line in found.splitlines() if line.startswith("|")][:4]
    assert lines[0] == "| model | all: 2 | cold (1 to 4): 1 | warm (5 or more): 1 |"
    assert lines[2] == "| Pop | 0.7500 | 1.0000 | 0.5000 |"
    # all: .75 and .5; cold: .5 and 0, whose deviation is .5 / sqrt(2)
    assert lines[3] == "| BPR | 0.6250 ± 0.1768 | 0.2500 ± 0.3536 | 1.0000 ± 0.0000 |"


def test_items_with_a_feature_and_without_are_told_apart(tmp_path):
    texts = {"x": "a title", "y": None}
    title = write_feature(tmp_path, "title", texts, Subject("title", "text", "item", "d"), Fake())
    more = {"features_dir": str(tmp_path), "dataset": "d", "text_feature": title}
    lost = {**more, "text_feature": "gone"}
    runs = [done("Pop", "Pop"), done("BPR", **more), done("wide", **lost)]
    path = tmp_path / "split.json"
    write_split(path, Split("abc", {}, {"x": 9, "y": 2}))
    text = markdown(_dataset(Analysis(runs), path))
    assert "warm (5 or more): 1 | with title: 1 | without title: 1 |" in text
    assert text.count("By gone nothing is shown: there is no feature 'gone' in") == 1
