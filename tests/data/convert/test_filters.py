"""Filters of interactions against naive loops over lists."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from recbole_ext.data.convert.filters import Filters, apply, exact_duplicates
from recbole_ext.data.convert.interactions import collect


def some(seed: int, n: int = 300, users: int = 40, items: int = 20):
    """Rows with many repeated pairs and equal times."""
    rng = np.random.default_rng(seed)
    return [
        (
            f"u{rng.integers(users) ** 2 // users}",
            f"i{rng.integers(items)}",
            float(rating),
            float(t),
        )
        for rating, t in zip(rng.integers(1, 6, n), rng.integers(0, 50, n), strict=True)
    ]


def filtered(rows, **filters):
    """Rows that stay, and the steps."""
    data, steps = collect(rows), []
    for step, left in apply(data, Filters(**filters)):
        steps.append(step)
        data = left
    columns = (data.user, data.item, data.rating, data.timestamp)
    kept = [
        (data.users[u], data.items[i], r, t)
        for u, i, r, t in zip(*(column.tolist() for column in columns), strict=True)
    ]
    return kept, steps


def enough(rows, place, least):
    counts = Counter(row[place] for row in rows)
    return [row for row in rows if counts[row[place]] >= least]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("min_uc", "min_sc"), [(5, 5), (9, 0), (0, 12), (6, 11)])
def test_core_is_what_a_loop_leaves_and_cannot_grow(seed, min_uc, min_sc):
    rows = some(seed)
    kept, steps = filtered(rows, duplicates="keep", min_uc=min_uc, min_sc=min_sc)
    left, before = rows, None
    while left != before:
        before = left
        left = enough(enough(left, 0, min_uc), 1, min_sc)
    assert kept == left and 0 < len(kept) < len(rows)
    assert steps == [f"min_uc={min_uc} min_sc={min_sc} filter=core"]


@pytest.mark.parametrize("seed", range(4))
def test_once_takes_items_then_users(seed):
    rows = some(seed)
    kept, _ = filtered(rows, duplicates="keep", min_uc=6, min_sc=14, filter="once")
    assert kept == enough(enough(rows, 1, 14), 0, 6) and 0 < len(kept) < len(rows)
    assert kept != filtered(rows, duplicates="keep", min_uc=6, min_sc=14)[0]


@pytest.mark.parametrize("which", ["first", "last"])
def test_of_a_pair_one_stays_in_the_order_of_the_files(which):
    rows = some(0)
    kept, steps = filtered(rows, duplicates=which)
    best = {}
    for place, (user, item, _, time) in enumerate(rows):
        at = best.setdefault((user, item), place)
        if time < rows[at][3] if which == "first" else time >= rows[at][3]:
            best[user, item] = place
    assert kept == [rows[place] for place in sorted(best.values())]
    assert len(kept) < len(rows) - 20 and steps == [f"duplicates={which}"]


def test_filters_come_one_after_another():
    """The low rating is out before pairs are looked at, and the pair before counts are."""
    rows = [("u", "a", 1, 1), ("u", "a", 5, 2), ("u", "a", 5, 3), ("u", "b", 5, 4)]
    kept, steps = filtered(rows, min_rating=2)
    assert kept == [("u", "a", 5, 2), ("u", "b", 5, 4)]
    assert steps == ["min_rating=2", "duplicates=first"]
    assert filtered(rows, min_rating=2, min_uc=3)[0] == []
    assert filtered(rows, min_rating=2, min_uc=3, duplicates="keep")[0] == rows[1:]


def test_a_rating_at_the_limit_stays():
    rows = [("u", "a", 3.7, 1), ("u", "b", 3.6, 1)]
    assert [row[1] for row in filtered(rows, min_rating=3.7)[0]] == ["a"]


def test_only_what_is_equal_in_all_is_an_exact_duplicate():
    one = ("u", "a", 1.0, 1.0)
    others = [
        ("u", "a", 2.0, 1.0),
        ("u", "a", 1.0, 2.0),
        ("v", "a", 1.0, 1.0),
        ("u", "b", 1.0, 1.0),
    ]
    assert exact_duplicates(collect([one, *others])) == 0
    assert (
        exact_duplicates(collect([one, others[0], one, others[1], one, others[2], others[2]])) == 3
    )
