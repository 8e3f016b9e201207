"""The file of ``--overrides``: settings for all runs, by model, by dataset, and variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_ext.compare.controls import CONTROLS, Variant
from recbole_ext.settings_reading import joined, read_yaml
from recbole_ext.types import UserError, suggest

Settings = Mapping[str, Any]
OWN = {
    "seed": "give --seeds=1,2,3",
    "seeds": "give --seeds=1,2,3",
    "model": "give --models, and settings of one model under 'models'",
    "dataset": "give --datasets, and settings of one dataset under 'datasets'",
    "output_dir": "give --output_dir",
}
"""What no file may set, and what to do instead."""
PARTS = ("models", "datasets", "variants")
"""What maps names to settings."""


@dataclass(frozen=True)
class Overrides:
    """What the file says.

    Attributes:
        for_all: Settings of all runs.
        by_model: Model -> its settings.
        by_dataset: Dataset -> its settings.
        variants: Models of the comparison once more, with other settings.
    """

    for_all: dict[str, Any] = field(default_factory=dict)
    by_model: Mapping[str, Settings] = field(default_factory=dict)
    by_dataset: Mapping[str, Settings] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()


def read_overrides(
    path: str | Path | None,
    models: Sequence[str],
    datasets: Sequence[str],
    config_files: Sequence[str | Path] = (),
) -> Overrides:
    """Read the file; without one there are no overrides but those of the settings files.

    Args:
        path: ``key: value`` for all runs, and under ``models`` and ``datasets`` by name. Under
            ``variants`` a name of its own -> ``{model: <a model of the comparison>, key: value}``.
        models: Of the comparison.
        datasets: Of the comparison.
        config_files: Settings files for all runs, weaker than the file, later ones stronger.

    Raises:
        UserError: Naming the part that is not of this form, or is about what is not compared.
    """
    for_all: dict[str, Any] = {}
    for one in config_files:
        of_file = read_yaml(one)
        _refuse_own(of_file, str(one))
        for_all = joined(for_all, of_file)
    if not path:
        return Overrides(for_all)
    given = dict(read_yaml(path))
    by_model = _part(given, "models", models, path)
    by_dataset = _part(given, "datasets", datasets, path)
    example = f"{models[0]} small: {{model: {models[0]}, epochs: 5}}"
    _refuse_own(given, str(path))
    _refuse_misspelt(given, path)
    for part, settings in {**by_model, **by_dataset}.items():
        _refuse_own(settings, f"{path}: {part}")
    variants = _mapping(given, "variants", example, path)
    found = tuple(_variant(name, dict(one), models, path) for name, one in variants.items())
    return Overrides(joined(for_all, given), by_model, by_dataset, found)


def _refuse_misspelt(given: Mapping[str, Any], path: str | Path) -> None:
    """Refuse ``modles: {BPR: {...}}``: no setting of RecBole's holds mappings of mappings."""
    for key, part in given.items():
        holds_names = isinstance(part, dict) and all(isinstance(v, dict) for v in part.values())
        if part and holds_names and key not in PARTS and suggest(key, PARTS):
            raise UserError(f"{path}: '{key}' is no part of an overrides file{suggest(key, PARTS)}")


def _refuse_own(settings: Mapping[str, Any], where: str) -> None:
    for key, hint in OWN.items():
        if key in settings:
            raise UserError(f"{where}: {key} is the comparison's own; {hint}")


def _variant(name: str, settings: dict[str, Any], models: Sequence[str], path: Any) -> Variant:
    if name in {*models, *(one.name for one in CONTROLS)}:
        raise UserError(f"{path}: variants: '{name}' is there already; give it a name of its own")
    model = settings.pop("model", None)
    _refuse_own(settings, f"{path}: variants: {name}")
    if model is None:
        example = f"{name}: {{model: {models[0]}, ...}}"
        raise UserError(f"{path}: variants: '{name}' has no model; write {example}")
    if model not in models:
        hint = suggest(str(model), models) or f"; --models has {', '.join(models)}"
        raise UserError(
            f"{path}: variants: {name}: model '{model}' is not in this comparison{hint}"
        )
    return Variant(name, model, settings)


def _part(
    given: dict[str, Any], key: str, names: Sequence[str], path: Any
) -> Mapping[str, Settings]:
    part = _mapping(given, key, f"{names[0]}: {{epochs: 5}}", path)
    for name in part.keys() - set(names):
        hint = suggest(name, names) or f"; they are {', '.join(names)}"
        raise UserError(f"{path}: {key}: '{name}' is not in this comparison{hint}")
    return part


def _mapping(given: dict[str, Any], key: str, example: str, path: Any) -> Mapping[str, Settings]:
    part = given.pop(key, None) or {}
    is_mapping = isinstance(part, dict) and all(isinstance(name, str) for name in part)
    if not is_mapping or not all(isinstance(one, dict) for one in part.values()):
        raise UserError(f"{path}: '{key}' maps a name to its settings, as {example}")
    return part
