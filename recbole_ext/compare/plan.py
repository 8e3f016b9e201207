"""What a comparison runs: every (dataset, seed, model), all checked before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_ext import __version__
from recbole_ext.compare.check import Wanted
from recbole_ext.compare.controls import Variant, variants_of
from recbole_ext.compare.overrides import Overrides, read_overrides
from recbole_ext.compare.protocol import BY_USER, PROTOCOL, TRAINING, refuse_unequal
from recbole_ext.config import Config
from recbole_ext.data.check import check_files
from recbole_ext.registry import can_accelerate, get_model
from recbole_ext.settings_kinds import PLACE_KEYS
from recbole_ext.settings_reading import parse_overrides
from recbole_ext.types import UserError

Configs = dict[tuple[str, int], tuple[dict[str, Any], Config]]
"""(name, seed) -> its settings, and the Config that they give."""
MOST_SEEDS = 100
"""Beyond it ``--seeds=2020`` is a seed, and no number of them."""


@dataclass(frozen=True)
class Planned:
    """One run.

    Attributes:
        name: What the report calls it: the model, or a control's name.
        model: The model that is run.
        dataset: Dataset.
        seed: Seed.
        settings: Its settings.
        overrides: The user's ``--key=value``, stronger than all but a control's own.
        folder: Run folder, named by a digest of settings, data and what it needs.
        needs: Run folders that must be done before: its warm start's; for ``extends`` the run that
            goes on, and the one whose epochs are counted.
        control_of: The model that it is a control of.
        extends: See :class:`~recbole_ext.compare.controls.Variant`.
    """

    name: str
    model: str
    dataset: str
    seed: int
    settings: dict[str, Any]
    overrides: tuple[str, ...]
    folder: Path
    needs: tuple[Path, ...] = ()
    control_of: str | None = None
    extends: bool = False


def seeds_of(text: str) -> list[int]:
    """Return the seeds of ``--seeds``: a number of them from RecBole's 2020 up, or a list.

    Raises:
        UserError: No number from 1 to :data:`MOST_SEEDS`, and no list of different whole numbers.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    numbers = [int(part) for part in parts if part.isdecimal()]
    if not parts or len(set(numbers)) < len(parts):
        raise UserError(f"--seeds={text}: give a number (3) or a list of different ones (1,2,3)")
    if "," in text:
        return numbers
    if numbers[0] > MOST_SEEDS:
        raise UserError(
            f"--seeds={text}: that many seeds are not meant; one seed is written --seeds={text},"
        )
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
    controls: bool = False,
    fingerprint_of: Callable[[str, Sequence[Wanted]], str] = lambda dataset, wanted: "",
) -> list[Planned]:
    """Return the runs in their order: each behind those that it needs.

    Args:
        models: Models.
        datasets: Datasets.
        seeds: Seeds.
        output_dir: Folder of the comparison.
        overrides_file: See :func:`~recbole_ext.compare.overrides.read_overrides`.
        overrides: ``--key=value``.
        controls: Whether FTRagRec's controls are run too.
        fingerprint_of: Reads a dataset as its runs (those of the first seed) have it, checks their
            settings against it, and returns its fingerprint: a run counts as done with the same
            data only.

    Raises:
        UserError: A model, dataset or key that does not exist, or runs that would not compare.
    """
    given = read_overrides(overrides_file, models, datasets)
    variants = _in_order(variants_of(models, given.variants, controls))
    # it is for some models only, so it cannot go to all as other settings do
    said = parse_overrides(overrides)
    accelerate = said.get("accelerate", given.for_all.get("accelerate", True))
    overrides = tuple(one for one in overrides if not one.startswith("--accelerate="))
    checked: dict[str, Configs] = {dataset: {} for dataset in datasets}
    for dataset, configs in checked.items():
        for seed in seeds:
            for one in variants:
                settings = _settings_of(one, dataset, seed, given, bool(accelerate))
                config = Config(one.model, dataset, None, settings, overrides)
                _refuse_lost(one, seed, said)
                _refuse_no_ranks(config)
                check_files(config)
                configs[one.name, seed] = settings, config
                (first, _), (_, reference) = next(iter(configs.items()))
                refuse_unequal(first, reference.resolved, one.name, config.resolved, dataset)
    runs: list[Planned] = []
    for dataset, configs in checked.items():
        fingerprint = fingerprint_of(dataset, _wanted(variants, configs, overrides, seeds[0]))
        runs += _of_dataset(dataset, variants, configs, overrides, output_dir, fingerprint)
    _refuse_twice(runs)
    return runs


