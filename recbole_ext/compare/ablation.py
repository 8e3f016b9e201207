"""``ablate``: a model with each of its switches alone, and with all of them.

``properties/ablation/<Model>.yaml`` has ``base``, the settings without any, and under ``switches``
a name -> what turns it on. Lists of ``callbacks`` are joined; other settings replace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_ext.compare.controls import Variant
from recbole_ext.compare.overrides import Overrides
from recbole_ext.paths import data_folder
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import UserError, suggest

Settings = Mapping[str, Any]


def ablation_of(
    model: str, given: Overrides, switches: Sequence[str] = (), file: str | Path | None = None
) -> Overrides:
    """Return overrides with the base as the model, and a variant for each switch and for all.

    Args:
        model: Model.
        given: The user's own, which the base and the switches are laid over.
        switches: Those that are wanted; all by default.
        file: Instead of ``properties/ablation/<model>.yaml``.

    Raises:
        UserError: There is no such file, or no such switch.
    """
    path = Path(file) if file else data_folder("properties") / "ablation" / f"{model}.yaml"
    if not path.is_file():
        raise UserError(
            f"ablate: there is no {path}; write one with 'base' and 'switches', and name it by "
            "--switches_file"
        )
    base, known = _read(path)
    for name in switches:
        if name not in known:
            hint = suggest(name, known) or f"; there are {', '.join(known)}"
            raise UserError(f"ablate: {path} has no switch '{name}'{hint}")
    chosen = {name: known[name] for name in switches or known}
    mine = {**given.by_model.get(model, {}), **base}
    variants = [
        Variant(f"+ {name}", model, joined(base, [(name, settings)], path), model)
        for name, settings in chosen.items()
    ]
    if len(chosen) > 1:
        variants.append(Variant("+ all", model, joined(base, list(chosen.items()), path), model))
    by_model = {**given.by_model, model: mine}
    return Overrides(given.for_all, by_model, given.by_dataset, (*given.variants, *variants))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Settings]]:
    found = read_yaml(path)
    base, switches = found.get("base") or {}, found.get("switches") or {}
    parts = [base, switches, *(switches.values() if isinstance(switches, dict) else ())]
    if not switches or not all(isinstance(one, dict) for one in parts):
        raise UserError(
            f"{path}: 'base' holds settings, and 'switches' maps a name to those that turn it on"
        )
    if found.keys() - {"base", "switches"}:
        extra = ", ".join(found.keys() - {"base", "switches"})
        raise UserError(f"{path}: 'base' and 'switches' are all that there may be, not {extra}")
    return base, switches


def joined(
    base: Settings, switches: Sequence[tuple[str, Settings]], path: object
) -> dict[str, Any]:
    """Return the settings of some switches, with the callbacks of the base before theirs.

    Raises:
        UserError: Two switches set one key to different values.
    """
    settings: dict[str, Any] = {}
    owner: dict[str, str] = {}
    callbacks = list(base.get("callbacks") or ())
    for name, switch in switches:
        callbacks += switch.get("callbacks") or ()
        for key, value in switch.items():
            if key == "callbacks":
                continue
            if settings.get(key, value) != value:
                raise UserError(f"{path}: switches '{owner[key]}' and '{name}' both set {key}")
            settings[key], owner[key] = value, name
    return {**settings, "callbacks": callbacks} if callbacks else settings
