"""Group 4, second half: probes for a target that the model is told before it is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from recbole_ext.compare.item_slices import features_of
from recbole_ext.diagnose.check import FAIL, OK, WARN, Section
from recbole_ext.diagnose.evaluation import are_clicks
from recbole_ext.diagnose.scorers import click_rates
from recbole_ext.diagnose.subject import Subject
from recbole_ext.features.manifest import MAY_LEAK

TITLE = "Leakage probes"
_TELLS = (
    "Leave the field out (unload_col), or make it of what was known before: it tells the label "
    "nearly alone."
)


def check(subject: Subject, section: Section) -> None:
    """Change the target and see whether scores move; ask each field alone; look at histories."""
    _reads_its_target(subject, section)
    if subject.has_labels:
        _fields_alone(subject, section)
    if subject.is_sequential:
        _target_in_history(subject, section)
    _told_features(subject, section)


def _reads_its_target(subject: Subject, section: Section) -> None:
    """Give the rows other targets: a model that ranks, or predicts a label, must not notice."""
    name = "largest change of a score when the target is another"
    field = subject.label if subject.has_labels else subject.iid
    scores, rows = subject.probed, subject.probe
    if field not in rows:
        section.skip(name, f"The rows of the test have no {field}.")
        return
    kept = rows[field]
    rows[field] = 1 - kept if subject.has_labels else kept.roll(1)
    try:
        other = subject.scores(rows)
    finally:
        rows[field] = kept
    finite = scores.isfinite() & other.isfinite()
    change = (scores - other)[finite].abs().max().item() if finite.any() else 0.0
    width = scores[finite].double().std().item() if finite.any() else 1.0
    section.flag(
        name,
        change,
        "0",
        OK if change <= 1e-4 * max(width, 1e-6) else FAIL,
        f"Do not read {field} in full_sort_predict or predict: it is the answer.",
    )


def _fields_alone(subject: Subject, section: Section) -> None:
    """Rank the test by each field of its rows: a number as it is, a token by its click rate."""
    labels, known = subject.labels("test"), (subject.uid, subject.iid, subject.label)
    if labels is None or not are_clicks(labels) or labels.std() == 0:
        section.skip("AUC of a field alone", "The labels of the test are not of two classes.")
        return
    found = {}
    one = subject.rows("test")[torch.arange(1)]  # of all rows a history would be a table
    for field in one.columns:
        if field in known or one[field].dim() > 1:
            continue
        values = subject.column("test", field)
        if not np.issubdtype(values.dtype, np.floating):
            rows, mine = subject.rows("train")[field], subject.labels("train")
            size = int(max(rows.max(), values.max())) + 1
            values = click_rates(rows, torch.from_numpy(mine), size)[values].numpy()
        auc = float(roc_auc_score(labels, values))
        found[field] = max(auc, 1 - auc)
    for field, auc in found.items():
        section.at_most(f"AUC of {field} alone", auc, 0.9, 0.98, _TELLS)
    if not found:
        section.skip("AUC of a field alone", "Rows have no other field than user, item and label.")


def _target_in_history(subject: Subject, section: Section) -> None:
    rows, suffix = subject.probe, subject.config["LIST_SUFFIX"]
    if subject.iid not in rows or subject.iid + suffix not in rows:
        section.skip("target in the history", "The rows have no history of items.")
        return
    target, item_seq = rows[subject.iid], rows[subject.iid + suffix]  # [B], [B, L]
    length = rows[subject.config["ITEM_LIST_LENGTH_FIELD"]].clamp_min(1)  # [B]
    last = item_seq.gather(1, (length - 1).unsqueeze(1)).squeeze(1)  # [B]
    is_last = (last == target).float().mean().item()
    advice = (
        "Cut histories before the target, or drop immediate repeats: the last item of the history "
        "is what is asked for."
    )
    section.at_most("share of targets that end their history", is_last, 0.1, 0.9, advice)
    within = (item_seq == target.unsqueeze(1)).any(1).float().mean().item()
    section.known("share of targets that are in their history", within)


def _told_features(subject: Subject, section: Section) -> None:
    for name in features_of(subject.config.resolved):
        notes = subject.stored(name)[1].manifest.notes
        severity = WARN if MAY_LEAK in notes else OK
        advice = "Build the feature of what was known before the test (a cut-off in time)."
        said = "may know the test" if severity == WARN else "none known"
        section.flag(f"leak by {Path(name).name}", said, "none known", severity, advice)
