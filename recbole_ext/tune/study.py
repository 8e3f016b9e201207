"""The study: Optuna's, in one SQLite file that several processes may work on at once."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_ext.locks import lock
from recbole_ext.tune.plan import Plan
from recbole_ext.types import UserError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

STORAGE = "study.db"
NAME = "recbole-ext tune"


class OfAllTrials(UserError):
    """What is wrong with the data of all trials: no fault of one, which is taken up later."""


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

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = plan.folder / STORAGE
    with usable(path, RuntimeError), lock(path):  # which is what another version's table gives
        # an address of SQLAlchemy's would take "?" and "{" in the path for something else
        connect = partial(sqlite3.connect, path.resolve(), timeout=60, check_same_thread=False)
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{STORAGE}", engine_kwargs={"creator": connect}
        )
        others = [name for name in optuna.get_all_study_names(storage) if name != NAME]
        if others:
            raise UserError(
                f"{path} is the storage of another study ({', '.join(others)}); name another "
                "--output_dir"
            )
        study = _made(storage, plan)
        _identify(study, plan, path)
    return study


@contextmanager
def usable(path: Path, *more: type[Exception]) -> Iterator[None]:
    """Say in one sentence what is wrong with the storage, at whatever it is found.

    Args:
        path: The storage.
        more: Errors that are the storage's here.

    Raises:
        UserError: It is damaged, or cannot be written.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, *more) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(
            f"{path} cannot be used as a storage ({reason}); free space if the disk is full and "
            "give the same command once more, or name another --output_dir"
        ) from error


def _made(storage: Any, plan: Plan) -> Study:
    import optuna

    direction = "maximize" if plan.is_bigger_better else "minimize"
    make = partial(
        optuna.create_study,
        storage=storage,
        study_name=NAME,
        direction=direction,
        pruner=optuna.pruners.MedianPruner() if plan.prune else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    study = make()
    if _is_empty(study) and study.direction.name.lower() != direction:
        # made for another metric by a command that was killed before it said so
        optuna.delete_study(study_name=NAME, storage=storage)
        study = make()
    return study


def _is_empty(study: Study) -> bool:
    return "identity" not in study.user_attrs and not study.get_trials(deepcopy=False)


def _identify(study: Study, plan: Plan, path: Path) -> None:
    """Keep what the search is of; refuse a study of another.

    Raises:
        UserError: Naming what is different.
    """
    ours = json.loads(json.dumps(plan.identity, default=str))
    if _is_empty(study):
        study.set_user_attr("identity", ours)
        return
    theirs = study.user_attrs.get("identity", {})
    for key in ("model", "dataset", "space", *sorted(ours | theirs)):
        if ours.get(key) != theirs.get(key):
            raise UserError(
                f"{path} is the storage of another study: {key} is {theirs.get(key)} there and "
                f"{ours.get(key)} here; name another --output_dir, or give the study's own command"
            )


def check_data(study: Study, fingerprint: str) -> None:
    """Keep the data's fingerprint; refuse data that are others than those of the trials before.

    Raises:
        OfAllTrials: They have changed.
    """
    known = study.user_attrs.get("dataset_fingerprint")
    if known is None:
        study.set_user_attr("dataset_fingerprint", fingerprint)
    elif known != fingerprint:
        raise OfAllTrials(
            "the data have changed since the study began, and trials on other data do not "
            "compare; put them back, or name another --output_dir"
        )


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
