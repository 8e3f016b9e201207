"""A search on the tiny data: its winner, its files, and what a kill or a second worker changes."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

optuna = pytest.importorskip("optuna", reason="needs optuna, of the extra [tune]")

from recbole_ext.quick_start import run  # noqa: E402
from recbole_ext.settings_reading import read_yaml  # noqa: E402
from recbole_ext.trainer.run_log import RunLog  # noqa: E402
from recbole_ext.tune import report as reporting  # noqa: E402
from recbole_ext.tune import search as searching  # noqa: E402
from recbole_ext.tune.charts import best_so_far  # noqa: E402
from recbole_ext.tune.claims import claimed  # noqa: E402
from recbole_ext.tune.plan import Plan, plan_of  # noqa: E402
from recbole_ext.tune.prune import Prune  # noqa: E402
from recbole_ext.tune.search import search  # noqa: E402
from recbole_ext.tune.space import Range, read_space  # noqa: E402
from recbole_ext.tune.study import folder_of, open_study, winner  # noqa: E402
from recbole_ext.tune.trial_run import Outcome, TrialRun  # noqa: E402
from recbole_ext.types import UserError  # noqa: E402

SPACE = "learning_rate: {loguniform: [1e-4, 0.3]}\nembedding_size: {choice: [4, 8]}\n"
FORK = multiprocessing.get_context("fork")  # a new interpreter takes seconds to import torch


@pytest.fixture(scope="module", autouse=True)
def without_curves() -> Iterator[None]:
    """Draw no ``curves.png``: half the time of a trial on the tiny data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "draw", lambda self, metric: None)
        yield


