"""Group 5: how much of items, rows, clicks and histories a feature covers; metrics by stratum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from recbole_ext.compare import charts
from recbole_ext.compare.item_slices import features_of, item_slices
from recbole_ext.diagnose.check import Section
from recbole_ext.diagnose.evaluation import Evaluation, compared_by
from recbole_ext.diagnose.subject import Subject
from recbole_ext.evaluation.slices import slice_metrics

TITLE = "Coverage"
MOST_ROWS = 5000
"""Rows whose histories are looked at."""
_ADVICE = (
    "Encode the missing ones (recbole-ext features), or mask them and keep the ID embedding: where "
    "a feature is missing the model sees nothing of it."
)


def check(subject: Subject, section: Section) -> None:
    """Look at each stored feature of the run, then at the test by parts."""
    names = features_of(subject.config.resolved)
    if not names:
        reason = f"{subject.config['model']} takes no stored feature of the items."
        section.skip("coverage of features", reason)
    shown = {}
    for name in names:
        present = subject.stored(name)[0].present  # [N]
        for what, share in _shares(subject, present).items():
            label = f"{Path(name).name}: share of {what}"
            section.at_least(label, share, 0.5, 0.1, _ADVICE)
            shown[label] = (share, share, share)
    if shown:
        section.figures.append(charts.bars("What the features cover", shown))
    _strata(subject, section, names)


def _shares(subject: Subject, present: np.ndarray) -> dict[str, float]:
    """Return what -> share of it that a feature covers, by who has it [N]."""
    found = {"items": float(present[1:].mean())}
    for split in ("train", "valid", "test"):
        items, labels = subject.column(split, subject.iid), subject.labels(split)
        if not len(items):
            continue
        found[f"rows of {split}"] = float(present[items].mean())
        if subject.has_labels and labels is not None and (labels > 0).any():
            found[f"clicks of {split}"] = float(present[items[labels > 0]].mean())
        field = subject.iid + str(subject.config["LIST_SUFFIX"])
        if subject.is_sequential and field in subject.rows(split):
            some = np.linspace(0, len(items) - 1, min(MOST_ROWS, len(items))).astype(int)
            item_seq = subject.rows(split)[torch.from_numpy(some)][field].numpy()  # [R, L]
            if (slots := item_seq[item_seq > 0]).size:
                found[f"history slots of {split}"] = float(present[slots].mean())
    return found


def _strata(subject: Subject, section: Section, names: list[str]) -> None:
    own = subject.own
    tokens = pd.Series(np.asarray(subject.dataset.field2id_token[subject.iid], str)[own.items])
    counts = dict(
        zip(subject.dataset.field2id_token[subject.iid], subject.seen.tolist(), strict=True)
    )
    slices = item_slices(tokens, counts, names, subject.config.resolved)
    if own.ranks is not None:
        cut = max(subject.config["topk"])
        table = slice_metrics(own.ranks, slices, [cut])
        values = {name: (row["n"], row[f"ndcg@{cut}"]) for name, row in table.iterrows()}
    else:
        values = {name: (float(mask.sum()), _of_rows(own, mask)) for name, mask in slices.items()}
    metric = "AUC" if own.is_binary else own.name  # of all rows of a part, whatever impression
    for name, (n, value) in values.items():
        if np.isnan(value):
            section.skip(f"{metric} of {name}", f"It has {int(n)} rows, too few for a metric.")
        else:
            section.known(f"{metric} of {name} ({int(n)} rows)", value)
    bars = {name: (v, v, v) for name, (_, v) in values.items() if not np.isnan(v)}
    if bars:
        section.figures.append(charts.bars(f"Test {metric} by part", bars))


def _of_rows(own: Evaluation, mask: np.ndarray) -> float:
    assert own.labels is not None
    few = 2 if own.is_binary else 1  # classes of clicks, or ratings
    if len(np.unique(own.labels[mask])) < few:
        return float("nan")
    return compared_by(own.scores[mask], own.labels[mask], None)[1]
