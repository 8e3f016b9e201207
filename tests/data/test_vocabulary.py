"""The fingerprint of a dataset: it tells apart what is split otherwise, ties included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recbole.utils import init_seed

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset

EARLY = [(f"u{u}", f"i{i}", t) for u in range(2) for t, i in enumerate([0, 1, 2, 3])]
"""Every user and item occurs here first, so that later rows may change places under equal ids."""


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Load a dataset of (user, item, time) rows after the early ones, and split it."""

    def load(late: list[tuple[str, str, int]], **settings: Any) -> tuple[str, list[Any]]:
        folder = tmp_path / "shop"
        folder.mkdir(exist_ok=True)
        lines = ["user_id:token\titem_id:token\ttimestamp:float"]
        lines += ["\t".join(map(str, row)) for row in [*EARLY, *late]]
        (folder / "shop.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings = {"data_path": str(tmp_path), "use_gpu": False, **settings}
        data = create_dataset(Config(settings.pop("model", "DuoRec"), "shop", None, settings))
        init_seed(1, True)
        return data.fingerprint, [split.inter_feat["item_id"].tolist() for split in data.build()]

    return load


@pytest.mark.parametrize(
    "times", [(10, 10), (1_700_000_000, 1_700_000_001)], ids=["equal", "equal in 32 bits"]
)
def test_the_order_of_ties_decides_the_split_and_the_fingerprint(load, times):
    late = [("u0", "i1", times[0]), ("u0", "i2", times[1])]
    one, other = load(late), load(late[::-1])
    assert one[1] != other[1] and sorted(one[1][-1]) != sorted(other[1][-1])
    assert one[0] != other[0]


def test_rows_of_other_times_or_users_may_stand_in_any_order(load):
    late = [("u0", "i1", 10), ("u0", "i2", 11), ("u1", "i3", 10), ("u1", "i2", 10)]
    one, other = load(late), load([late[i] for i in (2, 1, 3, 0)])
    assert one == other


def test_other_interactions_are_another_fingerprint(load):
    late = [("u0", "i1", 10), ("u0", "i2", 11)]
    changed = [("u0", "i3", 10), ("u1", "i1", 10), ("u0", "i1", 9)]
    found = {load(late)[0], load(late[:1])[0], *(load([row, late[1]])[0] for row in changed)}
    assert len(found) == 5


@pytest.mark.parametrize(("order", "later"), [("RO", 11), ("TO", 10)])
def test_where_users_share_one_order_their_places_count(load, order, later):
    """RecBole shuffles rows as they stand, and cuts through equal times of different users."""
    late = [("u0", "i1", 10), ("u1", "i2", later)]
    settings = {
        "model": "BPR",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"RS": [0.5, 0.4, 0.1]}, "order": order, "group_by": None},
    }
    one, other = load(late, **settings), load(late[::-1], **settings)
    assert one[1] != other[1] and one[0] != other[0]


def test_files_that_are_split_already_count_where_they_are_cut(tmp_path):
    (tmp_path / "shop").mkdir()
    found = set()
    for cut in (4, 5):
        parts = {"train": EARLY[:cut], "valid": EARLY[cut:7], "test": EARLY[7:]}
        for part, rows in parts.items():
            lines = ["user_id:token\titem_id:token\ttimestamp:float"]
            lines += ["\t".join(map(str, row)) for row in rows]
            path = tmp_path / "shop" / f"shop.{part}.inter"
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings = {"data_path": str(tmp_path), "use_gpu": False, "benchmark_filename": [*parts]}
        found.add(create_dataset(Config("BPR", "shop", None, settings)).fingerprint)
    assert len(found) == 2
