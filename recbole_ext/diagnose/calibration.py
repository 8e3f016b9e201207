"""Group 9: whether a predicted probability is the share of clicks that it says."""

from __future__ import annotations

import numpy as np

from recbole_ext.compare import charts
from recbole_ext.diagnose.check import FAIL, OK, WARN, NotApplicable, Section
from recbole_ext.diagnose.subject import Subject

TITLE = "Calibration"
BINS = 15
_RESCALE = (
    "Fit a temperature and a bias on the validation (Platt), and leave out pos_weight, focal loss "
    "and sampled negatives where probabilities are meant."
)


def reliability(scores: np.ndarray, labels: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return mean prediction, share of clicks and number of rows of each bin, [bins, 3].

    Bins have the same number of rows, so that rare clicks are told apart.

    Args:
        scores: Predicted probabilities [n].
        labels: 1 where it was clicked and 0 where not [n].
        bins: How many; fewer where there are fewer rows.
    """
    order = np.argsort(scores, kind="stable")  # [n]
    parts = np.array_split(order, min(bins, len(order)))
    return np.array([(scores[part].mean(), labels[part].mean(), len(part)) for part in parts])


def calibration_error(scores: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error (Naeini et al., AAAI 2015), in bins of equal size."""
    table = reliability(scores, labels, bins)  # [bins, 3]
    return float((np.abs(table[:, 0] - table[:, 1]) * table[:, 2]).sum() / table[:, 2].sum())


def check(subject: Subject, section: Section) -> None:
    """Compare predicted with observed shares of clicks, and with the prior alone."""
    own = subject.own
    if not own.is_binary or own.labels is None:
        raise NotApplicable("scores rank items, or predict ratings: they are no probabilities")
    if subject.are_sampled:
        raise NotApplicable("negatives of the test are drawn: there is no share of clicks to meet")
    scores, labels = own.scores, own.labels
    if ((scores < 0) | (scores > 1)).any():
        raise NotApplicable("predictions are not between 0 and 1: they are no probabilities")
    prior = float(labels.mean())
    error = calibration_error(scores, labels)
    section.at_most("expected calibration error", error, 0.05, 0.2, _RESCALE)
    ratio = float(scores.mean()) / max(prior, 1e-12)
    severity = OK if 0.8 <= ratio <= 1.25 else WARN if 1 / 3 <= ratio <= 3 else FAIL
    name = f"mean prediction, as a multiple of the share of clicks ({prior:.4f})"
    section.flag(name, ratio, "0.8 to 1.25 (FAIL beyond 0.33 to 3)", severity, _RESCALE)
    tiny = 1e-7
    p = scores.clip(tiny, 1 - tiny)  # [n]
    loss = -float((labels * np.log(p) + (1 - labels) * np.log1p(-p)).mean())
    q = float(np.clip(prior, tiny, 1 - tiny))
    least = -(prior * np.log(q) + (1 - prior) * np.log1p(-q))
    section.at_least(
        f"log loss saved against the prior alone ({least:.4f})",
        float(least - loss),
        0.0,
        -0.2 * float(least),
        "Calibrate before you use probabilities: the share of clicks, told for every row, has a "
        "lower log loss.",
    )
    table = reliability(scores, labels)  # [bins, 3]
    ideal = [(float(x), float(x)) for x in (table[:, 0].min(), table[:, 0].max())]
    lines = {"model": [[(float(x), float(y)) for x, y, _ in table]], "ideal": [ideal]}
    title = "Share of clicks by predicted probability"
    section.figures.append(charts.lines(title, "predicted", "observed", lines, [*lines]))
