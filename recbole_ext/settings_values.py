"""Checks what settings say to RecBole: entries of mappings, words it knows, metrics it computes.

RecBole finds most of these mistakes too, but after the data are loaded, or it goes on with
something else (an unknown ``learner`` becomes Adam).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from recbole.evaluator import metric_types
from recbole.evaluator.register import metric_information

from recbole_ext.types import UserError, suggest

_ENTRIES = {
    "eval_args": ("split", "order", "group_by", "mode"),
    "train_neg_sample_args": ("distribution", "sample_num", "alpha", "dynamic", "candidate_num"),
    "clip_grad_norm": ("max_norm", "norm_type", "error_if_nonfinite", "foreach"),
}
_LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")
_NUMBER = r"-?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf)"
_LEAVE_ONE_OUT = ("valid_and_test", "valid_only", "test_only")
_INTERVAL = re.compile(rf"\s*[\[(]\s*{_NUMBER}\s*,\s*{_NUMBER}\s*[\])]\s*")
_MODE = re.compile(r"full|labeled|(uni|pop)[1-9]\d*")


def check_values(settings: Mapping[str, Any]) -> None:
    """Refuse values that RecBole would refuse late, unclearly, or not at all.

    Raises:
        UserError: Naming the key, the value given and what it takes.
    """
    for key, entries in _ENTRIES.items():
        for entry in settings.get(key) or ():
            if entry not in entries:
                raise UserError(
                    f"{key} has no entry '{entry}'{suggest(str(entry), entries)} "
                    f"(it has: {', '.join(entries)})"
                )
    _one_of("learner", str(settings["learner"]).lower(), _LEARNERS)
    _check_eval_args(settings["eval_args"] or {})
    _check_intervals(settings)
    negatives = settings.get("train_neg_sample_args") or {}
    distributions = ("uniform", "popularity", None)
    _one_of("train_neg_sample_args.distribution", negatives.get("distribution"), distributions)
    for key in ("epochs", "stopping_step", "eval_step", "worker", "seed", "weight_decay"):
        if isinstance(settings.get(key), (int, float)) and settings[key] < 0:
            raise UserError(f"{key} must be 0 or more, not {settings[key]!r}")
    if isinstance(settings.get("seed"), int) and settings["seed"] >= 2**32:
        raise UserError(f"seed must be below 2**32 (numpy's limit), not {settings['seed']}")


def check_metrics(settings: Mapping[str, Any]) -> None:
    """Refuse unknown metrics and a ``valid_metric`` that will not be computed.

    Raises:
        UserError: Naming the metric and those that exist.
    """
    metrics = settings["metrics"]
    metrics = [metrics] if isinstance(metrics, str) else metrics
    if not isinstance(metrics, (list, tuple)) or not metrics:
        raise UserError(f"metrics takes a name or a list of names, not {metrics!r}")
    topk = settings["topk"]
    topk = [topk] if isinstance(topk, int) else topk
    if not isinstance(topk, (list, tuple)) or not all(_is_positive(k) for k in topk):
        raise UserError(
            f"topk takes a positive integer or a list of them, not {settings['topk']!r}"
        )
    for metric in metrics:
        if str(metric).lower() not in metric_types:
            raise UserError(
                f"metrics: there is no metric '{metric}'{suggest(str(metric), metric_types)} "
                f"(there are: {', '.join(sorted(metric_types))})"
            )
    if len({metric_types[str(metric).lower()] for metric in metrics}) > 1:
        raise UserError(
            f"metrics {metrics} mix ranking and value metrics, which need different evaluations; "
            "use one kind"
        )
    computed = metric_names(metrics, topk)
    if str(settings["valid_metric"]).lower() not in [name.lower() for name in computed]:
        raise UserError(
            f"valid_metric {settings['valid_metric']!r} is not computed; set it too, to one that "
            f"metrics and topk give: {', '.join(computed)}"
        )


def _check_eval_args(eval_args: Mapping[str, Any]) -> None:
    _one_of("eval_args.order", eval_args.get("order", "RO"), ("RO", "TO"))
    _one_of("eval_args.group_by", eval_args.get("group_by"), ("user", "none", None))
    split = eval_args.get("split", {"RS": [1]})
    kind, part = next(iter(split.items())) if isinstance(split, dict) and split else (None, None)
    three = isinstance(part, list) and len(part) == 3
    ratios = three and all(isinstance(ratio, (int, float)) for ratio in part or ())
    good = (kind in ("RS", "TS") and ratios) or (kind == "LS" and part in _LEAVE_ONE_OUT)
    if not good or len(split) != 1:
        raise UserError(
            "eval_args.split takes {RS: [0.8, 0.1, 0.1]} (random), {TS: [0.8, 0.1, 0.1]} (time) "
            f"or {{LS: valid_and_test}} (leave one out), not {split!r}"
        )
    mode = eval_args.get("mode", "full")
    for value in mode.values() if isinstance(mode, dict) else [mode]:
        if not _MODE.fullmatch(str(value)):
            raise UserError(
                "eval_args.mode takes full, labeled, uni<number> or pop<number>, as in uni100, "
                f"or a mapping of valid and test to one of these, not {value!r}"
            )


def _check_intervals(settings: Mapping[str, Any]) -> None:
    """Refuse intervals that RecBole would pass over with a warning."""
    of_values = settings.get("val_interval") or {}
    given = {f"val_interval.{field}": value for field, value in of_values.items()}
    given.update((key, value) for key, value in settings.items() if key.endswith("_num_interval"))
    for key, value in given.items():
        if value is None or isinstance(value, list):  # a list of tokens to keep
            continue
        if not all(_INTERVAL.fullmatch(part) for part in str(value).split(";")):
            raise UserError(f"{key} takes an interval, as in '[5,inf)' or '(0,1]', not {value!r}")


def _one_of(key: str, value: Any, words: tuple[str | None, ...]) -> None:
    if value not in words:
        shown = ", ".join(word for word in words if word is not None)
        raise UserError(f"{key} takes one of {shown}, not {value!r}")


def metric_names(metrics: Iterable[str], topk: Iterable[int]) -> list[str]:
    """Return the names under which metrics are reported: with ``@k`` what looks at the list."""
    names: list[str] = []
    for metric in metrics:
        looks_at_list = {"rec.topk", "rec.items", "topk"} & {*metric_information[metric.lower()]}
        names += [f"{metric}@{k}" for k in topk] if looks_at_list else [metric]
    return names


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
