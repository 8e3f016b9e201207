"""What a comparison runs: every (dataset, seed, model), all checked before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_ext import __version__
from recbole_ext.compare.check import Wanted
from recbole_ext.compare.controls import Variant, variants_of
from recbole_ext.compare.earlier import Row, refuse_other_fingerprint, refuse_other_protocol
from recbole_ext.compare.overrides import Overrides, read_overrides
from recbole_ext.compare.protocol import PROTOCOL, TRAINING, refuse_unequal
from recbole_ext.compare.refused import (
    refuse_callbacks,
    refuse_controls,
    refuse_features,
    refuse_lost,
    refuse_other_data,
    refuse_other_encoder,
    refuse_random_splits,
    refuse_twice,
    refuse_unfit,
)
from recbole_ext.config import Config
from recbole_ext.data.check import check_files
from recbole_ext.registry import can_accelerate, get_model
from recbole_ext.settings_kinds import PLACE_KEYS
from recbole_ext.settings_reading import joined, parse_overrides
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
        digest: The same without the seed: what the runs of one name have in common.
        needs: Run folders that must be done before: its warm start's; for ``extends`` the run that
            goes on, and the one whose epochs are counted; for ``mixes_alike`` last the one whose
            mix it takes.
        control_of: The model that it is a control of.
        extends: See :class:`~recbole_ext.compare.controls.Variant`.
        mixes_alike: The same.
    """

    name: str
    model: str
    dataset: str
    seed: int
    settings: dict[str, Any]
    overrides: tuple[str, ...]
    folder: Path
    digest: str
    needs: tuple[Path, ...] = ()
    control_of: str | None = None
    extends: bool = False
    mixes_alike: bool = False

    def row(self, failure: str | None = None) -> Row:
        """Return what ``plan.json`` says of it."""
        return {
            "name": self.name,
            "model": self.model,
            "dataset": self.dataset,
            "seed": self.seed,
            "control_of": self.control_of,
            "extends": f"runs/{self.needs[0].name}" if self.extends else None,
            "digest": self.digest,
            "folder": f"runs/{self.folder.name}",
            "failure": failure,
        }


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
    given: Overrides | str | Path | None = None,
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
        given: Overrides, or their file; see
            :func:`~recbole_ext.compare.overrides.read_overrides`.
        overrides: ``--key=value``.
        controls: Whether FTRagRec's controls are run too.
        fingerprint_of: Reads a dataset as its runs (those of the first seed) have it, checks their
            settings against it, and returns its fingerprint: a run counts as done with the same
            data only.

    Raises:
        UserError: A model, dataset or key that does not exist, or runs that would not compare.
    """
    if not isinstance(given, Overrides):
        given = read_overrides(given, models, datasets)
    variants = _in_order(variants_of(models, given.variants, controls))
    checked: dict[str, Configs] = {}
    for dataset in datasets:
        checked[dataset] = _checked(dataset, variants, seeds, given, overrides)
        _check_starts(variants, checked[dataset], seeds[0])
    settings_of = {d: next(iter(configs.values()))[1].resolved for d, configs in checked.items()}
    names = [one.name for one in variants]
    refuse_other_protocol(output_dir, names, settings_of)
    fingerprints = {
        dataset: fingerprint_of(dataset, _wanted(variants, configs, overrides, seeds[0]))
        for dataset, configs in checked.items()
    }
    refuse_other_fingerprint(output_dir, names, fingerprints)
    runs: list[Planned] = []
    for dataset, configs in checked.items():
        fingerprint = fingerprints[dataset]
        runs += _of_dataset(dataset, variants, configs, overrides, output_dir, fingerprint)
    refuse_twice([(one.name, one.folder) for one in runs])
    return runs


def _checked(
    dataset: str,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    given: Overrides,
    overrides: Sequence[str],
) -> Configs:
    """Return the settings of the runs on a dataset, each of which compares with the first."""
    said, configs = parse_overrides(overrides), Configs()
    for seed in seeds:
        for one in variants:
            settings = _settings_of(one, dataset, seed, given, said)
            config = Config(one.model, dataset, None, settings, _overrides_of(one, overrides))
            refuse_lost(one, seed, said)
            refuse_unfit(config)
            refuse_random_splits(config, seeds)
            refuse_callbacks(one, config)
            check_files(config)
            refuse_features(one.name, config)
            configs[one.name, seed] = settings, config
            (first, _), (_, reference) = next(iter(configs.items()))
            refuse_unequal(first, reference.resolved, one.name, config.resolved, dataset)
            refuse_other_data(one.name, config, first, reference)
    return configs


def _wanted(
    variants: Sequence[Variant], configs: Configs, overrides: Sequence[str], seed: int
) -> list[Wanted]:
    return [
        {
            "name": one.name,
            "model": one.model,
            "settings": configs[one.name, seed][0],
            "overrides": list(_overrides_of(one, overrides)),
        }
        for one in variants
    ]


def _settings_of(
    one: Variant, dataset: str, seed: int, given: Overrides, said: Mapping[str, Any]
) -> dict[str, Any]:
    model_class = get_model(one.model)
    for_all = joined({"accelerate": True}, given.for_all, given.by_dataset.get(dataset, {}))
    settings = joined(
        PROTOCOL,
        {} if getattr(model_class, "warm_start", None) else TRAINING,
        for_all,
        {"accelerate": _accelerate(for_all["accelerate"], model_class)},
        given.by_model.get(one.model, {}),
    )
    if "accelerate" in said:
        settings["accelerate"] = _accelerate(said["accelerate"], model_class)
    return joined(settings, {"seed": seed}, one.settings)


def _accelerate(wanted: Any, model_class: type) -> bool:
    """Return it for one of the models: it is for some only, so that it cannot go to all."""
    if not isinstance(wanted, bool):
        raise UserError(f"accelerate takes True or False, not {wanted!r}")
    return wanted and can_accelerate(model_class)


def _overrides_of(one: Variant, overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the ``--key=value`` for a run, without what it sets itself."""
    kept = {"accelerate", *one.own}
    return tuple(text for text in overrides if text[2:].partition("=")[0] not in kept)


