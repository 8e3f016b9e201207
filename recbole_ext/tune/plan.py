"""What is searched: the command's settings, read and checked before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from recbole.trainer import Trainer

from recbole_ext.callbacks.build import build_callbacks
from recbole_ext.config import Config
from recbole_ext.data.check import check_files
from recbole_ext.registry import get_trainer
from recbole_ext.run_folder import PLAN
from recbole_ext.settings_kinds import PLACE_KEYS
from recbole_ext.settings_reading import joined, parse_overrides, read_yaml
from recbole_ext.tune.space import Space, corners, read_space, written
from recbole_ext.types import UserError

QUIET = {"state": "WARNING", "show_progress": False}
"""Trials print a line each; their run folders have the rest."""


@dataclass(frozen=True)
class Plan:
    """A search.

    Attributes:
        folder: Where everything is written; ``study.db`` in it is the storage.
        settings: The user's settings, without those that are searched.
        space: Setting -> its values.
        config: Settings of a trial, the searched ones at one end.
        n_trials: Trials of the whole study, over all commands and workers.
        prune: Whether trials that fall behind are ended early.
    """

    folder: Path
    settings: dict[str, Any]
    space: Space
    config: Config
    n_trials: int
    prune: bool

    @property
    def metric(self) -> str:
        """The validation metric that decides, as results name it."""
        return str(self.config["valid_metric"]).lower()

    @property
    def is_bigger_better(self) -> bool:
        """Whether more of it is better."""
        return bool(self.config["valid_metric_bigger"])

    def settings_of(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of a trial with the searched ``values``."""
        return joined(QUIET, self.settings, values)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes trials comparable; a study goes on with the same only."""
        place = PLACE_KEYS - {"accelerate"}  # which draws other random numbers
        kept = {k: v for k, v in self.config.resolved.items() if k not in place}
        return {"space": written(self.space), "prune": self.prune, **kept}


def plan_of(
    folder: Path,
    settings: dict[str, Any],
    space_file: str,
    n_trials: int,
    prune: bool = True,
    said: Collection[str] = (),
) -> Plan:
    """Read the space and check it, with the settings of all trials.

    Args:
        folder: Where to write.
        settings: ``model``, ``dataset`` and what all trials share.
        space_file: The search space.
        n_trials: Trials of the study.
        prune: Whether trials that fall behind are ended early.
        said: Settings of the command line; those of a file may be searched all the same.

    Raises:
        UserError: A setting that does not exist or takes no such value, or what cannot be searched.
    """
    space = read_space(space_file)
    for key, other in product(space, said):
        if f"{other}.".startswith(f"{key}."):  # an entry of a mapping that is searched too
            raise UserError(
                f"{key} is searched ({space_file}) and given as --{other} too; keep one"
            )
    settings = {key: value for key, value in settings.items() if key not in space}
    refuse_other_folder(folder)
    Config(config_dict=settings)  # what is wrong without the space is not the space's
    try:
        configs = [Config(config_dict=joined(settings, values)) for values in corners(space)]
    except UserError as error:
        raise UserError(f"{space_file}: {error}") from None
    for config in configs:
        check_files(config)
        build_callbacks(config["callbacks"])
        _refuse_unvalidated(config)
    config = configs[0]
    if config["nproc"] > 1:
        raise UserError(
            "nproc: a trial is trained in one process, which it can stop and continue; "
            "leave nproc out, and give the command several times for more workers"
        )
    if not issubclass(get_trainer(config["MODEL_TYPE"], config["model"]), Trainer):
        raise UserError(
            f"{config['model']} is trained by its own library, which has no hooks to watch its "
            "validation by; RecBole's HyperTuning searches its settings"
        )
    return Plan(folder, settings, space, config, n_trials, prune)


def _refuse_unvalidated(config: Config) -> None:
    every, epochs = config["eval_step"], config["epochs"]
    if not 0 < every <= epochs:
        among = "" if every < 1 else f" and epochs {epochs}"
        raise UserError(
            f"eval_step is {every}{among}: no epoch would be validated, and nothing would decide "
            "between the trials; give one from 1 to epochs"
        )


def settings_given(
    model: str | None, dataset: str | None, files: Sequence[str], overrides: Sequence[str]
) -> dict[str, Any]:
    """Return the settings of all trials: files, later ones stronger, then ``--key=value``.

    Raises:
        UserError: A file that cannot be read, or a setting that is the search's own.
    """
    settings = joined(*(read_yaml(path) for path in files), parse_overrides(overrides))
    settings |= {k: v for k, v in (("model", model), ("dataset", dataset)) if v}
    if settings.pop("output_dir", None) is not None:
        raise UserError(
            "output_dir in a settings file is of a run; give --output_dir of the search"
        )
    return settings


def refuse_other_folder(folder: Path) -> None:
    """Refuse a folder that holds a run or a comparison."""
    for name, what in (("config.yaml", "a run"), (PLAN, "a comparison")):
        if (folder / name).exists():
            raise UserError(f"{folder} holds {what} ({name}); name another --output_dir")
