"""Trials that end without training: what the search makes of how they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

optuna = pytest.importorskip("optuna", reason="needs optuna, of the extra [tune]")

from recbole_ext.tune import search as searching  # noqa: E402
from recbole_ext.tune.claims import claimed  # noqa: E402
from recbole_ext.tune.search import search  # noqa: E402
from recbole_ext.tune.study import folder_of, open_study  # noqa: E402
from recbole_ext.types import UserError  # noqa: E402


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


def test_other_data_end_the_search(plan_in, tmp_path):
    plan = plan_in(tmp_path, 1)
    open_study(plan).set_user_attr("dataset_fingerprint", "of other files")
    with pytest.raises(UserError, match="the data have changed since the study began"):
        search(plan, lambda line: None)
