"""Checks settings before anything runs: unknown keys, wrong types, values out of range.

The YAML files are the schema: RecBole's and ours carry a typed comment per key, ``epochs: 300  #
(int) ...``. A key that stands in none of them is still known when RecBole or the model reads it as
``config["key"]``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import recbole
from recbole.utils import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_ext.types import UserError, suggest

_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (dict,),
}
_TYPED_COMMENT = re.compile(r"^(\w+):[^#\n]*#\s*\(([^)]*)\)", re.MULTILINE)
_CONFIG_READ = re.compile(r"""config(?:\.get\(|\[)\s*f?["'](\w+)["']""")

POSITIVE = (
    "train_batch_size",
    "eval_batch_size",
    "eval_memory_mib",
    "learning_rate",
    "MAX_ITEM_LIST_LENGTH",
    "hidden_size",
    "inner_size",
    "image_hidden_size",
    "n_layers",
    "n_heads",
    "embedding_size",
    "nproc",
)
_NOT_MEANT = {"model", "dataset", *general_arguments, "epochs", "stopping_step", "eval_step"}
EXAMPLES = {
    "callbacks": "'- Freeze: {rules: [...]}', a line each",
    "user_inter_num_interval": "'[5,inf)' or None",
    "item_inter_num_interval": "'[5,inf)' or None",
}
"""How a value is written where its type does not say it."""
NO_SETTINGS = {
    "config_file": "config_file is read by nothing; settings files are named by --config_files",
    "device": "device is no setting; use_gpu and gpu_id choose it",
}
"""What RecBole's lists of keys have, and RecBole itself does not read."""
RUNNER_KEYS = (
    "model",
    "dataset",
    "nproc",
    "world_size",
    "ip",
    "port",
    "offset",
    "local_rank",
    "single_spec",
    "encoding",
    "wandb_project",
    "train_stage",
    "allow_keys",
    "neg_sampling",
    "training_neg_sample_num",
    "save_step",
    "pretrain_epochs",
    "pre_model_path",
)


def typed_comments(paths: Iterable[Path]) -> dict[str, str]:
    """Return key -> type words, read from the comments of YAML files."""
    found: dict[str, str] = {}
    for path in paths:
        found.update(_TYPED_COMMENT.findall(path.read_text(encoding="utf-8")))
    return found


def check_keys(
    given: Mapping[str, Any],
    known: Iterable[str],
    model: str,
    model_class: type,
    elsewhere: Callable[[], Mapping[str, str]],
) -> None:
    """Refuse keys that nothing reads.

    Args:
        given: The user's settings: files, dict and command line.
        known: Keys of the YAML files that this run loads.
        model: Model name, for the message.
        model_class: Model class; the keys its source reads are known.
        elsewhere: Gives key -> another model that has it, for the message.

    Raises:
        UserError: Naming the key, a near one, and the remedy.
    """
    names = {
        *known,
        *RUNNER_KEYS,
        *general_arguments,
        *training_arguments,
        *evaluation_arguments,
        *dataset_arguments,
    }
    allowed = given.get("allow_keys") or ()
    allowed = {allowed} if isinstance(allowed, str) else set(allowed)
    for key, sentence in NO_SETTINGS.items():
        if key in given and key not in allowed:
            raise UserError(sentence)
    names |= allowed
    unknown = [key for key in given if key not in names]
    if not unknown:
        return
    names |= _keys_read_by(model_class)
    for key in unknown:
        if key in names:
            continue
        owner = elsewhere().get(key)
        if owner:
            raise UserError(
                f"'{key}' is a setting of {owner}, not of {model}; remove it, "
                f"or name it under allow_keys: [{key}]"
            )
        raise UserError(
            f"unknown setting '{key}'{suggest(key, names)} "
            f"(if your own code reads it, name it under allow_keys: [{key}])"
        )


def check_types(
    settings: Mapping[str, Any], types: Mapping[str, str], defaults: Mapping[str, Any]
) -> None:
    """Refuse values of another type than the key's typed comment says, and sizes below 1.

    Args:
        settings: The merged settings.
        types: Key -> words of its typed comment.
        defaults: Values of the YAML files; a value of a default's own type is always right, for
            some of RecBole's comments name another type than the value beside them.

    Raises:
        UserError: Naming the key, the type it takes and the value given.
    """
    for key, value in settings.items():
        words = re.findall(
            r"\b(int|float|str|bool|list|dict)\b", types.get(key, "").split(" of ")[0]
        )
        if value is None or not words:
            continue
        own = {"int", "float"} if isinstance(default := defaults.get(key), float) else set()
        kinds = {*words, *own, type(default).__name__} & _TYPES.keys()
        allowed = tuple(kind for word in kinds for kind in _TYPES[word])
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            example = f", as in {EXAMPLES[key]}" if key in EXAMPLES else ""
            raise UserError(f"{key} takes {' or '.join(words)}{example}, not {value!r}")
    for key in POSITIVE:
        value = settings.get(key)
        if isinstance(value, (int, float)) and not value > 0:  # NaN too
            raise UserError(f"{key} must be greater than 0, not {value!r}")


@contextmanager
def bad_settings_of(config: Any) -> Iterator[None]:
    """Say that RecBole's model or one of ours refused its settings; errors of a user's own pass."""
    try:
        yield
    except (ValueError, KeyError, NotImplementedError, AssertionError) as error:
        if ":" in config.model_path:
            raise
        what = f"no '{error.args[0]}'" if isinstance(error, KeyError) else str(error)
        what = what.strip().splitlines()[0] if what.strip() else type(error).__name__
        named = _settings_in(what, config)
        hint = f"change {' or '.join(named)}" if named else "see the model's keys"
        raise UserError(
            f"{config['model']} cannot be built with these settings: {what}; {hint} "
            "(properties/model or RecBole's documentation)"
        ) from error


def _settings_in(sentence: str, config: Any) -> list[str]:
    """Return the settings that a library's sentence is about, as ``key: value``.

    Only those that are not as they come count, by name or by value; names without an underscore
    are words, and what a run is called or how long it is no model's sentence is about.
    """
    words = set(re.findall(r"\w[\w.+-]*\w|\w", sentence))
    defaults = config.internal_config_dict
    changed = {
        key: value
        for key, value in config.resolved.items()
        if type(value) in (str, int, float) and key not in _NOT_MEANT and value != defaults.get(key)
    }
    found = [key for key in changed if "_" in key and key in words] or [
        key for key, value in changed.items() if str(value) in words
    ]
    return [f"{key}: {changed[key]}" for key in found]


def _keys_read_by(model_class: type) -> set[str]:
    """Return the keys that RecBole outside its models, or the model's own classes, read."""
    root = Path(recbole.__file__).parent
    sources = [
        path.read_text(encoding="utf-8")
        for path in root.rglob("*.py")
        if "model" not in path.parts[-3:-1] and path.parent.parent.name != "model"
    ]
    for cls in model_class.__mro__:
        module = inspect.getmodule(cls)
        if module is not None and module.__name__.startswith(
            ("recbole", model_class.__module__.split(".")[0])
        ):
            sources.append(inspect.getsource(module))
    return {key for source in sources for key in _CONFIG_READ.findall(source)}
