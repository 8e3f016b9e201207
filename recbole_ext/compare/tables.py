"""The tables of a report: quality, differences, cost, and what was equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recbole_ext.compare.analysis import Analysis
from recbole_ext.compare.collect import Done
from recbole_ext.compare.protocol import FILTERS, SHOWN_KEYS
from recbole_ext.compare.statistics import bootstrap_interval, holm, sign_flip_p

Table = list[list[str]]


def quality(data: Analysis) -> Table:
    """Return validation and test metrics: mean over seeds, and standard deviation of two or more.

    The metric of validation is RecBole's number, which is rounded.
    """
    table = [["model", "seeds", f"validation {data.valid_metric}", *data.metrics]]
    for name, runs in data.runs.items():
        valid = np.array([one.result["best_valid"].get(data.valid_metric) for one in runs], float)
        means = pd.DataFrame([one.users[data.metrics].mean() for one in runs])  # [S, metrics]
        cells = map(_mean_and_spread, [valid, *means.to_numpy().T])
        table.append([name + (" †" if name in data.tied else ""), str(len(runs)), *cells])
    return table


def ties(data: Analysis) -> list[str]:
    """Return a footnote for each model whose scores tie so often that it shows."""
    return [
        f"† {name}: items of its lists share scores. Here they share the middle of their places; "
        "RecBole's topk, and so result.json, takes them as they happen to lie: "
        + ", ".join(f"{m} {theirs:.4f} instead of {ours:.4f}" for m, (theirs, ours) in both.items())
        + "."
        for name, both in data.tied.items()
    ]


def differences(data: Analysis, pairs: Sequence[tuple[str, str]], head: str) -> Table:
    """Return, for each (model, other), the gain, its interval, and p corrected for their number."""
    gains = {(a, b): g for a, b in pairs if (g := data.gains(a, b)) is not None}
    adjusted = holm([sign_flip_p(gain) for gain in gains.values()])
    p_values = dict(zip(gains, adjusted, strict=True))
    table = [[head, f"gain in {data.metric}", "95 % interval", "p (Holm)"]]
    for a, b in pairs:
        if (a, b) not in gains:
            table.append([_pair(head, a, b), "no seed in common", "", ""])
            continue
        low, high = bootstrap_interval(gains[a, b])
        table.append(
            [
                _pair(head, a, b),
                f"{gains[a, b].mean():+.4f}",
                f"{low:+.4f} to {high:+.4f}",
                f"{p_values[a, b]:.4f}",
            ]
        )
    return table


def fewer_seeds(data: Analysis, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a sentence where gains are of fewer seeds than the means of :func:`quality`."""
    found = []
    for a, b in pairs:
        common = data.common_seeds(a, b)
        if common and any(len(data.runs[name]) > len(common) for name in (a, b)):
            found.append(f"{a} and {b}: {', '.join(map(str, common))}")
    if not found:
        return []
    return [
        "A gain is of the seeds that both have, which are fewer than those of the means above for "
        f"{'; '.join(found)}."
    ]


def by_item(data: Analysis, slices: Mapping[str, np.ndarray]) -> Table:
    """Return the metric of the differences on parts of the test, over seeds as in :func:`quality`.

    Every positive counts by itself, as if it were its user's only one.

    Args:
        data: The runs.
        slices: Name -> which positives [P]; empty ones are left out.
    """
    shown = {name: mask for name, mask in slices.items() if mask.any()}
    table = [["model", *(f"{name}: {mask.sum()}" for name, mask in shown.items())]]
    for name, runs in data.runs.items():
        values = [one.positives[data.metric].to_numpy() for one in runs]  # S of [P]
        by_seed = [[value[mask].mean() for value in values] for mask in shown.values()]
        table.append([name, *map(_mean_and_spread, by_seed)])
    return table


def _mean_and_spread(values: Sequence[float]) -> str:
    """Return the mean over seeds, and the standard deviation of two or more."""
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    mean = np.mean(values)
    return "-" if np.isnan(mean) else f"{mean:.4f}{spread}"


def _pair(head: str, a: str, b: str) -> str:
    return b if head.endswith("over") else a


def cost(data: Analysis) -> Table:
    """Return seconds, epochs, parameters and memory, averaged over seeds."""
    table = [["model", "training seconds", "with warm start", "epochs", "parameters", "peak GiB"]]
    has_gpu = any(k.endswith("_gpu") for r in _all(data) for k in r.result["peak_memory_gib"])
    if has_gpu:
        table[0].append("peak GiB, GPU")
    for name, runs in data.runs.items():
        n_parameters = runs[0].result["n_parameters"]
        in_all = np.mean([one.seconds_in_all for one in runs])
        row = [
            name,
            f"{np.mean([one.seconds for one in runs]):.1f}",
            "unknown" if np.isnan(in_all) else f"{in_all:.1f}",
            f"{np.mean([one.n_epochs for one in runs]):.1f}",
            "-" if n_parameters is None else f"{n_parameters:,}",
            f"{_peak(runs, False):.2f}",
        ]
        table.append([*row, f"{_peak(runs, True):.2f}"] if has_gpu else row)
    return table