@pytest.fixture(scope="module")
def plan_in(tiny_data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Plan]:
    """Folder -> the plan of a search there."""
    space = tmp_path_factory.mktemp("space") / "space.yaml"
    space.write_text(SPACE)
    settings = {
        "model": "BPR",
        "dataset": "tiny",
        "data_path": str(tiny_data_path),
        "use_gpu": False,
        "epochs": 2,
        "train_batch_size": 64,
        "topk": [5],
        "metrics": ["NDCG"],
        "valid_metric": "NDCG@5",
    }

    def plan(folder: Path, n_trials: int, space: Path = space, **changed: Any) -> Plan:
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        return plan_of(folder, {**settings, **changed}, str(space), n_trials)

    return plan


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


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Lets trials do what a function of the values says instead of training."""

    def script(function: Any) -> None:
        def train(plan: Plan, values: dict[str, Any], *rest: Any) -> Outcome:
            return Outcome(function(values), False, {"n_epochs": 1, "test": {}})

        monkeypatch.setattr(searching, "train", train)

    return script


def failing(error: BaseException) -> Callable[[Any], float]:
    def fail(values: Any) -> float:
        raise error

    return fail


def test_trials_that_fail_count_and_three_alone_end_the_search(plan_in, tmp_path, scripted):
    plan, said = plan_in(tmp_path, 5), []
    scripted(failing(UserError("hidden_size 7 is no multiple of n_heads 2")))
    with pytest.raises(UserError, match="the first 3 trials failed, the last with: hidden_size 7"):
        search(plan, said.append)
    assert len(said) == 3 and "failed: hidden_size 7 is no multiple" in said[2]


@pytest.mark.parametrize(
    ("ends", "note"),
    [
        (lambda values: float("nan"), "the validation gave no ndcg@5"),
        (lambda values: None, "the validation gave no ndcg@5"),
        (failing(torch.OutOfMemoryError("CUDA out of memory")), "CUDA out of memory"),
    ],
)
def test_a_trial_without_a_value_has_failed_and_says_why(plan_in, tmp_path, scripted, ends, note):
    scripted(ends)
    with pytest.raises(UserError, match="none of 1 trials was finished"):
        search(plan_in(tmp_path, 1), lambda line: None)
    (only,) = open_study(plan_in(tmp_path, 1)).get_trials()
    assert (only.state.name, only.user_attrs["note"]) == ("FAIL", note)


def test_failed_trials_beside_one_in_work_end_nothing(plan_in, tmp_path, scripted):
    """The report is left to the worker that has that one."""
    plan, said = plan_in(tmp_path, 4), []
    scripted(failing(UserError("no")))
    with claimed(open_study(plan), plan):
        text = search(plan, said.append)
    assert text == "trials in work elsewhere: 1; the last worker writes the report"
    assert len(said) == 4  # the line that the study goes on, and three trials


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


def test_the_report_names_winners_before_and_the_table_writes_lists_as_json(plan_in, tmp_path):
    space = tmp_path / "lists.yaml"
    space.write_text("topk_like: {choice: [[64], [128, 64]]}")
    plan = plan_in(tmp_path, 2)
    plan = replace(plan, space=read_space(space))
    study = open_study(plan)
    trial = study.ask()
    plan.space["topk_like"].suggest(trial, "topk_like")
    study.tell(trial, 0.5)
    trials = study.get_trials()
    ((_, _, _, cell, *_),) = list(csv.reader(reporting._csv(trials, plan).splitlines()))[1:]
    assert json.loads(cell) == plan.space["topk_like"].value_of(trials[0].params["topk_like"])
    tested = {"7": {"ndcg@5": 0.1}, "0": {"ndcg@5": 0.2}}
    lines = reporting._lines(trials, plan, trials[0], tested, {})
    assert "winners of this study that were tested before: trial 7" in lines


def test_what_is_searched_is_stronger_than_the_mapping_that_it_is_an_entry_of(plan_in, tmp_path):
    given = {"distribution": "uniform", "sample_num": 5}
    plan = plan_in(tmp_path, 1, train_neg_sample_args=given)
    settings = plan.settings_of({"train_neg_sample_args.sample_num": 2})
    assert settings["train_neg_sample_args"] == {"distribution": "uniform", "sample_num": 2}


def test_another_seed_draws_other_values_and_without_pruning_there_is_none(plan_in, tmp_path):
    drawn = []
    for seed in (1, 2):
        plan = replace(plan_in(tmp_path / str(seed), 1, seed=seed), prune=seed == 1)
        study = open_study(plan)
        assert type(study.pruner).__name__ == ("MedianPruner" if plan.prune else "NopPruner")
        with claimed(study, plan) as trial:
            drawn.append(plan.space["learning_rate"].suggest(trial, "learning_rate"))
    assert drawn[0] != drawn[1]


def test_a_full_disk_is_no_fault_of_the_trial(plan_in, tmp_path, scripted):
    plan = plan_in(tmp_path, 2)
    full = UserError("cannot write best.pt: No space left on device")
    full.__cause__ = OSError(28, "No space left on device")
    scripted(failing(full))
    with pytest.raises(UserError, match="No space left"):
        search(plan, lambda line: None)
    states = [one.state.name for one in open_study(plan).get_trials()]
    assert states == ["RUNNING"]


def test_a_trial_that_kills_its_process_each_time_is_given_up(plan_in, tmp_path, scripted):
    plan = plan_in(tmp_path, 1)
    scripted(failing(SystemExit(1)))  # out of memory, say: nothing of the trial is told
    for _ in range(3):
        with pytest.raises(SystemExit):
            search(plan, lambda line: None)
    with pytest.raises(UserError, match="none of 1 trials was finished"):
        search(plan, lambda line: None)
    (only,) = open_study(plan).get_trials()
    assert (only.state.name, only.user_attrs["note"]) == (
        "FAIL",
        "given up: killed 3 times at epoch 0",
    )


def test_a_trial_that_gets_on_between_its_kills_is_not_given_up(plan_in, tmp_path, scripted):
    """Nor is one that its user stops: Ctrl-C says nothing of the trial."""
    plan = plan_in(tmp_path, 1)
    log = folder_of(plan, 0) / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    for epochs in range(4):
        log.write_text("{}\n" * epochs)
        scripted(failing(SystemExit(1)))
        with pytest.raises(SystemExit):
            search(plan, lambda line: None)
    for _ in range(4):
        scripted(failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            search(plan, lambda line: None)
    (only,) = open_study(plan).get_trials()
    assert only.state.name == "RUNNING"


def test_without_validation_data_the_search_ends_before_it_trains(plan_in, tmp_path):
    split = {"split": {"RS": [0.9, 0.0, 0.1]}}
    plan = plan_in(tmp_path, 2, eval_args=split)
    with pytest.raises(UserError, match="eval_args.split leaves no validation set"):
        search(plan, lambda line: None)
    assert not list(tmp_path.glob("trials/*/metrics.jsonl"))


def test_a_storage_that_is_damaged_meanwhile_is_one_sentence(plan_in, tmp_path, scripted):
    plan = plan_in(tmp_path, 1)

    def damage(values: Any) -> float:
        (tmp_path / "study.db").write_bytes(b"no database" * 1000)
        return 0.5

    scripted(damage)
    with pytest.raises(UserError, match=r"study\.db cannot be used as a storage \(.*database.*\)"):
        search(plan, lambda line: None)


def test_a_search_killed_before_its_first_trial_leaves_no_direction(plan_in, tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=storage, study_name="recbole-ext tune", direction="minimize")
    assert open_study(plan_in(tmp_path, 1)).direction.name == "MAXIMIZE"


def test_the_storage_is_in_the_folder_whatever_its_name(plan_in, tmp_path):
    folder = tmp_path / "a {x} 100%25?b=c#d"
    open_study(plan_in(folder, 1))
    assert (folder / "study.db").is_file()
    assert list(tmp_path.iterdir()) == [folder]


def test_the_weights_that_a_kill_left_are_dropped_at_the_end(plan_in, tmp_path, monkeypatch):
    plan = plan_in(tmp_path, 2)
    study = open_study(plan)
    for number, value in enumerate((0.2, 0.1)):
        study.tell(study.ask(), value)
        weights = folder_of(plan, number) / "last.pt"
        weights.parent.mkdir(parents=True)
        weights.touch()
    monkeypatch.setattr(searching, "test", lambda *rest: {"test": {}})
    monkeypatch.setattr(searching, "write_report", lambda *rest: "")
    search(plan, lambda line: None)
    assert [path.parent.name for path in tmp_path.glob("trials/*/last.pt")] == ["0"]


def test_other_data_end_the_search(plan_in, tmp_path, finished):
    plan = plan_in(tmp_path, 1)
    open_study(plan).set_user_attr("dataset_fingerprint", "of other files")
    with pytest.raises(UserError, match="the data have changed since the study began"):
        search(plan, lambda line: None)


def test_a_storage_of_another_study_is_refused(finished, plan_in, tmp_path):
    plan, _, _ = finished
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
