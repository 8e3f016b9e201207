"""Group 2: predictions are numbers, differ, are personal, and are those of the run's test."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

from recbole_ext.diagnose.check import FAIL, OK, WARN, Section
from recbole_ext.diagnose.subject import Subject
from recbole_ext.modules.top import top_items

TITLE = "Predictions"
TOP = 10
_CONSTANT = (
    "Look for dead activations, a collapsed embedding (see embeddings) or too strong a "
    "regularisation: the output hardly depends on the input."
)


def check(subject: Subject, section: Section) -> None:
    """Look at the scores of some rows of the test, then at the whole test."""
    scores = subject.probed
    finite = scores if scores.dim() == 1 else scores[:, 1:]  # the padding item left out
    section.at_most(
        "share of scores that are no numbers",
        1 - finite.isfinite().float().mean().item(),
        0,
        0,
        "Train anew with a lower learning_rate or clip_grad_norm: training has diverged.",
    )
    if finite.isnan().any():
        return
    if subject.has_labels:
        _of_rows(scores.double(), section)
    else:
        _of_lists(scores, section)
    _is_the_tests(subject, section)


def _of_rows(scores: Tensor, section: Section) -> None:
    section.at_least("standard deviation over rows", scores.std().item(), 0.01, 1e-4, _CONSTANT)
    distinct = len(scores.unique()) / len(scores)
    section.at_least("share of distinct predictions", distinct, 0.5, 0.02, _CONSTANT)
    if ((scores < 0) | (scores > 1)).any():
        return
    share = (scores > 0.5).double().mean().item()
    severity = WARN if share in (0.0, 1.0) else OK
    advice = (
        "Judge by AUC and log loss and not by accuracy, and see calibration: every row is predicted"
        " to be of the same class, which is the rule of the majority."
    )
    section.flag("share of rows predicted as clicks", share, "between 0 and 1", severity, advice)


def _of_lists(scores: Tensor, section: Section) -> None:
    """Look at scores [B, N]."""
    items = scores[:, 1:].double()  # [B, N - 1]
    flat = (items.std(1) <= 1e-6 * items.abs().mean(1).clamp_min(1e-6)).double().mean().item()
    name = "share of users for whom all items score alike"
    section.at_most(name, flat, 0, 0.1, _CONSTANT)
    top = top_items(scores, min(TOP, items.shape[1]))  # [B, K]
    lists = len(torch.sort(top, 1).values.unique(dim=0)) / len(top)
    personal = (
        "Check that the user, or the history, reaches the score: a list that is the same for all "
        "is a popularity list."
    )
    one = 1.5 / len(top)  # a single list for all of them
    section.at_least(f"share of different top {TOP} lists", lists, 0.1, one, personal)
    covered = len(top.unique()) / items.shape[1]
    narrow = (
        "Use harder or popularity-corrected negatives, or less regularisation: a few items fill all"
        " lists."
    )
    section.at_least(f"share of items in any top {TOP}", covered, 0.02, -np.inf, narrow)


def _is_the_tests(subject: Subject, section: Section) -> None:
    """Compare the metrics of the test with those that the run has kept."""
    found = subject.own.metrics
    if subject.own.ties is not None:
        share = float((subject.own.ties > 0).mean())
        tied = (
            "Score in float32 and without clamping or rounding: ranks among equal scores are a "
            "matter of chance."
        )
        section.at_most("share of positives that tie with another item", share, 0.05, 0.5, tied)
    path = subject.run.folder / "result.json"
    if not path.is_file():
        section.skip("metrics as in result.json", "The run was not finished: no result.json.")
        return
    kept = json.loads(path.read_text(encoding="utf-8"))["test"]
    apart = [abs(found[name] - value) for name, value in kept.items() if name in found and value]
    worst = max(apart, default=0.0)
    severity = OK if worst <= 1e-3 else FAIL
    advice = (
        "Restore the data, the features and best.pt as they were when the run was made: they give "
        "another test now."
    )
    section.flag("largest difference from result.json", worst, "<= 0.001", severity, advice)
