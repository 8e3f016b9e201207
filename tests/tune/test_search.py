"""A search on the tiny data: its winner, its files, and what a kill or a second worker changes."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="needs optuna, of the extra [tune]")

from recbole_ext.quick_start import run  # noqa: E402
from recbole_ext.settings_reading import read_yaml  # noqa: E402
from recbole_ext.tune.claims import claimed  # noqa: E402
from recbole_ext.tune.plan import Plan  # noqa: E402
from recbole_ext.tune.prune import Prune  # noqa: E402
from recbole_ext.tune.search import search  # noqa: E402
from recbole_ext.tune.space import Range  # noqa: E402
from recbole_ext.tune.study import open_study  # noqa: E402
from recbole_ext.tune.trial_run import TrialRun  # noqa: E402

FORK = multiprocessing.get_context("fork")  # a new interpreter takes seconds to import torch


@pytest.fixture(scope="module")
def finished(
    plan_in: Callable[..., Plan], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Plan, list[Path], list[str]]]:
    """A search of eight trials, the run folders whose test set was looked at, and what it said."""
    tested: list[Path] = []
    said: list[str] = []
    evaluate = TrialRun.__mro__[1]._test

    def counted(self: Any, trainer: Any) -> dict[str, float]:
        tested.append(self.folder)
        return evaluate(self, trainer)

    plan = plan_in(tmp_path_factory.mktemp("search"), 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialRun.__mro__[1], "_test", counted)
        said.append(search(plan, said.append))
        said.append(search(plan, said.append))
    yield plan, tested, said


def rows(plan: Plan) -> list[dict[str, str]]:
    with open(plan.folder / "trials.csv", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def result_of(plan: Plan, number: int) -> dict[str, Any]:
    return json.loads((plan.folder / "trials" / str(number) / "result.json").read_text())


def winner_of(plan: Plan) -> int:
    done = [row for row in rows(plan) if row["state"] == "complete"]
    return int(max(done, key=lambda row: (float(row["ndcg@5"]), -int(row["trial"])))["trial"])


def test_the_test_set_is_looked_at_once_by_the_winner(finished):
    """The second command finds all done, and does not test again."""
    plan, tested, _ = finished
    winner = winner_of(plan)
    assert tested == [plan.folder / "trials" / str(winner)]
    looked = [number for number in range(8) if result_of(plan, number)["test"]]
    assert looked == [winner]


def test_best_yaml_is_the_winner_as_a_run_takes_it(finished, tmp_path):
    plan, _, _ = finished
    again = run(
        config_file_list=[plan.folder / "best.yaml"],
        config_dict={"output_dir": str(tmp_path / "r")},
    )
    theirs = result_of(plan, winner_of(plan))
    assert (again["best_valid"], again["test"]) == (theirs["best_valid"], theirs["test"])
    assert read_yaml(plan.folder / "best.yaml").keys() == plan.settings.keys() | plan.space.keys()


def test_the_files_and_what_is_said(finished):
    plan, _, said = finished
    names = ("trials.csv", "best.yaml", "report.md", "history.png", "importance.png")
    assert [name for name in names if not (plan.folder / name).is_file()] == []
    assert [line[:5] for line in said[:8]] == [f"[{n}/8]" for n in range(1, 9)]
    assert said[9] == "the study goes on: 8 of 8 trials are done"
    report, best = said[-1], winner_of(plan)
    value = result_of(plan, best)["best_valid"]["ndcg@5"]
    assert f"winner: trial {best}, ndcg@5 {value:.4f} (validation)" in report
    assert f"ndcg@5 {result_of(plan, best)['test']['ndcg@5']:.4f}" in report
    kept = [path.parent.name for path in plan.folder.glob("trials/*/best.pt")]
    assert kept == [str(best)]


def test_a_trial_is_pruned_below_the_median_of_those_before(finished):
    plan, _, _ = finished
    trials = open_study(plan).get_trials()
    pruned = [one for one in trials if one.state.name == "PRUNED"]
    assert pruned
    for one in pruned:
        step = max(one.intermediate_values)
        before = [
            other.intermediate_values[step]
            for other in trials[: one.number]
            if other.state.name == "COMPLETE" and step in other.intermediate_values
        ]
        assert len(before) >= 5 and max(one.intermediate_values.values()) < median(before)


def forked(work: Callable[[], None]) -> Any:
    child = FORK.Process(target=work)
    child.start()
    return child


def test_a_killed_search_ends_as_the_one_that_was_not(finished, plan_in, tmp_path, monkeypatch):
    whole, _, _ = finished
    plan = plan_in(tmp_path, 3)
    report = Prune.on_valid_end

    def die(self: Prune, state: Any) -> None:
        report(self, state)
        if str(state.folder).endswith("trials/2") and state.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Prune, "on_valid_end", die)
        child = forked(lambda: print(search(plan, lambda line: None)))
        child.join()
    assert child.exitcode == -signal.SIGKILL
    said: list[str] = []
    search(plan, said.append)
    assert said[0] == "the study goes on: 2 of 3 trials are done; begun, and not ended: 1"
    assert len(said) == 2  # that trial only
    keys = ("trial", "state", "ndcg@5", "learning_rate", "embedding_size", "n_epochs")
    got, expected = ([[row[key] for key in keys] for row in rows(p)] for p in (plan, whole))
    assert got == expected[:3]
    assert [row["attempts"] for row in rows(plan)] == ["1", "1", "2"]


def test_two_workers_share_the_trials(plan_in, tmp_path):
    plan = plan_in(tmp_path, 3, epochs=1)
    workers = [forked(lambda: print(search(plan, lambda line: None))) for _ in range(2)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert [(row["trial"], row["state"], row["attempts"]) for row in rows(plan)] == [
        (str(number), "complete", "1") for number in range(3)
    ]
    assert len(open_study(plan).user_attrs["tested"]) == 1


def test_a_kill_between_two_draws_changes_none_of_them(finished, plan_in, tmp_path, monkeypatch):
    """The second value is not the one that the first would have been of."""
    whole, _, _ = finished
    plan, draw = plan_in(tmp_path, 1), Range.suggest

    def die(self: Range, trial: Any, key: str) -> Any:
        if key == "embedding_size":
            raise SystemExit(1)
        return draw(self, trial, key)

    study = open_study(plan)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Range, "suggest", die)
        search(plan, lambda line: None)
    (half,) = study.get_trials()
    assert list(half.params) == ["learning_rate"]
    with claimed(study, plan) as trial:
        values = {key: one.suggest(trial, key) for key, one in plan.space.items()}
    assert values == open_study(whole).get_trials()[0].params
