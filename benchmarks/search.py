"""Exact search by cosine: ours against FAISS's flat index and against a product and ``torch.topk``.

As for FTRagRec's memory: the queries are rows themselves and must not find the rows of their own
user, which are their nearest. The rows are made up: a row is the fading sum of the vectors of its
user's last items, an item's vector lies near one of a hundred centres. ``--user_rows`` is how many
rows a user has on average: 6 is like amazon-beauty, 103 like ml-100k, 0 excludes none. All three
ways see the same ``--queries`` random ones, in batches of 8192; the notes say how many of the first
hundred queries' neighbours are not those of the plain product (equal cosines, but for rounding).

    OMP_NUM_THREADS=1 python -m benchmarks.search --rows=131413 --user_rows=6
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.side_by_side import Clock, arguments, side_by_side

BATCH = 8192
PLAIN = 128
"""Queries that the plain product takes at a time."""
N_ITEMS = 5000
FADE = 0.8


def _prepare(options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return rows [R, D], queries [B, D] and the ranges that they must not find [B, 2]."""
    import torch

    generator = torch.Generator().manual_seed(0)
    n_rows, size = options["rows"], options["size"]
    centres = torch.randn(100, size, generator=generator)  # [centres, D]
    near = torch.randint(100, (N_ITEMS,), generator=generator)  # [N]
    items = centres[near] + torch.randn(N_ITEMS, size, generator=generator)  # [N, D]
    mean = max(options["user_rows"], 1)
    is_first = torch.rand(n_rows, generator=generator) < 1 / mean  # [R]
    is_first[0] = True
    users = is_first.long().cumsum(0) - 1  # [R]
    counts = users.bincount()  # [U]
    stop = counts.cumsum(0)  # [U]
    sequence = items[torch.randint(N_ITEMS, (n_rows,), generator=generator)]  # [R, D]
    rows = sequence.clone()  # [R, D]
    for lag in range(1, 10):
        is_own = (users[lag:] == users[:-lag])[:, None]  # [R - lag, 1]
        rows[lag:] += FADE**lag * sequence[:-lag] * is_own
    asked = torch.randperm(n_rows, generator=generator)[: options["queries"]].sort().values  # [B]
    ranges = torch.stack([stop - counts, stop], dim=1)[users[asked]]  # [B, 2]
    return rows, rows[asked], ranges if options["user_rows"] else None


def _answer(clock: Clock, search: Any, options: dict[str, Any]) -> None:
    """Measure a search of all queries; compare the first with what the plain product finds."""
    import torch

    rows, queries, ranges = _prepare(options)
    search = search(rows)
    found = []
    with clock:
        for begin in range(0, len(queries), BATCH):
            part = slice(begin, begin + BATCH)
            found.append(
                search(queries[part], options["k"], None if ranges is None else ranges[part])
            )
    ids = torch.cat([ids for _, ids in found])[:100]  # [b, K]
    first = None if ranges is None else ranges[:100]
    _, wanted = _plain(rows)(queries[:100], options["k"], first)  # [b, K]
    differ = ~(ids[:, :, None] == wanted[:, None, :]).any(2)  # [b, K]
    clock.notes = {"different": f"{int(differ.sum())} of {differ.numel()}"}


def _plain(rows: Any) -> Any:
    """Return a search that multiplies and asks ``torch.topk``."""
    import torch

    from recbole_ext.index.brute_force import exclude_ranges

    keys = torch.nn.functional.normalize(rows, dim=1)  # [R, D]

    def search(queries: Any, k: int, ranges: Any) -> Any:
        found = []
        for begin in range(0, len(queries), PLAIN):
            part = slice(begin, begin + PLAIN)
            cosine = torch.nn.functional.normalize(queries[part], dim=1) @ keys.T  # [b, R]
            if ranges is not None:
                exclude_ranges(cosine, ranges[part])
            found.append(cosine.topk(k))
        values, ids = zip(*found, strict=True)
        return torch.cat(values), torch.cat(ids)

    return search


def ours(clock: Clock, options: dict[str, Any]) -> None:
    """``index: brute_force``."""
    from recbole_ext.index.brute_force import BruteForceIndex

    _answer(clock, lambda rows: BruteForceIndex(rows).search, options)


def faiss_flat(clock: Clock, options: dict[str, Any]) -> None:
    """``index: exact``."""
    from recbole_ext.index.faiss_index import FaissIndex

    _answer(clock, lambda rows: FaissIndex(rows, "exact").search, options)


def plain_torch(clock: Clock, options: dict[str, Any]) -> None:
    """A product and ``torch.topk``."""
    _answer(clock, _plain, options)


def main() -> None:
    """Run the comparison that the command line asks for."""
    found = arguments(
        __doc__ or "", rows=131_413, size=64, user_rows=6, k=100, queries=16_384, rounds=3
    )
    options = {**vars(found)}
    ways = {
        name: partial(way, options=options)
        for name, way in {
            "ours": ours,
            "FAISS flat": faiss_flat,
            "plain torch": plain_torch,
        }.items()
    }
    title = (
        f"the {found.k} nearest of {found.rows:,} rows, {found.queries:,} queries, "
        f"{found.user_rows} rows a user"
    )
    print(side_by_side(title, ways, found.rounds, None))


if __name__ == "__main__":
    main()
