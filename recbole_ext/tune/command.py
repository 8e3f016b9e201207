"""``recbole-ext tune``: from the command's options to the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_ext.settings_reading import files_in, parse_overrides, parse_value
from recbole_ext.tune.plan import plan_of, settings_given
from recbole_ext.tune.search import search
from recbole_ext.tune.study import need_optuna
from recbole_ext.types import UserError

OPTIONS = ("model", "dataset", "config_files", "output_dir", "space", "trials", "prune")
USAGE = "tune --model=BPR --dataset=ml-100k --space=space.yaml --trials=20"
GOES_ON = "give the same command once more, and the search goes on"


def run(options: dict[str, str], overrides: list[str]) -> int:
    """Search, and print the report.

    Args:
        options: Of :data:`OPTIONS`.
        overrides: ``--key=value``, settings of all trials.

    Raises:
        UserError: Bad input.
    """
    need_optuna()
    if not options.get("space"):
        raise UserError(f"tune needs --space: recbole-ext {USAGE}")
    files = files_in(options.get("config_files", ""))
    settings = settings_given(options.get("model"), options.get("dataset"), files, overrides)
    named = [str(settings.get(key)) for key in ("model", "dataset")]
    folder = Path(options.get("output_dir") or f"runs/tune-{'-'.join(named)}")
    n_trials, prune = _read(options, "trials", 20), _read(options, "prune", True)
    said = parse_overrides(overrides)
    plan = plan_of(folder, settings, options["space"], n_trials, prune, said)
    _make(folder)
    try:
        print(search(plan, lambda line: print(line, flush=True)))
    except KeyboardInterrupt as interrupt:
        interrupt.args = (GOES_ON,)
        raise
    return 0


def _read(options: dict[str, str], name: str, default: Any) -> Any:
    """Return an option of the default's type; a number is 1 or more."""
    if name not in options:
        return default
    value = parse_value(options[name])
    if type(value) is not type(default) or (type(value) is int and value < 1):
        what = "True or False" if isinstance(default, bool) else "a number from 1 up"
        raise UserError(f"--{name} takes {what}, not '{options[name]}'")
    return value


def _make(folder: Path) -> None:
    try:
        (folder / "claims").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output_dir={folder}: a search cannot be written there ({error.strerror}); name a "
            "folder"
        ) from None
