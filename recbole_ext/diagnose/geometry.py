"""Group 7: where the scores of positives and of others lie, and whether they can reach the prior.

A model of clicks whose log-odds cannot get down to logit(prior), as a sigmoid of a bare cosine,
cannot be calibrated, and learns to squeeze all its scores into the end of their range.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.compare import charts
from recbole_ext.diagnose.check import FAIL, OK, WARN, Section
from recbole_ext.diagnose.subject import Subject

TITLE = "Score geometry"
SATURATED = 12.0
"""Log-odds beyond which a sigmoid has hardly a gradient (6e-6)."""
BINS = 30
ENCODERS = ("SASRec", "GRU4Rec", "NARM", "STAMP")
"""RecBole's models whose ``forward`` gives the vector of a history."""


def check(subject: Subject, section: Section) -> None:
    """Compare positives with others: by score, by log-odds, by cosine."""
    own = subject.own
    positives = own.scores if own.labels is None else own.scores[own.labels > 0]
    others = own.negatives
    if len(positives) and len(others):
        _apart(section, positives.astype(float), others.astype(float))
    is_observed = own.is_binary and not subject.are_sampled and _are_probabilities(own.scores)
    if is_observed and own.labels is not None:
        _log_odds(section, own.scores, own.labels)
    elif not subject.has_labels:
        _softmax(section, subject.probed[:, 1:].double())
    _cosines(subject, section)


def _apart(section: Section, positives: np.ndarray, others: np.ndarray) -> None:
    positives, others = (x[np.isfinite(x)] for x in (positives, others))
    spread = float(np.sqrt((positives.var() + others.var()) / 2)) or 1e-12
    section.at_least(
        "mean score of positives above that of others, in standard deviations",
        float(positives.mean() - others.mean()) / spread,
        0.3,
        -2 / len(positives) ** 0.5,  # two standard errors below nothing
        "Look at loss and negatives: positives score hardly higher than what is drawn by chance.",
    )
    both = np.concatenate([positives, others])
    low, high = float(both.min()), float(both.max())
    section.known("range of the scores", f"{low:.4g} to {high:.4g}")
    if high > low:
        section.figures.append(_histogram({"positives": positives, "others": others}, low, high))


def _histogram(series: dict[str, np.ndarray], low: float, high: float) -> str:
    shown = {}
    for name, values in series.items():
        counts, edges = np.histogram(values, BINS, (low, high))
        shares = counts / len(values)  # [BINS]
        middle = (edges[1:] + edges[:-1]) / 2  # [BINS]
        shown[name] = [[(float(x), float(y)) for x, y in zip(middle, shares, strict=True)]]
    return charts.lines("Scores of positives and of others", "score", "share", shown, [*shown])


def _are_probabilities(scores: np.ndarray) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _log_odds(section: Section, scores: np.ndarray, labels: np.ndarray) -> None:
    tiny = 1e-7
    odds = np.log(scores.clip(tiny, 1 - tiny)) - np.log1p(-scores.clip(tiny, 1 - tiny))  # [n]
    prior = float(np.clip(labels.mean(), tiny, 1 - tiny))
    wanted = float(np.log(prior / (1 - prior)))
    low, high = np.quantile(odds, (0.001, 0.999))
    name = f"range of the log-odds, around that of the prior ({wanted:.3f})"
    inside = low <= wanted <= high
    advice = (
        "Add a learned bias that starts at logit(prior) and a learned temperature, score = exp(t) "
        "cos + b, and no activation before the cosine: no score is as low, or as high, as the "
        "prior asks for."
    )
    severity = OK if inside else FAIL
    section.flag(name, f"{low:.3f} to {high:.3f}", "on both sides of it", severity, advice)
    shift = float(odds.mean() - wanted)
    section.flag(
        "mean of the log-odds, less that of the prior",
        shift,
        "within 1 (FAIL beyond 3)",
        OK if abs(shift) <= 1 else WARN if abs(shift) <= 3 else FAIL,
        "Start the bias of the output at logit(prior), and leave out pos_weight or sampling where "
        "probabilities are meant.",
    )
    section.at_least(
        "width of the log-odds",
        float(high - low),
        0.5,
        0.05,
        "Let the model scale its scores (a learned temperature): their range is too small to tell "
        "rows apart.",
    )
    saturated = float((np.abs(odds) > SATURATED).mean())
    section.at_most(
        f"share of log-odds beyond {SATURATED:g}",
        saturated,
        0.01,
        0.5,
        "Lower the temperature's start, or normalise before the product: the sigmoid is saturated, "
        "and gives no gradient.",
    )


def _softmax(section: Section, scores: Tensor) -> None:
    """Look at scores [B, N] as a softmax would: one item may take all."""
    scores = scores.masked_fill(~scores.isfinite(), -torch.inf)
    most = scores.softmax(1).amax(1)  # [B]
    section.at_most(
        "share of users whose softmax is one item (> .99)",
        (most > 0.99).double().mean().item(),
        0.2,
        np.inf,
        "Raise the temperature or the weight decay: scores are so far apart that a softmax over "
        "them has no gradient.",
    )


@torch.no_grad()
def pair_vectors(subject: Subject) -> tuple[Tensor, Tensor] | None:
    """Return the vectors of the probe's users [B, D] and of all items [N, D], where there are."""
    model, rows = subject.model, subject.probe
    encoder = getattr(model, "encoder", None)
    table = getattr(model, "item_embedding", None) or getattr(encoder, "item_embedding", None)
    if hasattr(model, "vectors"):
        users, items = model.vectors()  # [U, D], [N, D]
        return users[rows[subject.uid]], items
    if hasattr(model, "encode_items"):
        ids = torch.arange(subject.dataset.item_num, device=rows[subject.iid].device)  # [N]
        return model.encode(rows), model.encode_items(ids)
    if not isinstance(table, nn.Embedding):
        return None
    if isinstance(getattr(model, "user_embedding", None), nn.Embedding):
        return model.user_embedding(rows[subject.uid]), table.weight
    if subject.config["model"] in ENCODERS:
        return model(rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN]), table.weight
    return (model.encode(rows), table.weight) if hasattr(model, "encode") else None


def _cosines(subject: Subject, section: Section) -> None:
    found = pair_vectors(subject)
    if found is None or found[0].shape[-1] != found[1].shape[-1]:
        name = subject.config["model"]
        section.skip("cosines of positives", f"{name} has no vector of users, or none of items.")
        return
    users, items = (F.normalize(x.double(), dim=-1) for x in found)  # [B, D], [N, D]
    cosine = users @ items.T  # [B, N]
    target = subject.probe[subject.iid]  # [B]
    mine = cosine.gather(1, target.unsqueeze(1)).squeeze(1)  # [B]
    if subject.label in subject.probe:
        mine = mine[subject.probe[subject.label] > 0]
    gain = (mine.mean() - cosine[:, 1:].mean()).item() if len(mine) else np.nan
    name = f"mean cosine with the positive ({mine.mean().item():.3f}) above that with all items"
    advice = (
        "Look at the loss and its negatives: users do not lie nearer to what they take than to "
        "anything else."
    )
    section.at_least(name, gain, 0.02, -np.inf, advice)