def going_on(data: Analysis) -> list[str]:
    """Return a sentence on those whose cost is only what was added to another run."""
    names = [name for name, runs in data.runs.items() if any(one.start.n_epochs for one in runs)]
    if not names:
        return []
    return [
        f"{', '.join(names)}: epochs and training seconds are those after the run that goes on; "
        "what it had before is its warm start."
    ]


def _peak(runs: Sequence[Done], gpu: bool) -> float:
    found = [
        value
        for one in runs
        for phase, value in one.result["peak_memory_gib"].items()
        if phase.endswith("_gpu") == gpu
    ]
    return max(found, default=0.0)


def equal(data: Analysis) -> Table:
    """Return what was the same for all models, and what was not."""
    settings = data.settings
    args = settings["eval_args"]
    one = next(iter(_all(data)))
    filters = [f"{key}: {settings[key]}" for key in FILTERS if settings.get(key) is not None]
    table = [
        ["", "value"],
        [
            "data",
            f"fingerprint {one.result['dataset_fingerprint'][:12]}, {len(one.users)} test users",
        ],
        ["filters", ", ".join(filters) or "none"],
        ["split", f"{args['split']}, order {args['order']}, by {args['group_by']}"],
        ["candidates", "all items" if args["mode"] == "full" else f"mode {args['mode']}"],
        [
            "masking (mask_history)",
            "a user's earlier items are left out of the ranking"
            if settings["mask_history"]
            else "none: a user's earlier items are ranked too",
        ],
        ["early stopping and choice of the epoch", _by_model(data, _choice)],
        [
            "tuning budget",
            "none: no settings were searched, each model has those of its files and yours"
            + _variants(data)
            + _calibrated(data),
        ],
    ]
    for key in SHOWN_KEYS:
        table.append([_LABELS.get(key, key), _by_model(data, _setting(key))])
    table.append(["starts from", _by_model(data, lambda one: one.start.text)])
    table.append(["versions", _by_model(data, _versions)])
    return table


_LABELS = {
    "epochs": "most epochs",
    "stopping_step": "patience (stopping_step), in validations",
    "accelerate": "accelerate (same function, other random numbers than RecBole's)",
}


def _setting(key: str) -> Callable[[Done], Any]:
    return lambda one: one.settings.get(key)


def _choice(one: Done) -> str:
    has_validation = bool(one.result["best_valid"])
    return (
        f"{one.settings['valid_metric']} on validation"
        if has_validation
        else "none: the last epoch"
    )


def _versions(one: Done) -> str:
    names = ("recbole", "torch", "recbole-ext")
    return ", ".join(f"{n} {one.result['versions'].get(n, '?')}" for n in names)


def _variants(data: Analysis) -> str:
    models = [
        runs[0].row["model"]
        for name, runs in data.runs.items()
        if name != runs[0].row["model"] and not data.is_control(name)
    ]
    counts = ", ".join(f"{n} of {model}" for model, n in Counter(models).items())
    return f"; variants with other settings are shown: {counts}" if counts else ""


def _calibrated(data: Analysis) -> str:
    names = [
        name
        for name, runs in data.runs.items()
        if runs[0].result.get("retrieval", {}).get("is_calibrated")
    ]
    return f" ({', '.join(names)}: the mix is chosen on validation)" if names else ""


def _by_model(data: Analysis, value: Callable[[Done], Any]) -> str:
    """Return a value that all runs have, or each with those that have it, the usual one last.

    Where the seeds of a name have several, which may be so of a control, they are named.
    """
    names: dict[str, dict[str, None]] = {}
    for name, runs in data.runs.items():
        found = [str(value(one)) for one in runs]
        for one, what in zip(runs, found, strict=True):
            who = name if len(set(found)) == 1 else f"{name} (seed {one.row['seed']})"
            names.setdefault(what, {})[who] = None
    if len(names) == 1:
        return f"{next(iter(names))} for all"
    *few, (usual, _) = sorted(names.items(), key=lambda pair: len(pair[1]))
    return "; ".join([*(f"{what}: {', '.join(who)}" for what, who in few), f"{usual}: the others"])


def _all(data: Analysis) -> list[Done]:
    return [one for runs in data.runs.values() for one in runs]
