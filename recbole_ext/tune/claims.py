"""Which worker does which trial.

A trial belongs to the process that holds its claim, a file lock that ends with the process however
that is killed. A trial in work whose claim is free was killed; the next worker takes up that very
trial, at the epoch where it was, so that none is lost and none counted twice. Trials are asked for
under one lock, each with a seed of its own: their number and their draws do not depend on how
often the search was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_ext.locks import InUse, lock, sole_use
from recbole_ext.tune.plan import Plan
from recbole_ext.tune.study import STORAGE, folder_of

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

MOST_ATTEMPTS = 3
"""How often a trial is begun at one epoch; one that kills its process each time is given up."""
BEGUN = "begun_at"
"""Attribute of a trial: at each time that it was begun, how many of its epochs were done."""
STOPPED = -1
"""In place of the epochs, where the user stopped it: that says nothing of the trial."""


@contextmanager
def claimed(study: Study, plan: Plan) -> Iterator[Trial | None]:
    """Hold the next trial: one that was killed, or a new one; ``None`` where there are enough."""
    with ExitStack() as held:
        with lock(plan.folder / STORAGE):
            trial = _killed_trial(study, plan, held) or _new_trial(study, plan, held)
        try:
            yield trial
        except KeyboardInterrupt:
            if trial:
                trial.set_user_attr(BEGUN, [*trial.user_attrs[BEGUN][:-1], STOPPED])
            raise


def _killed_trial(study: Study, plan: Plan, held: ExitStack) -> Trial | None:
    from optuna import Trial
    from optuna.trial import TrialState

    for running in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        try:
            held.enter_context(_claim(plan, running.number))
        except InUse:
            continue
        # the only way to a trial that another process began; its parameters are in the storage
        frozen = study._storage.get_trial(running._trial_id)
        if frozen.state.is_finished():  # told meanwhile, and only then killed
            continue
        _seed(study, plan, frozen.number)
        _draw_again(study, plan, frozen)
        trial = Trial(study, frozen._trial_id)
        begun, done = frozen.user_attrs.get(BEGUN, []), _epochs_done(plan, frozen.number)
        if begun[-MOST_ATTEMPTS:] != [done] * MOST_ATTEMPTS:
            trial.set_user_attr(BEGUN, [*begun, done])
            return trial
        trial.set_user_attr("note", f"given up: killed {MOST_ATTEMPTS} times at epoch {done}")
        study.tell(trial, state=TrialState.FAIL)
    return None


def _new_trial(study: Study, plan: Plan, held: ExitStack) -> Trial | None:
    number = len(study.get_trials(deepcopy=False))
    if number >= plan.n_trials:
        return None
    held.enter_context(_claim(plan, number))
    _seed(study, plan, number)
    trial = study.ask()
    trial.set_user_attr(BEGUN, [0])
    return trial


def _claim(plan: Plan, number: int) -> Any:
    folder = plan.folder / "claims" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    return sole_use(folder, what=f"trial {number},")


def _seed(study: Study, plan: Plan, number: int) -> None:
    """Seed the draws of one trial: with one seed for all a resumed search would repeat itself."""
    import optuna

    mixed = np.random.SeedSequence([plan.config["seed"], number]).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(seed=int(mixed[0]))


def _draw_again(study: Study, plan: Plan, frozen: FrozenTrial) -> None:
    """Draw what was drawn before a kill, so that the sampler goes on behind it."""
    for key in plan.space:
        if key in frozen.params:
            study.sampler.sample_independent(study, frozen, key, frozen.distributions[key])


def _epochs_done(plan: Plan, number: int) -> int:
    path = folder_of(plan, number) / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0
