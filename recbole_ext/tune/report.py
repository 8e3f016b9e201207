"""What a search leaves to read: ``trials.csv``, ``best.yaml``, two charts and ``report.md``."""

from __future__ import annotations

import csv
import io
import json
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recbole_ext.run_folder import write_text
from recbole_ext.settings_reading import read_yaml
from recbole_ext.tune.charts import draw_history, draw_importance
from recbole_ext.tune.claims import BEGUN
from recbole_ext.tune.plan import QUIET, Plan
from recbole_ext.tune.study import folder_of, values_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

SHOWN = 5
"""Trials in the report."""


def write_report(
    study: Study, plan: Plan, best: FrozenTrial, tested: dict[str, dict[str, float]]
) -> str:
    """Write the files of a search into its folder; return the report.

    Args:
        study: The study, none of whose trials is in work.
        plan: What was searched.
        best: The winner.
        tested: Number of a trial -> its metrics on the test set.
    """
    trials = study.get_trials(deepcopy=False)
    importance = importance_of(study)
    write_text(plan.folder / "trials.csv", _csv(trials, plan))
    _write_best(plan, best)
    draw_history(plan.folder / "history.png", trials, plan.metric, plan.is_bigger_better)
    if importance:
        draw_importance(plan.folder / "importance.png", importance, plan.metric)
    else:
        (plan.folder / "importance.png").unlink(missing_ok=True)
    text = "\n".join(_lines(trials, plan, best, tested, importance)) + "\n"
    write_text(plan.folder / "report.md", text)
    return text


def importance_of(study: Study) -> dict[str, float]:
    """Return setting -> share of what the metric depends on; empty where too few trials tell."""
    import optuna

    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len({one.values[0] for one in done}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the evaluator cannot tell; it is then 0
        found = optuna.importance.get_param_importances(study)
    return {key: float(value) for key, value in found.items()}


def _csv(trials: list[FrozenTrial], plan: Plan) -> str:
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    keys = list(plan.space)
    rows.writerow(["trial", "state", plan.metric, *keys, "n_epochs", "seconds", "attempts", "note"])
    for one in trials:
        attrs, values = one.user_attrs, values_of(plan, one)
        value = "" if one.value is None else one.value
        cells = [_cell(values.get(key, "")) for key in keys]
        n_epochs, seconds, note = (attrs.get(key, "") for key in ("n_epochs", "seconds", "note"))
        own = [n_epochs, seconds, len(attrs.get(BEGUN, [])), note]
        rows.writerow([one.number, one.state.name.lower(), value, *cells, *own])
    return stream.getvalue()


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _write_best(plan: Plan, best: FrozenTrial) -> None:
    """Write what ``run --config_files`` takes: what the user gave, with the winner's values."""
    folder = folder_of(plan, best.number)
    resolved = read_yaml(folder / "config.yaml")  # its places are good from any folder
    given = plan.settings_of(values_of(plan, best))
    hidden = QUIET.keys() - plan.settings.keys()
    keys = dict.fromkeys(key.partition(".")[0] for key in given if key not in hidden)
    settings = {key: resolved[key] for key in keys}
    head = f"# trial {best.number} of {plan.folder}: {plan.metric} {best.value:.4f} (validation)\n"
    head += f"# {_again(plan)}\n"
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None)
    write_text(plan.folder / "best.yaml", head + text)


def _lines(
    trials: list[FrozenTrial],
    plan: Plan,
    best: FrozenTrial,
    tested: dict[str, dict[str, float]],
    importance: dict[str, float],
) -> list[str]:
    states = [one.state.name for one in trials]
    counts = [
        f"{states.count(name)} {word}"
        for name, word in (("COMPLETE", "finished"), ("PRUNED", "pruned"), ("FAIL", "failed"))
    ]
    model, dataset = plan.config["model"], plan.config["dataset"]
    test = ", ".join(f"{name} {value:.4f}" for name, value in tested[str(best.number)].items())
    lines = [
        f"# Search of {model} on {dataset}",
        "",
        f"{len(trials)} trials: {', '.join(counts)}; the validation's {plan.metric} decides.",
        "",
        *_table(trials, plan),
        "",
        f"winner: trial {best.number}, {plan.metric} {best.value:.4f} (validation)",
        f"test, of the winner only: {test or 'eval_args.split leaves no test set'}",
    ]
    if len(tested) > 1:
        before = ", ".join(number for number in tested if number != str(best.number))
        lines.append(f"winners of this study that were tested before: trial {before}")
    shares = ", ".join(f"{key} {value:.2f}" for key, value in importance.items())
    lines.append(f"importance: {shares or 'too few finished trials to tell'}")
    charts = ["history.png", *(["importance.png"] if importance else [])]
    names = ", ".join(["trials.csv", "best.yaml", *charts])
    return [
        *lines,
        "",
        f"folder: {plan.folder} ({names}; the winner's run is {_short(plan, best)})",
        f"train it anew: {_again(plan)}",
    ]


def _table(trials: list[FrozenTrial], plan: Plan) -> list[str]:
    sign = -1 if plan.is_bigger_better else 1
    done = [one for one in trials if one.state.name == "COMPLETE"]
    done.sort(key=lambda one: (sign * one.values[0], one.number))
    keys = list(plan.space)
    rows = [
        f"| {one.number} | {one.values[0]:.4f} | "
        + " | ".join(_digits(values_of(plan, one)[key]) for key in keys)
        + f" | {one.user_attrs.get('seconds', 0):.0f} |"
        for one in done[:SHOWN]
    ]
    head = f"| trial | {plan.metric} | {' | '.join(keys)} | seconds |"
    return [head, "| " + " | ".join(["---:"] * (len(keys) + 3)) + " |", *rows]


def _digits(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _again(plan: Plan) -> str:
    return f"recbole-ext run --config_files={shlex.quote(str(plan.folder / 'best.yaml'))}"


def _short(plan: Plan, best: FrozenTrial) -> Path:
    return folder_of(plan, best.number).relative_to(plan.folder)
