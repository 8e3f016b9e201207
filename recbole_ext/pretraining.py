"""The model that another starts from: who has one, with which settings it is trained, and where."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from recbole_ext import __version__
from recbole_ext.config import Config
from recbole_ext.settings_kinds import PLACE_KEYS, STAGE_KEYS, WARM_START_KEYS
from recbole_ext.types import UserError


def check_start(config: Config) -> None:
    """Refuse settings of a warm start that the model cannot follow.

    Raises:
        UserError: Naming the key and the remedy.
    """
    wanted = getattr(config.model_class, "warm_start", None)
    how = (config["item_init"] or {}).get("how", "init")
    if wanted and how != "init":
        raise UserError(
            f"item_init: {config['model']} takes its table of items from {wanted}, where "
            f"'{how}' would be another; use how: init, which {wanted} begins with"
        )
    for key, default in {} if wanted else WARM_START_KEYS.items():
        own = config.internal_config_dict.get(key, default)  # S3Rec has a key of that name
        if own == default and config.resolved.get(key, default) != default:
            raise UserError(f"{key}: {config['model']} starts from no other model; leave it out")


def warm_start_of(config: Config, model: str, fingerprint: str) -> tuple[Path, dict[str, Any]]:
    """Return the run folder of a warm start, one per dataset and settings, and its settings.

    It takes the user's settings that it knows, but for those of the training itself: these come
    from its own YAML, ``pretrain_epochs`` and ``pretrain_config``.

    Args:
        config: Settings of the run that needs it.
        model: The model to train first.
        fingerprint: Fingerprint of the filtered dataset.
    """
    own = {
        **({} if config["pretrain_epochs"] is None else {"epochs": config["pretrain_epochs"]}),
        **(config["pretrain_config"] or {}),
    }
    known = Config(model, config["dataset"]).resolved.keys() - STAGE_KEYS
    plain = Config(config.model_path, config["dataset"]).resolved
    # by value and not by who gave it: config.yaml, from which a run is resumed, gives every key
    shared = {k: v for k, v in config.resolved.items() if k in known and v != plain.get(k)}
    settings = {**shared, **own}
    resolved = Config(model, config["dataset"], config_dict=settings).resolved
    digest = hashlib.sha256(f"{__version__} {fingerprint}".encode())
    digest.update(repr(sorted((k, v) for k, v in resolved.items() if k not in PLACE_KEYS)).encode())
    name = f"{model}-{config['dataset']}-{digest.hexdigest()[:12]}"
    return Path(config["pretrain_dir"]) / name, settings
