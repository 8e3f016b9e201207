"""The study: Optuna's, in one SQLite file that several processes may work on at once.

A trial belongs to the process that holds its claim, a file lock that ends with the process however
that is killed. A trial in work whose claim is free was killed; the next worker takes up that very
trial, at the epoch where it was, so that none is lost and none counted twice. Trials are asked for
under one lock, each with a seed of its own: their number and their draws do not depend on how
often the search was stopped.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_ext.locks import InUse, lock, sole_use
from recbole_ext.tune.plan import Plan
from recbole_ext.types import UserError

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

STORAGE = "study.db"
NAME = "recbole-ext tune"
MOST_ATTEMPTS = 3
"""How often a trial is begun; one that kills its process each time is given up."""


class OtherData(UserError):
    """The data have changed since the study began: no fault of a trial's."""


def need_optuna() -> None:
    """Refuse to start without Optuna.

    Raises:
        UserError: With the command that installs it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("tune needs optuna; run: pip install 'recbole-ext[tune]'")


def open_study(plan: Plan) -> Study:
    """Return the study of a search, made anew where there is none.

    Raises:
        UserError: The storage is damaged, or of another search.
    """
    import optuna
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = plan.folder / STORAGE
    try:
        with lock(path):
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
            others = [name for name in optuna.get_all_study_names(storage) if name != NAME]
            if others:
                raise UserError(
                    f"{path} is the storage of another study ({', '.join(others)}); name another "
                    "--output_dir"
                )
            study = optuna.create_study(
                storage=storage,
                study_name=NAME,
                direction="maximize" if plan.is_bigger_better else "minimize",
                pruner=optuna.pruners.MedianPruner() if plan.prune else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            _identify(study, plan, path)
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(
            f"{path} cannot be used as a storage ({reason}); name another --output_dir"
        ) from error
    return study


def _identify(study: Study, plan: Plan, path: Path) -> None:
    """Keep what the search is of; refuse a study of another.

    Raises:
        UserError: Naming what is different.
    """
    ours = json.loads(json.dumps(plan.identity, default=str))
    theirs = study.user_attrs.get("identity")
    if theirs is None and not study.get_trials(deepcopy=False):
        study.set_user_attr("identity", ours)
        return
    theirs = theirs or {}
    for key in ("model", "dataset", "space", *sorted(ours | theirs)):
        if ours.get(key) != theirs.get(key):
            raise UserError(
                f"{path} is the storage of another study: {key} is {theirs.get(key)} there and "
                f"{ours.get(key)} here; name another --output_dir, or give the study's own command"
            )


def check_data(study: Study, fingerprint: str) -> None:
    """Keep the data's fingerprint; refuse data that are others than those of the trials before.

    Raises:
        OtherData: They have changed.
    """
    known = study.user_attrs.get("dataset_fingerprint")
    if known is None:
        study.set_user_attr("dataset_fingerprint", fingerprint)
    elif known != fingerprint:
        raise OtherData(
            "the data have changed since the study began, and trials on other data do not "
            "compare; put them back, or name another --output_dir"
        )


@contextmanager
def claimed(study: Study, plan: Plan) -> Iterator[Trial | None]:
    """Hold the next trial: one that was killed, or a new one; ``None`` where there are enough."""
    with ExitStack() as held:
        with lock(plan.folder / STORAGE):
            trial = _killed_trial(study, plan, held) or _new_trial(study, plan, held)
        yield trial


def _killed_trial(study: Study, plan: Plan, held: ExitStack) -> Trial | None:
    from optuna import Trial
    from optuna.trial import TrialState

    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        try:
            held.enter_context(_claim(plan, frozen.number))
        except InUse:
            continue
        _seed(study, plan, frozen.number)
        # the only way to a trial that another process began; its parameters are in the storage
        trial = Trial(study, frozen._trial_id)
        attempts = int(frozen.user_attrs.get("attempts", 0))
        if attempts < MOST_ATTEMPTS:
            trial.set_user_attr("attempts", attempts + 1)
            return trial
        trial.set_user_attr("note", f"given up: it was killed {attempts} times")
        study.tell(trial, state=TrialState.FAIL)
    return None


def _new_trial(study: Study, plan: Plan, held: ExitStack) -> Trial | None:
    number = len(study.get_trials(deepcopy=False))
    if number >= plan.n_trials:
        return None
    held.enter_context(_claim(plan, number))
    _seed(study, plan, number)
    trial = study.ask()
    trial.set_user_attr("attempts", 1)
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


def folder_of(plan: Plan, number: int) -> Path:
    """Return the run folder of a trial."""
    return plan.folder / "trials" / str(number)


def values_of(plan: Plan, frozen: FrozenTrial) -> dict[str, Any]:
    """Return the searched settings of a trial; those not drawn yet when it was killed lack."""
    return {
        k: one.value_of(frozen.params[k]) for k, one in plan.space.items() if k in frozen.params
    }


def winner(study: Study, plan: Plan) -> FrozenTrial | None:
    """Return the best finished trial, of equal ones the first; ``None`` where none is."""
    return best_of(study.get_trials(deepcopy=False), plan)


def best_of(trials: Iterable[FrozenTrial], plan: Plan) -> FrozenTrial | None:
    """Return the best of those that are complete, of equal ones the first."""
    sign = 1 if plan.is_bigger_better else -1
    done = [one for one in trials if one.state.name == "COMPLETE"]
    return max(done, key=lambda one: (sign * one.values[0], -one.number), default=None)
