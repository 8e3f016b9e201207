"""What a comparison runs: every (dataset, seed, model), all checked before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_ext import __version__
from recbole_ext.config import Config, read_yaml
from recbole_ext.data.check import check_files
from recbole_ext.quick_start import PLACE_KEYS
from recbole_ext.types import UserError, suggest

PROTOCOL = {
    "mask_history": False,
    "eval_args": {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "group_by": "user",
        "mode": "full",
    },
}
"""What RecBole sets by the model's family, and a comparison for all runs."""

EQUAL_KEYS = ("eval_args", "mask_history", "topk", "metrics", "valid_metric")
"""Settings that all runs on one dataset must share."""


@dataclass(frozen=True)
class Planned:
    """One run: ``folder`` is named by its settings' digest, ``after`` is its warm start's."""

    model: str
    dataset: str
    seed: int
    settings: dict[str, Any]
    overrides: tuple[str, ...]
    folder: Path
    after: Path | None = None


def seeds_of(text: str) -> list[int]:
    """Return the seeds of ``--seeds``: a number of them from RecBole's 2020 up, or a list.

    Raises:
        UserError: No positive number and no list of different whole numbers.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise UserError(f"--seeds={text}: give a number (3) or a list of different ones (1,2,3)")
    numbers = [int(part) for part in parts]
    if "," in text:
        return numbers
    if numbers[0] == 0:
        raise UserError("--seeds=0: a comparison needs one seed or more")
    return [2020 + i for i in range(numbers[0])]


def plan(
    models: Sequence[str],
    datasets: Sequence[str],
    seeds: Sequence[int],
    output_dir: Path,
    overrides_file: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> list[Planned]:
    """Return the runs in their order: warm starts before the models that start from them.

    Raises:
        UserError: A model, dataset or key that does not exist, or runs that would not compare.
    """
    given = dict(read_yaml(overrides_file)) if overrides_file else {}
    by_model = _part(given, "models", models, overrides_file)
    by_dataset = _part(given, "datasets", datasets, overrides_file)
    runs: list[Planned] = []
    for dataset in datasets:
        first: tuple[str, dict[str, Any]] | None = None
        for seed in seeds:
            started: dict[str, Path] = {}
            waiting = list(models)
            while waiting:
                model = waiting.pop(0)
                settings = {
                    **PROTOCOL,
                    **given,
                    **by_dataset.get(dataset, {}),
                    **by_model.get(model, {}),
                    "seed": seed,
                }
                config = Config(model, dataset, None, settings, overrides)
                if config["seed"] != seed:
                    raise UserError("--seed is set by the comparison; give --seeds=1,2,3")
                check_files(config)
                needed = getattr(config.model_class, "warm_start", None)
                if needed in waiting:
                    waiting.append(model)
                    continue
                after = started.get(needed) if needed else None
                _compare(first, model, config.resolved, dataset)
                first = first or (model, config.resolved)
                name = f"{model}-{dataset}-{seed}-{_digest(config.resolved, after)}"
                folder = started[model] = output_dir.resolve() / "runs" / name
                if after:
                    settings["pretrained_path"] = str(after)
                elif needed:
                    settings["pretrain_dir"] = str(output_dir.resolve() / "pretrained")
                runs.append(
                    Planned(model, dataset, seed, settings, tuple(overrides), folder, after)
                )
    return runs


def _part(
    given: dict[str, Any], key: str, names: Sequence[str], path: str | Path | None
) -> Mapping[str, Any]:
    part = given.pop(key, None) or {}
    if not isinstance(part, dict) or not all(isinstance(v, dict) for v in part.values()):
        raise UserError(
            f"{path}: '{key}' maps a name to its settings, as {names[0]}: {{epochs: 5}}"
        )
    for name in part.keys() - set(names):
        hint = suggest(name, names) or f"; they are {', '.join(names)}"
        raise UserError(f"{path}: {key}: '{name}' is not in this comparison{hint}")
    return part


def _compare(
    first: tuple[str, dict[str, Any]] | None, model: str, settings: dict[str, Any], dataset: str
) -> None:
    if first is None:
        return
    for key in EQUAL_KEYS:
        if settings.get(key) != first[1].get(key):
            raise UserError(
                f"{key} on {dataset} is {first[1].get(key)} for {first[0]} and "
                f"{settings.get(key)} for {model}: their numbers do not compare; set one for all"
            )


def _digest(settings: dict[str, Any], after: Path | None) -> str:
    kept = sorted((k, v) for k, v in settings.items() if k not in PLACE_KEYS)
    text = f"{__version__} {after.name if after else None} {kept!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
