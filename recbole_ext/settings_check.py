"""Checks settings before anything runs: unknown keys, wrong types, values out of range.

The YAML files are the schema: RecBole's and ours carry a typed comment per key, ``epochs: 300  # (int) ...``. A key
that stands in none of them is still known when RecBole or the model reads it as ``config["key"]``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import recbole
from recbole.evaluator import metric_types
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

POSITIVE = ("train_batch_size", "eval_batch_size", "learning_rate", "MAX_ITEM_LIST_LENGTH", "hidden_size", "n_layers",
            "n_heads", "embedding_size")
RUNNER_KEYS = ("model", "dataset", "config_files", "nproc", "world_size", "ip", "port", "offset", "local_rank",
               "single_spec", "encoding", "wandb_project", "train_stage", "allow_keys", "neg_sampling",
               "training_neg_sample_num", "save_step", "pretrain_epochs", "pre_model_path")


def typed_comments(paths: Iterable[Path]) -> dict[str, str]:
    """Return key -> type words, read from the comments of YAML files."""
    found: dict[str, str] = {}
    for path in paths:
        found.update(_TYPED_COMMENT.findall(path.read_text(encoding="utf-8")))
    return found


def check_keys(given: Mapping[str, Any], known: Iterable[str], model: str, model_class: type,
               elsewhere: Mapping[str, str]) -> None:
    """Refuse keys that nothing reads.

    Args:
        given: The user's settings: files, dict and command line.
        known: Keys of the YAML files that this run loads.
        model: Model name, for the message.
        model_class: Model class; the keys its source reads are known.
        elsewhere: Key -> another model that has it, for the message.

    Raises:
        UserError: Naming the key, a near one, and the remedy.
    """
    names = {*known, *RUNNER_KEYS, *general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments}
    names |= set(given.get("allow_keys") or ())
    unknown = [key for key in given if key not in names]
    if not unknown:
        return
    names |= _keys_read_by(model_class)
    for key in unknown:
        if key in names:
            continue
        if key in elsewhere and not suggest(key, names):
            raise UserError(f"'{key}' is a setting of {elsewhere[key]}, not of {model}; remove it, "
                            f"or name it under allow_keys: [{key}]")
        raise UserError(f"unknown setting '{key}'{suggest(key, names)} "
                        f"(if your own code reads it, name it under allow_keys: [{key}])")


def check_types(settings: Mapping[str, Any], types: Mapping[str, str]) -> None:
    """Refuse values whose type is not the one of the key's typed comment, and sizes that are not positive.

    Raises:
        UserError: Naming the key, the type it takes and the value given.
    """
    for key, value in settings.items():
        words = re.findall(r"\b(int|float|str|bool|list|dict)\b", types.get(key, "").split(" of ")[0])
        if value is None or not words:
            continue
        allowed = tuple(kind for word in words for kind in _TYPES[word])
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise UserError(f"{key} takes {' or '.join(words)}, not {value!r}")
    for key in POSITIVE:
        value = settings.get(key)
        if isinstance(value, (int, float)) and value <= 0:
            raise UserError(f"{key} must be greater than 0, not {value!r}")


def check_metrics(settings: Mapping[str, Any]) -> None:
    """Refuse unknown metrics and a ``valid_metric`` that will not be computed.

    Raises:
        UserError: Naming the metric and those that exist.
    """
    metrics = settings["metrics"]
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    topk = settings["topk"]
    topk = [topk] if isinstance(topk, int) else topk
    if not isinstance(topk, (list, tuple)) or not all(isinstance(k, int) and k > 0 for k in topk):
        raise UserError(f"topk takes a positive integer or a list of them, not {settings['topk']!r}")
    for metric in metrics:
        if str(metric).lower() not in metric_types:
            raise UserError(f"metrics: there is no metric '{metric}'{suggest(str(metric), metric_types)} "
                            f"(there are: {', '.join(sorted(metric_types))})")
    if len({metric_types[str(metric).lower()] for metric in metrics}) > 1:
        raise UserError(f"metrics {metrics} mix ranking and value metrics, which need different evaluations; use one kind")
    name, _, k = str(settings["valid_metric"]).partition("@")
    if name.lower() not in {str(metric).lower() for metric in metrics} or (k and int(k) not in topk):
        raise UserError(f"valid_metric {settings['valid_metric']!r} is not computed: "
                        f"metrics are {metrics} at topk {list(topk)}")


def _keys_read_by(model_class: type) -> set[str]:
    """Return the keys that RecBole outside its models, or the model's own classes, read."""
    root = Path(recbole.__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in root.rglob("*.py") if "model" not in path.parts[-3:-1]
               and path.parent.parent.name != "model"]
    for cls in model_class.__mro__:
        module = inspect.getmodule(cls)
        if module is not None and module.__name__.startswith(("recbole", model_class.__module__.split(".")[0])):
            sources.append(inspect.getsource(module))
    return {key for source in sources for key in _CONFIG_READ.findall(source)}
