"""Rows that are kept as offsets against an ordinary Interaction of the same rows."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_ext.data.rows import Lengths, PrefixRows, Rows, Targets, UnsplitRows, histories_of
from recbole_ext.modules.histories import Histories, Windows

ITEMS = torch.tensor([5, 3, 8, 2, 9, 7, 0])
TIMES = torch.tensor([0.5, 0.1, 0.9, 0.4, 0.4, 0.2, 0.0])
PAIRS = torch.arange(14).view(7, 2) * (torch.arange(7) < 6)[:, None]
WINDOWS = [(0, 1), (0, 2), (1, 3), (4, 5)]
N = len(WINDOWS)


def lazy(kind: type = PrefixRows) -> Any:
    start, stop = map(torch.tensor, zip(*WINDOWS, strict=True))
    windows = Windows(start, stop, 3)
    return kind(
        {
            "item": Targets(ITEMS, windows),
            "time": Targets(TIMES, windows),
            "item_length": Lengths(ITEMS, windows),
            "item_list": Histories(ITEMS, windows),
            "pair_list": Histories(PAIRS, windows),
            "extra": torch.arange(N),
        },
        windows,
    )


def plain() -> Interaction:
    """The same rows, cell by cell."""
    stops = [stop for _, stop in WINDOWS]
    lists = {}
    for name, values in (("item_list", ITEMS), ("pair_list", PAIRS)):
        lists[name] = torch.zeros((N, 3, *values.shape[1:]), dtype=values.dtype)
        for row, (start, stop) in enumerate(WINDOWS):
            for column, place in enumerate(range(start, stop)):
                lists[name][row, column] = values[place]
    return Interaction(
        {
            "item": torch.stack([ITEMS[stop] for stop in stops]),
            "time": torch.stack([TIMES[stop] for stop in stops]),
            "item_length": torch.tensor([stop - start for start, stop in WINDOWS]),
            **lists,
            "extra": torch.arange(N),
        }
    )


def assert_same(found: Interaction, wanted: Interaction) -> None:
    assert list(found) == list(wanted) and found.columns == wanted.columns
    assert len(found) == len(wanted)
    for field in wanted:
        assert found[field].dtype == wanted[field].dtype, field
        assert torch.equal(found[field], wanted[field]), field


def n_offsets(rows: PrefixRows) -> int:
    return sum(not isinstance(value, torch.Tensor) for value in rows.interaction.data.values())


INDEXES = [
    2,
    -1,
    np.int64(1),
    slice(1, 3),
    range(1, 4),
    [3, 0],
    [],
    [True, False, True, False],
    np.array([2, 2]),
    np.array([1, 0], dtype=np.int32),
    np.array([]),
    np.array([False, True, True, False]),
    torch.tensor([1, 3]),
    torch.tensor([True, True, False, False]),
    torch.tensor(2),
    torch.tensor([1, 0], dtype=torch.uint8),
]


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_some_rows_are_an_ordinary_interaction(index):
    rows = lazy()
    found = rows[index]
    assert type(found) is Interaction and n_offsets(rows) == 5
    assert_same(found, plain()[index])
    assert_same(Rows(plain().interaction)[index], plain()[index])


@pytest.mark.parametrize("index", [i for i in INDEXES if np.ndim(plain()[i]["item"]) == 1], ids=str)
def test_a_split_stays_offsets(index):
    split = lazy(UnsplitRows)[index]
    assert type(split) is PrefixRows and n_offsets(split) == 5
    assert_same(split, plain()[index])


def test_a_field_that_is_looked_up_becomes_a_tensor_and_stays_one():
    rows = lazy()
    table = rows["item_list"]
    assert torch.equal(table, plain()["item_list"]) and n_offsets(rows) == 4
    assert rows["item_list"] is table and histories_of(rows, "item_list") is table
    table[0, 0] = 77
    assert rows[0]["item_list"][0] == 77 and rows.item_list[0, 0] == 77
    assert isinstance(histories_of(rows, "pair_list"), Histories)
    assert torch.equal(histories_of(plain(), "pair_list"), plain()["pair_list"])


def test_said_like_an_interaction_and_still_offsets():
    rows, none = lazy(), lazy()[:0]
    assert str(rows) == repr(rows) == str(plain()) and n_offsets(rows) == 5
    assert str(lazy(UnsplitRows)) == str(plain())
    assert str(lazy().part([])) == str(none)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.sort(by="time"),
        lambda rows: rows.sort(by=["time", "item"], ascending=[True]),
        lambda rows: (torch.manual_seed(3), rows.shuffle()),
        lambda rows: rows.update(Interaction({"item": torch.zeros(N), "new": torch.ones(N)})),
        lambda rows: rows.drop("item_list"),
        lambda rows: rows.__delitem__("time"),
        lambda rows: rows.__setitem__("item_list", torch.ones(N, 3)),
        lambda rows: rows.add_prefix("neg_"),
        lambda rows: (rows["item_list"], rows.sort(by="time")),
    ],
)
def test_changed_in_place_like_an_interaction(change):
    found, wanted = lazy(), plain()
    change(found)
    change(wanted)
    assert_same(found[[1, 3, 0]], wanted[[1, 3, 0]])
    assert_same(found, wanted)


@pytest.mark.parametrize(
    "copied",
    [
        lambda rows: rows.to("cpu"),
        lambda rows: rows.to("cpu", selected_field="item"),
        lambda rows: rows.cpu(),
        lambda rows: rows.repeat(2),
        lambda rows: rows.repeat_interleave(3),
        lambda rows: Interaction({f: torch.from_numpy(v) for f, v in rows.numpy().items()}),
        copy.copy,
        lambda rows: Interaction(rows.interaction),
        lambda rows: Interaction(dict(rows.interaction)),
        lambda rows: Interaction({**rows.interaction}),
        lambda rows: Interaction({} | rows.interaction),
        lambda rows: Interaction(rows.interaction.copy()),
        lambda rows: Interaction(dict(**rows.interaction)),
        lambda rows: Interaction(copy.copy(rows.interaction)),
    ],
)
def test_copied_like_an_interaction(copied):
    assert_same(copied(lazy()), copied(plain()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda rows: pickle.loads(pickle.dumps(rows))])
def test_copies_and_pickles_hold_offsets(copied):
    found = copied(lazy())
    assert n_offsets(found) == 5
    assert_same(found, plain())


def test_the_fields_themselves_are_a_mapping_of_tensors():
    fields = lazy().interaction
    assert "item_list" in fields and "none" not in fields
    assert fields.get("none") is None and len(fields) == 6
    wanted = plain().interaction
    assert all(torch.equal(value, wanted[field]) for field, value in fields.items())
    assert all(map(torch.equal, lazy().interaction.values(), wanted.values()))
    assert isinstance(fields, dict) and bool(fields) and list(fields) == list(wanted)
    assert torch.equal(fields.pop("item_list"), wanted["item_list"]) and "item_list" not in fields
    assert all(isinstance(value, torch.Tensor) for value in {**lazy().interaction}.values())
