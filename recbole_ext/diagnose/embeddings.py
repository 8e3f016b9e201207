"""Group 6: the tables of ids and features: numbers, zeros, doubles, lengths, directions, rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recbole_ext.compare.item_slices import features_of
from recbole_ext.diagnose.baselines import vectors as feature_vectors
from recbole_ext.diagnose.check import WARN, NotApplicable, Section
from recbole_ext.diagnose.modalities import tables_of
from recbole_ext.diagnose.subject import Subject
from recbole_ext.features.inspect import SAMPLE, shape_of

TITLE = "Embeddings"


def check(subject: Subject, section: Section) -> None:
    """Look at each table that has vectors of two numbers or more, and at each stored feature."""
    found = {
        name: table.get_parameter("weight").detach()[1:]  # the padding left out
        for name, table in tables_of(subject.model).items()
        if isinstance(table, nn.Embedding)
    }
    for name in features_of(subject.config.resolved):
        present = torch.from_numpy(subject.stored(name)[0].present)  # [N]
        found[f"feature {Path(name).name}"] = feature_vectors(subject, name)[present]
    tables = {name: x for name, x in found.items() if x.shape[-1] > 1 and len(x) > 1}
    if not tables:
        raise NotApplicable(f"{subject.config['model']} has no table of vectors")
    for name, vectors in tables.items():
        _table(section, name, vectors.float())


def _table(section: Section, name: str, vectors: Tensor) -> None:
    """Look at vectors [n, D]."""
    bad = float((~vectors.isfinite().all(1)).float().mean())
    section.at_most(
        f"{name}: share of rows with NaN or Inf",
        bad,
        0,
        0,
        "Train anew with a lower learning_rate or clip_grad_norm, or build the feature anew.",
    )
    if bad:
        return
    if not vectors.any():
        advice = (
            "Train longer, or leave the table out: it is zero in every row, as it was at first, "
            "and adds nothing."
        )
        section.flag(f"{name}: all rows are zero", "yes", "no", WARN, advice)
        return
    zeros = float((~vectors.any(1)).float().mean())
    section.at_most(
        f"{name}: share of rows of zeros",
        zeros,
        0.01,
        0.5,
        "Mask rows of zeros as missing: a vector of zeros is a place in the space as any other.",
    )
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(vectors))[: 4 * SAMPLE]  # all pairs of doubles are compared
    shape = shape_of(vectors.cpu().numpy()[rows])
    section.at_most(
        f"{name}: share of rows that equal another",
        shape.n_equal / shape.n,
        0.05,
        0.9,
        "Look at what is encoded: many rows have the same content, or never were trained.",
    )
    mean, spread = shape.norm
    section.known(f"{name}: length of a row, mean and deviation", f"{mean:.3f} +- {spread:.3f}")
    section.at_most(
        f"{name}: mean cosine of two rows",
        shape.cosine,
        0.8,
        0.99,
        "Centre or whiten the vectors, or add negatives: all rows point the same way, and cosines "
        "tell little apart.",
    )
    most = min(shape.n, vectors.shape[1])
    section.at_least(
        f"{name}: effective rank, as a share of {most}",
        shape.effective_rank / most,
        0.1,
        1.5 / most,
        "Use fewer dimensions, a smaller weight decay or more negatives: most directions are not "
        "used.",
    )
