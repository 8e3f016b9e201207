"""Histories against the padded table that they stand for."""

from __future__ import annotations

import pytest
import torch

from recbole_ext.modules import histories as module
from recbole_ext.modules.histories import Histories, Windows

START, STOP, LONGEST = [0, 2, 3, 5, 0], [1, 5, 5, 6, 3], 4
PAIR = torch.tensor([-1, 2])


def made(width: int | None = None) -> tuple[Histories, torch.Tensor]:
    """Histories of six values, and their table by a loop over cells."""
    shape = (7,) if width is None else (7, width)
    values = torch.arange(1, 1 + 7 * (width or 1)).view(shape)
    values[-1] = 0
    table = torch.zeros((len(START), LONGEST, *shape[1:]), dtype=values.dtype)
    for row, (start, stop) in enumerate(zip(START, STOP, strict=True)):
        for column in range(stop - start):
            table[row, column] = values[start + column]
    return Histories(values, Windows(torch.tensor(START), torch.tensor(STOP), LONGEST)), table


@pytest.mark.parametrize("width", [None, 2])
@pytest.mark.parametrize("padded_rows", [2, 100])
def test_table(monkeypatch, width, padded_rows):
    monkeypatch.setattr(module, "PADDED_ROWS", padded_rows)
    histories, table = made(width)
    assert torch.equal(histories.table(), table)
    assert (len(histories), histories.size(0), histories.size(1)) == (5, 5, LONGEST)


@pytest.mark.parametrize(
    "index",
    [
        3,
        slice(1, 4),
        [4, 0, 0],
        torch.tensor([2, 1]),
        torch.tensor([True, False, False, True, True]),
        ...,
        (1, slice(2)),
        (torch.tensor([4, 1, 2]), slice(3)),
        (slice(1, 3), slice(1, None)),
        (torch.tensor([1, 4, 0]), torch.tensor([2, 0, 3])),
        torch.tensor([], dtype=torch.int64),
        (slice(None), -1),
        (slice(None), 0),
        (..., -2),
        (1, -4),
        (-1, ...),
        (torch.tensor([1, 4]), ...),
        (torch.tensor([1, 4]), -2),
        (torch.tensor([1, 4]), PAIR),
        (torch.tensor([[0], [4], [2]]), PAIR),
        (slice(1, 4), PAIR),
        (slice(1, 4), PAIR.view(2, 1)),
        (slice(None), slice(-2, None)),
        (3, [0, -1]),
        (slice(None), torch.tensor([True, False, True, False])),
    ],
    ids=str,
)
@pytest.mark.parametrize("width", [None, 2])
def test_indexed_like_the_table(index, width):
    histories, table = made(width)
    if width is None or not (isinstance(index, tuple) and index[0] is ...):  # of 2 dims then
        assert torch.equal(histories[index], table[index])


@pytest.mark.parametrize(
    "index",
    [(0, LONGEST), (0, -LONGEST - 1), (PAIR, torch.tensor([0, 9])), (slice(2), [-9]), (5, 0), -6],
    ids=str,
)
def test_places_outside_the_table_are_refused_like_its_own(index):
    for table in made():
        with pytest.raises(IndexError):
            table[index]


def test_rows_of_no_values():
    windows = Windows(torch.tensor([0, 2, 2]), torch.tensor([0, 2, 3]), 2)
    histories, table = Histories(torch.tensor([7, 8, 9, 0]), windows), torch.zeros(3, 2).long()
    table[2, 0] = 9
    assert torch.equal(histories.table(), table)
    for index in (0, slice(2), (slice(None), -1), (slice(None), 0), (torch.tensor([1, 2]), 0)):
        assert torch.equal(histories[index], table[index])


def test_iterated_like_the_table():
    histories, table = made()
    assert all(torch.equal(a, b) for a, b in zip(histories, table, strict=True))


def test_a_table_becomes_histories():
    lengths = torch.tensor([stop - start for start, stop in zip(START, STOP, strict=True)])
    histories, table = made()
    again = Histories.of(table, lengths)
    assert torch.equal(again.table(), table)
    assert torch.equal(again.windows.length, lengths)
    assert Histories.of(histories, lengths) is histories


def test_followed_by_histories_of_another_length():
    histories, table = made()
    other = Histories.of(torch.tensor([[8, 9, 0, 0, 0], [1, 2, 3, 4, 5]]), torch.tensor([2, 5]))
    both = histories.followed_by(other).table()
    assert torch.equal(both[:5, :4], table) and not both[:5, 4].any()
    assert both[5:].tolist() == [[8, 9, 0, 0, 0], [1, 2, 3, 4, 5]]
