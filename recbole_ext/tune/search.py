"""The search: trial after trial, then one look at the test set for the winner, and the report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from recbole_ext.locks import lock
from recbole_ext.tune.claims import claimed
from recbole_ext.tune.plan import Plan
from recbole_ext.tune.report import write_report
from recbole_ext.tune.study import (
    STORAGE,
    OfAllTrials,
    best_of,
    check_data,
    folder_of,
    open_study,
    usable,
    values_of,
    winner,
)
from recbole_ext.tune.trial_run import test, train
from recbole_ext.types import UserError

if TYPE_CHECKING:
    from optuna import Study, Trial

FAILURES = 3
"""So many failed trials, and no other, end the search: the fault is not in the values."""


def search(plan: Plan, say: Callable[[str], None] = print) -> str:
    """Do the trials that are left, in this process; return the report.

    Args:
        plan: What is searched.
        say: Takes a line per trial.

    Raises:
        UserError: The storage is of another search, or no trial trains.
    """
    study = open_study(plan)
    with usable(plan.folder / STORAGE):
        _say_begun(study, plan, say)
        _do_trials(study, plan, say)
        with lock(plan.folder / STORAGE):
            others = _count(study, "RUNNING")
            if others:
                return f"trials in work elsewhere: {others}; the last worker writes the report"
            return _finish(study, plan)


def _do_trials(study: Study, plan: Plan, say: Callable[[str], None]) -> None:
    while True:
        with claimed(study, plan) as trial:
            if trial is None:
                return
            say(_try(study, plan, trial))
            with lock(plan.folder / STORAGE):
                _drop_checkpoints(study, plan)
        _refuse_hopeless(study)


def _try(study: Study, plan: Plan, trial: Trial) -> str:
    """Do one trial, tell the study, and return what there is to say."""
    from optuna.trial import TrialState

    values = {key: one.suggest(trial, key) for key, one in plan.space.items()}
    began = time.monotonic()
    state, value, note = TrialState.FAIL, None, ""
    folder = folder_of(plan, trial.number)
    try:
        outcome = train(plan, values, folder, trial, partial(check_data, study))
    except (UserError, torch.OutOfMemoryError) as error:
        is_full = isinstance(error.__cause__ or error.__context__, OSError)
        if is_full or isinstance(error, OfAllTrials):
            raise  # no fault of the trial's, which is taken up later
        note = str(error).strip().splitlines()[0]
    else:
        trial.set_user_attr("n_epochs", outcome.result["n_epochs"])
        if outcome.value is None or math.isnan(outcome.value):
            note = f"the validation gave no {plan.metric}"
        elif outcome.pruned:
            state = TrialState.PRUNED
        else:
            state, value = TrialState.COMPLETE, outcome.value
    seconds = time.monotonic() - began
    trial.set_user_attr("seconds", round(seconds, 2))
    trial.set_user_attr("note", note)
    told = study.tell(trial, value, state)
    best = winner(study, plan)
    shown = {"COMPLETE": "", "PRUNED": "pruned at ", "FAIL": f"failed: {note}"}[state.name]
    score = "" if told.value is None else f"{plan.metric} {told.value:.4f}"
    head = f"[{_count(study, 'COMPLETE', 'PRUNED', 'FAIL')}/{plan.n_trials}] trial {trial.number}"
    which = "" if best is None else f" (best {best.value:.4f}, trial {best.number})"
    return f"{head}: {seconds:.0f} s, {shown}{score}{which}: {_shown(values)}"


def _shown(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items()
    )


def _say_begun(study: Study, plan: Plan, say: Callable[[str], None]) -> None:
    done, begun = _count(study, "COMPLETE", "PRUNED", "FAIL"), _count(study, "RUNNING")
    if done or begun:
        rest = f"; begun, and not ended: {begun}" if begun else ""
        say(f"the study goes on: {done} of {plan.n_trials} trials are done{rest}")


def _count(study: Study, *states: str) -> int:
    return sum(one.state.name in states for one in study.get_trials(deepcopy=False))


def _refuse_hopeless(study: Study) -> None:
    failed = [one for one in study.get_trials(deepcopy=False) if one.state.name == "FAIL"]
    if len(failed) >= FAILURES and not _count(study, "COMPLETE", "PRUNED", "RUNNING"):
        raise UserError(
            f"the first {len(failed)} trials failed, the last with: "
            f"{failed[-1].user_attrs.get('note')}; change the settings or the space, and name "
            "another --output_dir"
        )


def _drop_checkpoints(study: Study, plan: Plan) -> None:
    """Delete the weights of finished trials that are not the best: they are never tested."""
    trials = study.get_trials(deepcopy=False)  # read once: another worker may tell the next best
    best = best_of(trials, plan)
    for one in trials:
        if one.state.is_finished() and one.number != (best.number if best else None):
            for name in ("best.pt", "last.pt"):
                (folder_of(plan, one.number) / name).unlink(missing_ok=True)


def _finish(study: Study, plan: Plan) -> str:
    """Test the winner, unless that was done before, and write the report."""
    _drop_checkpoints(study, plan)  # those of a worker that was killed before it did
    best = winner(study, plan)
    if best is None:
        raise UserError(
            f"none of {plan.n_trials} trials was finished, so there is no winner; give more "
            "--trials, or --prune=False"
        )
    tested = dict(study.user_attrs.get("tested", {}))
    if str(best.number) not in tested:
        values = values_of(plan, best)
        result = test(plan, values, folder_of(plan, best.number), partial(check_data, study))
        tested[str(best.number)] = result["test"]
        study.set_user_attr("tested", tested)
    return write_report(study, plan, best, tested)