def _wanted(
    variants: Sequence[Variant], configs: Configs, overrides: Sequence[str], seed: int
) -> list[Wanted]:
    return [
        {
            "name": one.name,
            "model": one.model,
            "settings": configs[one.name, seed][0],
            "overrides": list(overrides),
        }
        for one in variants
    ]


def _settings_of(
    one: Variant, dataset: str, seed: int, given: Overrides, accelerate: bool
) -> dict[str, Any]:
    model_class = get_model(one.model)
    return {
        **PROTOCOL,
        **({} if getattr(model_class, "warm_start", None) else TRAINING),
        **given.for_all,
        "accelerate": accelerate and can_accelerate(model_class),
        **given.by_dataset.get(dataset, {}),
        **given.by_model.get(one.model, {}),
        "seed": seed,
        **one.settings,
    }


def _of_dataset(
    dataset: str,
    variants: Sequence[Variant],
    configs: Configs,
    overrides: Sequence[str],
    output_dir: Path,
    fingerprint: str,
) -> list[Planned]:
    runs: list[Planned] = []
    folders: dict[tuple[str, int], Path] = {}
    by_name = {one.name: one for one in variants}
    for (variant, seed), (settings, config) in configs.items():
        one = by_name[variant]
        wanted = getattr(config.model_class, "warm_start", None)
        names = [one.model, one.control_of] if one.extends else [wanted]
        needs = tuple(folders[n, seed] for n in names if n and (n, seed) in folders)
        digest = _digest(config.resolved, needs, fingerprint, one)
        name = f"{config['model']}-{dataset}-{seed}-{digest}"
        folder = folders[one.name, seed] = output_dir.resolve() / "runs" / name
        if wanted and needs:
            settings["pretrained_path"] = str(needs[0])
        elif wanted:
            settings["pretrain_dir"] = str(output_dir.resolve() / "pretrained")
        runs.append(
            Planned(
                one.name,
                one.model,
                dataset,
                seed,
                settings,
                tuple(overrides),
                folder,
                needs,
                one.control_of,
                one.extends,
            )
        )
    return runs


def _in_order(variants: Sequence[Variant]) -> list[Variant]:
    """Return the variants, those that start from another of them behind it."""
    names = {one.name for one in variants}
    ordered: list[Variant] = []
    waiting = list(variants)
    while waiting:
        one = waiting.pop(0)
        needed = getattr(get_model(one.model), "warm_start", None)
        if needed in names and needed not in {other.name for other in ordered}:
            waiting.append(one)
        else:
            ordered.append(one)
    return sorted(ordered, key=lambda one: one.control_of is not None)


def _refuse_lost(one: Variant, seed: int, said: Mapping[str, Any]) -> None:
    """Refuse a ``--key=value`` that would take from the comparison what it sets itself."""
    leave = "leave it out, or leave out " + ("--controls" if one.control_of else "the variant")
    for key, value in {"seed": seed, **one.settings}.items():
        if key in said and said[key] != value:
            hint = "give --seeds=1,2,3" if key == "seed" else leave
            raise UserError(f"--{key} is set by the comparison (for {one.name}); {hint}")


def _refuse_twice(runs: Sequence[Planned]) -> None:
    """Refuse two names for one run."""
    names: dict[Path, str] = {}
    for one in runs:
        first = names.setdefault(one.folder, one.name)
        if first != one.name:
            raise UserError(
                f"'{one.name}' and '{first}' have the same settings; change a setting of a model "
                "or variant, or leave one of them out"
            )


def _refuse_no_ranks(config: Config) -> None:
    metrics = [str(name).lower() for name in config["metrics"]]
    if not set(metrics) & set(BY_USER):
        raise UserError(
            f"metrics {config['metrics']}: a comparison is of ranks, by user; name one or more of "
            f"{', '.join(BY_USER)}"
        )


def _digest(settings: dict[str, Any], needs: Sequence[Path], fingerprint: str, one: Variant) -> str:
    # accelerate draws other random numbers, so here it is no matter of where and how
    kept = sorted((k, v) for k, v in settings.items() if k not in PLACE_KEYS - {"accelerate"})
    text = f"{__version__} {fingerprint} {[n.name for n in needs]} {one.extends} {kept!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
