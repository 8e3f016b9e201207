"""Filters of interactions, each counted: by rating, of repeated pairs, by how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recbole_ext.data.convert.interactions import Interactions

HOW = ("core", "once")
DUPLICATES = ("first", "last", "keep")


@dataclass(frozen=True)
class Filters:
    """What is left out, in this order.

    Attributes:
        min_rating: Interactions with a lower rating are left out.
        duplicates: Of the interactions of one user with one item the first in time stays, or the
            last, or keep all.
        min_uc: Users with fewer interactions are left out, and
        min_sc: items with fewer.
        filter: core repeats both until nothing more falls; once takes items, then users, and stops
            (as BERT4Rec and LlamaRec do), which leaves items with fewer.
    """

    min_rating: float | None = None
    duplicates: str = "first"
    min_uc: int = 0
    min_sc: int = 0
    filter: str = "core"


def apply(data: Interactions, filters: Filters) -> Iterator[tuple[str, Interactions]]:
    """Yield what each filter leaves, with the filter in words."""
    if filters.min_rating is not None:
        data = data.take(data.rating >= np.float32(filters.min_rating))
        yield f"min_rating={filters.min_rating:g}", data
    if filters.duplicates != "keep":
        data = data.take(np.sort(one_of_pairs(data, filters.duplicates)))
        yield f"duplicates={filters.duplicates}", data
    if filters.min_uc or filters.min_sc:
        keep = (core if filters.filter == "core" else once)(data, filters.min_uc, filters.min_sc)
        name = f"min_uc={filters.min_uc} min_sc={filters.min_sc} filter={filters.filter}"
        yield name, data.take(keep)


def one_of_pairs(data: Interactions, which: str) -> np.ndarray:
    """Return the place of the first, or last, interaction of each user and item [pairs].

    At one time the one that comes first, or last, in the files.
    """
    order, is_new = _by_pair(data)  # [n], [n]
    if which == "first":
        return order[is_new]
    return order[np.append(is_new[1:], True)[: len(order)]]  # before the next pair begins


def exact_duplicates(data: Interactions) -> int:
    """Return how many interactions are equal to one before in user, item, rating and time."""
    pair = _pair(data)
    order = np.lexsort((data.rating, data.timestamp, pair))  # [n]
    same = np.ones(max(len(order) - 1, 0), dtype=bool)  # [n - 1]
    for column in (pair, data.timestamp, data.rating):
        column = column[order]
        same &= column[1:] == column[:-1]
    return int(same.sum())


def core(data: Interactions, min_uc: int, min_sc: int) -> np.ndarray:
    """Return the places of the largest part where all users and items have enough [m]."""
    keep = np.arange(len(data))
    while True:
        enough = _enough(data.user[keep], min_uc) & _enough(data.item[keep], min_sc)  # [m]
        if enough.all():
            return keep
        keep = keep[enough]


def once(data: Interactions, min_uc: int, min_sc: int) -> np.ndarray:
    """Return the places after items, then users, with too few were left out one time [m]."""
    keep = np.flatnonzero(_enough(data.item, min_sc))
    return keep[_enough(data.user[keep], min_uc)]


def _enough(codes: np.ndarray, least: int) -> np.ndarray:
    """Tell of each interaction whether its user (item) has enough of them [n]."""
    return (np.bincount(codes, minlength=1) >= least)[codes]


def _pair(data: Interactions) -> np.ndarray:
    return data.user.astype(np.int64) * len(data.items) + data.item  # [n]


def _by_pair(data: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """Return an order by pair and time, stable, and where in it a new pair begins."""
    pair = _pair(data)
    order = np.lexsort((data.timestamp, pair))  # [n]
    pair = pair[order]
    is_new = np.ones(len(order), dtype=bool)  # [n]
    is_new[1:] = pair[1:] != pair[:-1]
    return order, is_new
