"""What a run keeps for those who continue or load it, and what they are refused for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_ext import run_folder
from recbole_ext.config import Config
from recbole_ext.data.check import check_files
from recbole_ext.distributed import OF_A_PROCESS
from recbole_ext.settings_kinds import PLACE_KEYS, RESUME_KEYS
from recbole_ext.settings_reading import parse_overrides
from recbole_ext.trainer.run_log import RunLog
from recbole_ext.types import UserError

FEATURES = "features.json"
"""File of a run folder: feature -> the version (generation) that the run is made with."""


def write_settings(folder: Path, config: Config) -> None:
    """Write ``config.yaml``, whose settings are good in any folder, and for another run."""
    settings = {**config.resolved, "output_dir": None}
    if "local_rank" in settings:  # one of nproc processes: what it was given is no setting
        for key in OF_A_PROCESS:
            settings.pop(key, None)
    for key in ("data_path", "pretrain_dir", "pretrained_path", "features_dir"):
        is_bundled = key == "data_path" and config["dataset"] == "ml-100k"
        is_default = settings.get(key) == config.internal_config_dict.get(key)
        if settings.get(key) and not (is_bundled and is_default):
            settings[key] = str(Path(settings[key]).resolve())
    for key in ("text_feature", "image_feature", "user_feature"):  # by name, or by folder
        if settings.get(key) and (Path(settings[key]) / "manifest.json").is_file():
            settings[key] = str(Path(settings[key]).resolve())
    run_folder.write_config(folder, settings)


def resumed_config(folder: Path, overrides: Sequence[str]) -> Config:
    """Return the settings of a run that is to go on.

    Args:
        folder: Its run folder.
        overrides: ``--key=value`` of what a resume may change.

    Raises:
        UserError: There is no run to go on with, or its settings would be others.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"--resume={folder}: there is no run in that folder (no config.yaml)")
    kept = sorted(parse_overrides(overrides).keys() - RESUME_KEYS)
    if kept:
        raise UserError(
            f"--resume keeps the settings of the run, {', '.join(kept)} included; "
            f"it may change {', '.join(sorted(RESUME_KEYS))}"
        )
    config = Config(config_file_list=[folder / "config.yaml"], overrides=overrides)
    check_files(config)
    _refuse_lost_checkpoint(folder)
    if config["nproc"] > 1:
        raise UserError(
            "a run in several processes cannot be resumed exactly; "
            "start it anew with another --output_dir"
        )
    return config


def place_of(resolved: Mapping[str, Any]) -> list[str]:
    """Return, as ``--key=value``, where a run's data and memory are, which a resume takes anew.

    Args:
        resolved: Settings of the run as they are given now.
    """
    keys = sorted(PLACE_KEYS & RESUME_KEYS & resolved.keys())
    return [f"--{key}={json.dumps(resolved[key])}" for key in keys]


def _refuse_lost_checkpoint(folder: Path) -> None:
    """Refuse to start a run anew in a folder that holds the results of one.

    A run that was killed in its first epoch has no ``last.pt`` and at most one record.
    """
    if not (folder / "last.pt").is_file() and (
        (folder / "result.json").is_file() or len(RunLog(folder).read()) > 1
    ):
        raise UserError(
            f"--resume={folder}: last.pt is missing, so there is nothing to continue from, and "
            "starting anew would overwrite the results there; start a new run with "
            f"--config_files={folder / 'config.yaml'}"
        )


def check_features(folder: Path, used: Mapping[str, str]) -> None:
    """Refuse features that are not those of the run.

    Args:
        folder: Run folder.
        used: Feature -> the generation that is there now.

    Raises:
        UserError: Naming the feature.
    """
    path = folder / FEATURES
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, generation in used.items():
        if kept.get(name, generation) != generation:
            raise UserError(
                f"{folder}: feature '{name}' was built anew since this run was made, and its "
                "vectors are others; build it as it was, or train anew"
            )


def write_features(folder: Path, used: Mapping[str, Any]) -> None:
    """Write which versions of its features a run is made with, if it has any."""
    if used:
        run_folder.write_text(folder / FEATURES, json.dumps(used, indent=2) + "\n")
