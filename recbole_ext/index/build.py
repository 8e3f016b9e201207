"""Chooses and checks a search structure."""

from __future__ import annotations

from torch import Tensor

from recbole_ext.index.brute_force import BruteForceIndex
from recbole_ext.index.faiss_index import KINDS as FAISS_KINDS
from recbole_ext.index.faiss_index import FaissIndex
from recbole_ext.index.interface import MISSING, Index
from recbole_ext.types import UserError

KINDS = ("auto", "brute_force", *FAISS_KINDS)
EXACT_ROWS = 200_000
"""Rows up to which exact search is affordable; ``auto`` takes inverted lists (IVF) above."""


def check_kind(kind: str) -> None:
    """Refuse a kind of index that does not exist.

    Raises:
        UserError: Naming those that do.
    """
    if kind not in KINDS:
        raise UserError(f"index: '{kind}' is none of {', '.join(KINDS)}")


def build_index(vectors: Tensor, kind: str = "auto", n_probe: int = 16) -> Index:
    """Build a search structure over the rows of ``vectors``.

    Args:
        vectors: [R, D]; copied, never changed.
        kind: ``brute_force`` (exact, torch, the vectors' device), ``exact`` (the same by FAISS),
            ``ivf``, ``hnsw``, or ``auto``: ``brute_force`` up to 200,000 rows, IVF above.
        n_probe: Lists that an IVF search visits.

    Raises:
        UserError: The kind does not exist, FAISS is needed and missing, or a vector is not finite.
    """
    check_kind(kind)
    # FAISS would find nothing, and say nothing
    if not all(part.isfinite().all() for part in vectors.split(1 << 16)):
        raise UserError(
            "the states that the memory is made of are not numbers (NaN): training has diverged; "
            "lower learning_rate or set clip_grad_norm"
        )
    if kind == "auto":
        kind = "brute_force" if len(vectors) <= EXACT_ROWS else "ivf"
    if kind == "brute_force":
        return BruteForceIndex(vectors)
    return FaissIndex(vectors, kind, n_probe=n_probe)


def recall(
    index: Index, reference: Index, queries: Tensor, k: int, excluded: Tensor | None = None
) -> float:
    """Return the share of the reference's neighbours that ``index`` finds too.

    Args:
        index: The structure under test.
        reference: An exact one over the same rows.
        queries: [B, D].
        k: Neighbours per query.
        excluded: Ranges that a query must not find [B, 2], or ``None``.
    """
    _, wanted = reference.search(queries, k, excluded)  # [B, K]
    _, found = index.search(queries, k, excluded)  # [B, K]
    wanted, found = wanted.cpu(), found.cpu()
    real = wanted != MISSING  # [B, K]
    hits = (wanted[:, :, None] == found[:, None, :]).any(2) & real  # [B, K]
    return float(hits.sum() / real.sum().clamp_min(1))
