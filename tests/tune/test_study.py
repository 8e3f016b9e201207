"""The study: which trial is whose, what it is of, and where its storage is."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="needs optuna, of the extra [tune]")

from recbole_ext.tune import report as reporting  # noqa: E402
from recbole_ext.tune import search as searching  # noqa: E402
from recbole_ext.tune.charts import best_so_far  # noqa: E402
from recbole_ext.tune.claims import claimed  # noqa: E402
from recbole_ext.tune.space import read_space  # noqa: E402
from recbole_ext.tune.study import folder_of, open_study, winner  # noqa: E402
from recbole_ext.types import UserError  # noqa: E402


def test_the_weights_of_a_winner_told_meanwhile_are_kept(plan_in, tmp_path, monkeypatch):
    plan = plan_in(tmp_path, 2)
    study = open_study(plan)
    first, second = study.ask(), study.ask()
    study.tell(first, 0.1)
    weights = [folder_of(plan, number) / "best.pt" for number in (0, 1)]
    for path in weights:
        path.parent.mkdir(parents=True)
        path.touch()
    read, told = study.get_trials, []

    def told_after(*args: Any, **kwargs: Any) -> list[Any]:
        trials = read(*args, **kwargs)
        if not told:
            told.append(study.tell(second, 0.2))  # as another worker does at any time
        return trials

    monkeypatch.setattr(study, "get_trials", told_after)
    searching._drop_checkpoints(study, plan)
    assert told and weights[1].exists()
    searching._drop_checkpoints(study, plan)
    assert [path.exists() for path in weights] == [False, True]


def test_a_trial_in_work_is_not_taken_and_one_that_was_left_is(plan_in, tmp_path):
    plan = plan_in(tmp_path, 2)
    study = open_study(plan)
    with claimed(study, plan) as first, claimed(study, plan) as second:
        assert (first.number, second.number) == (0, 1)
        with claimed(study, plan) as third:
            assert third is None
    with claimed(study, plan) as again:
        assert again.number == 0
    assert len(study.get_trials()) == 2


def test_a_trial_that_was_told_and_then_killed_is_not_taken(plan_in, tmp_path, monkeypatch):
    """Its worker tells it and is killed while another one looks for trials that were left."""
    plan = plan_in(tmp_path, 1)
    study = open_study(plan)
    told, read = study.ask(), study.get_trials

    def told_after(*args: Any, **kwargs: Any) -> list[Any]:
        trials = read(*args, **kwargs)
        monkeypatch.setattr(study, "get_trials", read)
        study.tell(told, 0.5)
        return trials

    monkeypatch.setattr(study, "get_trials", told_after)
    with claimed(study, plan) as trial:
        assert trial is None


def test_another_seed_draws_other_values_and_without_pruning_there_is_none(plan_in, tmp_path):
    drawn = []
    for seed in (1, 2):
        plan = replace(plan_in(tmp_path / str(seed), 1, seed=seed), prune=seed == 1)
        study = open_study(plan)
        assert type(study.pruner).__name__ == ("MedianPruner" if plan.prune else "NopPruner")
        with claimed(study, plan) as trial:
            drawn.append(plan.space["learning_rate"].suggest(trial, "learning_rate"))
    assert drawn[0] != drawn[1]


def test_a_metric_that_is_better_when_lower(plan_in, tmp_path):
    plan = plan_in(tmp_path, 3, metrics=["GiniIndex"], valid_metric="GiniIndex@5")
    study = open_study(plan)
    for value in (0.3, 0.1, 0.1, 0.2):
        trial = study.ask()
        for key, one in plan.space.items():
            one.suggest(trial, key)
        study.tell(trial, value)
    trials = study.get_trials()
    assert study.direction.name == "MINIMIZE"
    assert winner(study, plan).number == 1, "of equal ones the first"
    assert [value for _, value in best_so_far(trials, plan.is_bigger_better)] == [0.3, *[0.1] * 3]
    table = [line.split("|")[1].strip() for line in reporting._table(trials, plan)[2:]]
    assert table == ["1", "2", "3", "0"]


def test_the_report_names_winners_before_and_the_table_writes_mappings_as_json(plan_in, tmp_path):
    space = tmp_path / "lists.yaml"
    space.write_text("mapping: {choice: [{a: true}, {a: false}]}")
    plan = plan_in(tmp_path, 2)
    plan = replace(plan, space=read_space(space))
    study = open_study(plan)
    trial = study.ask()
    plan.space["mapping"].suggest(trial, "mapping")
    study.tell(trial, 0.5)
    trials = study.get_trials()
    ((_, _, _, cell, *_),) = list(csv.reader(reporting._csv(trials, plan).splitlines()))[1:]
    assert json.loads(cell) == plan.space["mapping"].value_of(trials[0].params["mapping"])
    tested = {"7": {"ndcg@5": 0.1}, "0": {"ndcg@5": 0.2}}
    lines = reporting._lines(trials, plan, trials[0], tested, {})
    assert "winners of this study that were tested before: trial 7" in lines
    better = study.ask()
    plan.space["mapping"].suggest(better, "mapping")
    study.tell(better, 0.9)
    table = reporting._table(study.get_trials(), plan)[2:]
    assert [line.split("|")[1].strip() for line in table] == ["1", "0"]


def test_what_is_searched_is_stronger_than_the_mapping_that_it_is_an_entry_of(plan_in, tmp_path):
    given = {"distribution": "uniform", "sample_num": 5}
    plan = plan_in(tmp_path, 1, train_neg_sample_args=given)
    settings = plan.settings_of({"train_neg_sample_args.sample_num": 2})
    assert settings["train_neg_sample_args"] == {"distribution": "uniform", "sample_num": 2}


def test_a_search_killed_before_its_first_trial_leaves_no_direction(plan_in, tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=storage, study_name="recbole-ext tune", direction="minimize")
    assert open_study(plan_in(tmp_path, 1)).direction.name == "MAXIMIZE"


def test_the_storage_is_in_the_folder_whatever_its_name(plan_in, tmp_path):
    folder = tmp_path / "a {x} 100%25?b=c#d"
    open_study(plan_in(folder, 1))
    assert (folder / "study.db").is_file()
    assert list(tmp_path.iterdir()) == [folder]


def test_a_storage_of_another_study_is_refused(plan_in, tmp_path):
    plan = plan_in(tmp_path / "ours", 8)
    open_study(plan)
    other = plan_in(plan.folder, 8, epochs=3)
    with pytest.raises(UserError, match="another study: epochs is 2 there and 3 here"):
        open_study(other)
    with pytest.raises(UserError, match="another study: prune is True there and False here"):
        open_study(replace(plan, prune=False))
    assert "accelerate" in plan.identity and "use_gpu" not in plan.identity
    space = tmp_path / "space.yaml"
    space.write_text("train_neg_sample_args.sample_num: {int: [1, 2]}")
    open_study(plan_in(tmp_path / "dotted", 1, space))
    popular = {"train_neg_sample_args.distribution": "popularity"}  # beside what is searched
    with pytest.raises(UserError, match="another study: train_neg_sample_args is"):
        open_study(plan_in(tmp_path / "dotted", 1, space, **popular))
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="mine")
    with pytest.raises(UserError, match=r"study\.db is the storage of another study \(mine\)"):
        open_study(plan_in(tmp_path, 8))


def test_a_damaged_storage_is_named(plan_in, tmp_path):
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(
        UserError, match=r"study\.db cannot be used as a storage \(.*not a database"
    ):
        open_study(plan_in(tmp_path, 1))
