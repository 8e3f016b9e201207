"""FAISS search: exact, inverted lists (IVF) or a neighbour graph (HNSW), all by cosine.

FAISS leaves out the same rows for all queries of a call. IVF scans whole lists, where that costs
little, so queries that must not find the same rows are searched together. Elsewhere it costs
FAISS its matrix products (exact) or the neighbours beyond the excluded ones (HNSW): there the
search fetches more than it needs, drops the excluded rows, and fetches more still for the few
queries that came out short.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_ext.index.interface import MISSING, evenly_spaced, pad_neighbours, unit_rows
from recbole_ext.types import UserError

KINDS = ("exact", "ivf", "hnsw")
ROWS_PER_LIST = 39
"""FAISS wants at least this many training vectors per inverted list."""
HNSW_LINKS = 32
ADD_ROWS = 1 << 16
"""Rows that are put into an index at a time."""


def import_faiss() -> Any:
    """Return the module ``faiss``.

    Raises:
        UserError: It is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise UserError(
            "index: exact, ivf and hnsw need FAISS, which is not installed; "
            "pip install faiss-cpu, or set index: brute_force"
        ) from None
    return faiss


class FaissIndex:
    """Cosine search by FAISS on the CPU; queries may come from any device and results go back.

    Args:
        vectors: [R, D], copied.
        kind: ``exact`` (IndexFlatIP), ``ivf`` or ``hnsw``.
        n_probe: Lists that an IVF search visits, at least 16 where there are that many.
        n_lists: IVF lists; ``None`` takes 2 sqrt(R). Never more than R / 39.

    Raises:
        UserError: FAISS is missing, or ``kind`` is none of the three.
    """

    def __init__(
        self, vectors: Tensor, kind: str = "exact", n_probe: int = 16, n_lists: int | None = None
    ) -> None:
        faiss = import_faiss()
        if kind not in KINDS:
            raise UserError(f"index: '{kind}' is none of {', '.join(KINDS)}")
        faiss.omp_set_num_threads(torch.get_num_threads())  # else FAISS takes every core
        self.kind = kind
        self.n_rows, size = vectors.shape
        wanted = n_lists or int(2 * self.n_rows**0.5)
        self.n_lists = max(min(wanted, self.n_rows // ROWS_PER_LIST), 1)
        if kind == "exact":
            index = faiss.IndexFlatIP(size)
        elif kind == "hnsw":
            index = faiss.IndexHNSWFlat(size, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        else:
            quantizer = faiss.IndexFlatIP(size)
            index = faiss.IndexIVFFlat(quantizer, size, self.n_lists, faiss.METRIC_INNER_PRODUCT)
            # The rule is kept by n_lists, and a single list may have fewer; more rows per list
            # make the training slower and the lists no better.
            index.cp.min_points_per_centroid = 1
            index.cp.max_points_per_centroid = 2 * ROWS_PER_LIST
            index.nprobe = min(max(n_probe, 16), self.n_lists)
            # evenly spaced: rows of one user stand together, and FAISS would copy all of them
            some = evenly_spaced(self.n_rows, 2 * ROWS_PER_LIST * self.n_lists)  # [b]
            index.train(unit_rows(vectors[some.to(vectors.device)]).cpu().numpy())
        for part in vectors.split(ADD_ROWS):  # the index has its own copy: no second one of all
            index.add(unit_rows(part).cpu().numpy())
        self._index = index

    def search(
        self, queries: Tensor, k: int, excluded: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the nearest rows of each query; see :class:`~recbole_ext.index.interface.Index`.

        An approximate index may return fewer than K although there are more: the lists or links
        that it visited held no others.

        Raises:
            ValueError: ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"k {k} must be at least 1")
        keys = unit_rows(queries).cpu()  # [B, D]
        if excluded is None:
            similarity, ids = self._fetch(keys, k)  # [B, K] each
        elif self.kind == "ivf":
            similarity, ids = self._search_by_range(keys, k, excluded.cpu())
        else:
            similarity, ids = self._over_fetch(keys, k, excluded.cpu())
        similarity, ids = pad_neighbours(similarity, ids, k)
        return similarity.to(queries.device), ids.to(queries.device)

    def _search_by_range(self, keys: Tensor, k: int, excluded: Tensor) -> tuple[Tensor, Tensor]:
        """Search queries [B, D] that share an excluded range [B, 2] in one call for each range."""
        similarity = torch.empty((len(keys), k))  # [B, K]
        ids = torch.empty((len(keys), k), dtype=torch.int64)  # [B, K]
        ranges, group = excluded.unique(dim=0, return_inverse=True)  # [G, 2], [B]
        members = group.argsort(stable=True).split(group.bincount().tolist())
        for (start, stop), places in zip(ranges.tolist(), members, strict=True):
            similarity[places], ids[places] = self._fetch(keys[places], k, range(start, stop))
        return similarity, ids

    def _over_fetch(self, keys: Tensor, k: int, excluded: Tensor) -> tuple[Tensor, Tensor]:
        """Search queries [B, D] for more than K rows until K remain without the excluded [B, 2]."""
        similarity = torch.full((len(keys), k), float("-inf"))  # [B, K]
        ids = torch.full((len(keys), k), MISSING)  # [B, K]
        short = torch.arange(len(keys))  # queries still to be answered
        widest = int((excluded[:, 1] - excluded[:, 0]).max()) if len(excluded) else 0
        fetch = min(k + min(k, max(widest, 0)), self.n_rows)  # often no query comes out short
        while len(short):
            found_sim, found_ids = self._fetch(keys[short], fetch)  # [b, fetch] each
            exhausted = (found_ids == MISSING).any(1)  # [b], more would not come of fetching more
            found_sim, found_ids = drop_excluded(found_sim, found_ids, excluded[short])
            found_sim, found_ids = pad_neighbours(found_sim[:, :k], found_ids[:, :k], k)
            similarity[short], ids[short] = found_sim, found_ids
            if fetch >= self.n_rows:
                break
            short = short[(found_ids == MISSING).any(1) & ~exhausted]
            fetch = min(4 * fetch, self.n_rows)
        return similarity, ids

    def _fetch(self, keys: Tensor, fetch: int, hidden: range = range(0)) -> tuple[Tensor, Tensor]:
        """Search [b, D] for [b, fetch] similarities and ids, -1 where FAISS found none.

        Args:
            keys: Queries.
            fetch: Rows to find for each.
            hidden: Ids that none of them may find; IVF only.
        """
        faiss = import_faiss()
        params = None
        if self.kind == "hnsw":  # a beam narrower than the answer would cut it short
            params = faiss.SearchParametersHNSW(efSearch=max(2 * fetch, 64))
        elif hidden:
            selector = faiss.IDSelectorNot(faiss.IDSelectorRange(hidden.start, hidden.stop))
            params = faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nprobe)
        similarity, ids = self._index.search(keys.numpy(), fetch, params=params)
        return torch.from_numpy(similarity), torch.from_numpy(ids)


def drop_excluded(
    similarity: Tensor, ids: Tensor, excluded: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Move the excluded and missing neighbours behind the others, marked as missing.

    Args:
        similarity: [B, K].
        ids: [B, K], :data:`MISSING` where there is none.
        excluded: Half-open ranges of ids [B, 2], or ``None``.

    Returns:
        Similarities and ids, [B, K], the valid ones first and in their order.
    """
    bad = ids == MISSING  # [B, K]
    if excluded is not None:
        bad = bad | ((ids >= excluded[:, :1]) & (ids < excluded[:, 1:]))
    order = bad.to(torch.uint8).argsort(dim=1, stable=True)  # [B, K]
    similarity = similarity.masked_fill(bad, float("-inf")).gather(1, order)
    return similarity, ids.masked_fill(bad, MISSING).gather(1, order)
