"""Refuses plans whose runs would not compare, or could not be done, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_ext.callbacks.build import build_callbacks
from recbole_ext.callbacks.early_stop import EarlyStop
from recbole_ext.compare.controls import Variant
from recbole_ext.compare.protocol import BY_USER
from recbole_ext.config import Config
from recbole_ext.data.features import check_features
from recbole_ext.models.warm_start import ENCODER
from recbole_ext.types import UserError


def refuse_lost(one: Variant, seed: int, said: Mapping[str, Any]) -> None:
    """Refuse a ``--key=value`` that would take from the comparison what it sets itself.

    Args:
        one: A model, a variant or a control; for a control its own settings are the stronger ones.
        seed: Its seed.
        said: What the command line says.
    """
    own = {} if one.control_of else one.settings
    for key, value in {"seed": seed, **own}.items():
        if key in said and said[key] != value:
            hint = (
                "give --seeds=1,2,3" if key == "seed" else "leave it out, or leave out the variant"
            )
            raise UserError(f"--{key} is set by the comparison (for {one.name}); {hint}")


def refuse_unfit(config: Config) -> None:
    """Refuse a run that is not of ranks, or that could not be stopped and continued."""
    metrics = [str(name).lower() for name in config["metrics"]]
    if not set(metrics) & set(BY_USER):
        raise UserError(
            f"metrics {config['metrics']}: a comparison is of ranks, by user; name one or more of "
            f"{', '.join(BY_USER)}"
        )
    if config["nproc"] > 1:
        raise UserError(
            f"nproc: {config['nproc']}: a comparison trains each run in one process, which it can "
            "stop and continue; leave nproc out"
        )


def refuse_random_splits(config: Config, seeds: Sequence[int]) -> None:
    """Refuse several seeds with a random split: each would be tested on other interactions."""
    if len(seeds) > 1 and config.resolved["eval_args"].get("order") == "RO":
        raise UserError(
            "eval_args order: RO draws another split with each seed, and a user's values on "
            "different items are not averaged; set order: TO, or give one seed"
        )


def refuse_other_data(name: str, config: Config, first: str, reference: Config) -> None:
    """Refuse a run with other data than the first: the data are read, and known, once."""
    theirs, ours = reference.resolved["data_path"], config.resolved["data_path"]
    if theirs != ours:
        raise UserError(
            f"data_path on {config['dataset']} is {theirs} for {first} and {ours} for {name}: the "
            "runs on one dataset read the same files; set data_path for all, or under 'datasets'"
        )


def refuse_other_encoder(name: str, config: Config, base: str, theirs: Config) -> None:
    """Refuse a run that could not take over the encoder of the run it starts from.

    Args:
        name: Of the run.
        config: Its settings.
        base: Name of the run that it starts from.
        theirs: That one's settings.
    """
    for key in ("pretrain_epochs", "pretrain_config"):
        if config[key] is not None:
            raise UserError(
                f"{key}: {name} starts from the {base} of this comparison, which has its own "
                f"settings; leave {key} out, or leave {base} out of --models"
            )
    for key in (*ENCODER, "MAX_ITEM_LIST_LENGTH"):
        ours, other = config.resolved.get(key), theirs.resolved.get(key)
        if ours != other:
            raise UserError(
                f"{key} on {config['dataset']} is {other} for {base} and {ours} for {name}, which "
                f"starts from it; give both the same, or give {name} a pretrained_path of its own"
            )


def refuse_controls(one: Variant, starts_there: bool) -> None:
    """Refuse the control that goes on from a model's warm start where that starts elsewhere."""
    if one.extends and not starts_there:
        raise UserError(
            f"--controls are of {one.control_of} against the {one.model} that it starts from, and "
            "here it starts elsewhere; leave out --controls, or pretrain and pretrained_path"
        )


def refuse_features(name: str, config: Config) -> None:
    """Refuse a run that names a stored feature which is not there."""
    try:
        check_features(config)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def refuse_callbacks(one: Variant, config: Config) -> None:
    """Refuse callbacks that cannot be built, and one that would stop a run which is to go on."""
    try:
        callbacks = build_callbacks(config["callbacks"])
    except UserError as error:
        raise UserError(f"{one.name}: {error}") from None
    if one.extends and any(isinstance(callback, EarlyStop) for callback in callbacks):
        raise UserError(
            f"--controls let {one.model} go on where it has ended, and its callback EarlyStop "
            "would stop it again; set stopping_step instead, or leave out --controls"
        )


def refuse_twice(names: Sequence[tuple[str, Any]]) -> None:
    """Refuse two names for one run.

    Args:
        names: Name and folder of each run.
    """
    of_folder: dict[Any, str] = {}
    for name, folder in names:
        first = of_folder.setdefault(folder, name)
        if first != name:
            raise UserError(
                f"'{name}' and '{first}' have the same settings; change a setting of a model "
                "or variant, or leave one of them out"
            )