def _base_of(one: Variant, config: Config, names: Collection[str]) -> str | None:
    """Return the name of the run of the comparison that a run starts from, if it does."""
    wanted = getattr(config.model_class, "warm_start", None)
    if wanted not in names or config["pretrained_path"] or config["pretrain"] != "auto":
        return None
    return wanted


def _check_starts(variants: Sequence[Variant], configs: Configs, seed: int) -> None:
    names = {one.name for one in variants}
    bases = {one.name: _base_of(one, configs[one.name, seed][1], names) for one in variants}
    for one in variants:
        base = bases[one.name]
        if base:
            theirs = configs[base, seed][1]
            refuse_other_encoder(one.name, configs[one.name, seed][1], base, theirs)
        refuse_controls(one, one.extends and bases[one.control_of or ""] == one.model)


def _of_dataset(
    dataset: str,
    variants: Sequence[Variant],
    configs: Configs,
    overrides: Sequence[str],
    output_dir: Path,
    fingerprint: str,
) -> list[Planned]:
    runs: dict[tuple[str, int], Planned] = {}
    by_name = {one.name: one for one in variants}
    for (variant, seed), (settings, config) in configs.items():
        one = by_name[variant]
        base = _base_of(one, config, by_name)
        names = [one.model] if one.extends else [base] if base else []
        names += [one.control_of] if one.control_of and (one.extends or one.mixes_alike) else []
        needed = [runs[name, seed] for name in names]
        needs = tuple(other.folder for other in needed)
        digest = _digest(config.resolved, [f.name for f in needs], fingerprint, one)
        name = f"{config['model']}-{dataset}-{seed}-{digest}"
        if base:
            settings["pretrained_path"] = str(needs[0])
        elif getattr(config.model_class, "warm_start", None):
            settings["pretrain_dir"] = str(output_dir.resolve() / "pretrained")
        seedless = {key: value for key, value in config.resolved.items() if key != "seed"}
        runs[variant, seed] = Planned(
            one.name,
            one.model,
            dataset,
            seed,
            settings,
            _overrides_of(one, overrides),
            output_dir.resolve() / "runs" / name,
            _digest(seedless, [other.digest for other in needed], fingerprint, one),
            needs,
            one.control_of,
            one.extends,
            one.mixes_alike,
        )
    return list(runs.values())


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


def _digest(settings: dict[str, Any], needs: list[str], fingerprint: str, one: Variant) -> str:
    # accelerate draws other random numbers, so here it is no matter of where and how
    kept = sorted((k, v) for k, v in settings.items() if k not in PLACE_KEYS - {"accelerate"})
    text = f"{__version__} {fingerprint} {needs} {one.extends} {kept!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
