"""Group 4, first half: what is in each split, and whether the splits are apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recbole_ext.diagnose.check import FAIL, OK, WARN, Section
from recbole_ext.diagnose.evaluation import are_clicks
from recbole_ext.diagnose.subject import IMPRESSION, Subject

TITLE = "Data"
SPLITS = ("train", "valid", "test")


def check(subject: Subject, section: Section) -> None:
    """Count rows, positives, groups, empty histories, overlap and duplicates; compare times."""
    for split in SPLITS:
        n = len(subject.rows(split))
        advice = f"Choose eval_args.split so that {split} has more rows: its numbers are noise."
        section.at_least(f"rows of {split}", n, 100 if split != "train" else 1000, 1, advice)
    labels = subject.labels("test")
    if subject.are_sampled or labels is None or not are_clicks(labels):
        section.skip("share of positives", "Rows have no labels that are 0 or 1, each as observed.")
    else:
        _labels(subject, section)
    _histories(subject, section)
    _apart(subject, section)
    _in_time(subject, section)


def _labels(subject: Subject, section: Section) -> None:
    shares = {}
    for split in SPLITS:
        labels = subject.labels(split)
        if labels is not None and len(labels):
            shares[split] = float((labels > 0).mean())
            advice = "Check LABEL_FIELD and threshold: a split of one class has no metric."
            one_class = FAIL if shares[split] in (0.0, 1.0) else OK
            section.flag(
                f"share of positives in {split}",
                shares[split],
                "between 0 and 1",
                one_class,
                advice,
            )
    ratio = max(shares.values()) / max(min(shares.values()), 1e-12)
    section.at_most(
        "largest share of positives, as a multiple of the smallest",
        ratio,
        1.5,
        5,
        "Split all parts alike, or calibrate on the validation: the prior of the training is not "
        "that of the test.",
    )
    rows = {name: subject.column("test", name) for name in (subject.uid, subject.label)}
    name = subject.uid
    if IMPRESSION in subject.rows("test"):
        name, rows[IMPRESSION] = IMPRESSION, subject.column("test", IMPRESSION)
    by = pd.DataFrame(rows).groupby(name)[subject.label].agg(["size", "mean"])
    section.known(f"rows of the test for each {name}, on average", float(by["size"].mean()))
    single = float(by["mean"].isin((0.0, 1.0)).mean())
    section.at_most(
        f"share of each {name} of one class in the test",
        single,
        0.5,
        0.99,
        "Read metrics by group with care: most groups have no click, or nothing else, and count "
        "nowhere.",
    )


def _histories(subject: Subject, section: Section) -> None:
    known = np.unique(subject.column("train", subject.uid))
    if subject.is_sequential:
        length = subject.column("test", subject.config["ITEM_LIST_LENGTH_FIELD"])
        empty = float((length == 0).mean())
        section.known("length of the histories of the test, on average", float(length.mean()))
    elif (history := subject.history_of("test")) is not None:
        empty = float((history == 0).all(1).mean())
        section.known(
            "length of the histories of the test, on average", (history > 0).sum(1).mean()
        )
    else:
        empty = float((~np.isin(subject.column("test", subject.uid), known)).mean())
    section.at_most(
        "share of test rows without a history",
        empty,
        0.1,
        0.9,
        "Give the model what it can tell of new users (a learned vector, popularity), or filter "
        "them and say so.",
    )
    seen = np.isin(subject.column("test", subject.iid), subject.column("train", subject.iid))
    section.at_most(
        "share of test rows whose item is not in training",
        1 - float(seen.mean()),
        0.2,
        0.95,
        "Use a model of item features: an ID embedding knows nothing of new items.",
    )


def _apart(subject: Subject, section: Section) -> None:
    n_items, pairs = subject.dataset.item_num, {}
    for split in SPLITS:
        users = subject.column(split, subject.uid)
        pairs[split] = users * n_items + subject.column(split, subject.iid)  # [R]
    overlap = float(np.isin(pairs["test"], pairs["train"]).mean())
    section.at_most(
        "share of test pairs (user, item) that are in training",
        overlap,
        0.05,
        0.5,
        "Drop repeated pairs (rm_dup_inter: first), or split anew: the test asks for what was told "
        "(unless users are to be offered again what they took).",
    )
    columns = {
        field: subject.column("train", field)
        for field in (subject.uid, subject.iid, subject.dataset.time_field, IMPRESSION)
        if field in subject.rows("train")
    }
    twice = float(pd.DataFrame(columns).duplicated().mean())
    section.at_most(
        "share of training rows that are there twice",
        twice,
        0.01,
        0.5,
        "Drop repeated rows (rm_dup_inter: first) unless they mean something.",
    )


def _in_time(subject: Subject, section: Section) -> None:
    field, name = subject.dataset.time_field, "share of test rows before their user's last training"
    if field is None or any(field not in subject.rows(split) for split in ("train", "test")):
        section.skip(name, "No time is loaded (TIME_FIELD, load_col).")
        return
    times = [
        pd.Series(subject.column(split, field)).groupby(subject.column(split, subject.uid))
        for split in ("train", "test")
    ]
    last = times[0].max().reindex(subject.column("test", subject.uid)).to_numpy()  # [R]
    early = float((subject.column("test", field) < last).mean())
    by_time = (subject.config["eval_args"] or {}).get("order") == "TO"
    severity = OK if early == 0 else FAIL if by_time else WARN
    advice = (
        "Split by time (eval_args.order: TO): of these rows the model has learned what its user "
        "did later."
    )
    section.flag(name, early, "0", severity, advice)
