"""Training batches of impressions against the file, read with plain Python."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch

from recbole_ext.types import UserError
from tests.models.news_contract import made

ROWS = [  # impression, news, label
    *(("a", n, n in (0, 3)) for n in range(8)),  # two clicks, six non-clicks
    *(("b", n, n == 5) for n in (5, 6)),  # a click, one non-click
    *(("c", n, True) for n in (1, 2)),  # clicks alone
    *(("d", n, False) for n in (1, 4)),  # none
]


@pytest.fixture
def data(news_data, tmp_path):
    """Give the planted data with a training part of four impressions, and its vectors."""
    source, vectors = news_data("text")
    for path in (Path(source) / "tiny").iterdir():
        (tmp_path / "tiny").mkdir(exist_ok=True)
        (tmp_path / "tiny" / path.name).write_bytes(path.read_bytes())
    return str(tmp_path), vectors


def write(data, rows):
    lines = ["impression_id:token\thist_id:token\titem_id:token\tlabel:float\ttimestamp:float"]
    lines += [f"{i}\tU{ord(i) - 95}@train\tN{n}\t{int(label)}\t0" for i, n, label in rows]
    (Path(data[0]) / "tiny" / "tiny.train.inter").write_text("\n".join(lines) + "\n")


def loader(data, rows=ROWS, **settings):
    write(data, rows)
    return made("NRMSDocVec", data, **{"neg_ratio": 4, **settings})[1]


def numbers(train, ids):
    return [int(token[1:]) for token in train.dataset.id2token("item_id", ids.numpy())]


def test_each_click_has_non_clicks_of_its_impression_drawn_anew(data):
    train = loader(data)
    others = {i: {n for j, n, label in ROWS if j == i and not label} for i in "ab"}
    drawn = defaultdict(set)
    for _ in range(30):
        clicks = Counter()
        for batch in train:
            names = train.dataset.id2token("impression_id", batch["impression_id"].numpy())
            clicked = numbers(train, batch["item_id"])
            for i, click, shown in zip(names, clicked, batch["neg_item_id"], strict=True):
                found = numbers(train, shown)
                clicks[i, click] += 1
                assert set(found) <= others[i] and len(found) == 4
                assert len(set(found)) == min(4, len(others[i]))
                drawn[i].update(found)
        # c has nothing to compare with, d no click
        assert clicks == {("a", 0): 1, ("a", 3): 1, ("b", 5): 1}
    assert drawn == others  # each of them at some time


def test_the_histories_are_those_of_the_users_file(data):
    train = loader(data)
    lines = (Path(data[0]) / "tiny" / "tiny.user").read_text().splitlines()[1:]
    histories = {name: read.split() for name, read in (line.split("\t") for line in lines)}
    for batch in train:
        for user, read in zip(batch["hist_id"], batch["history"], strict=True):
            wanted = histories[train.dataset.id2token("hist_id", int(user))]
            assert train.dataset.id2token("item_id", read[read > 0].numpy()).tolist() == wanted


def test_half_of_the_rows_are_clicks_each_once_an_epoch(data):
    train = loader(data, loss="bce", imbalance="sampling", train_batch_size=4)
    others = Counter()
    for _ in range(40):
        rows = [(n, label) for batch in train for n, label in zip(
            numbers(train, batch["item_id"]), batch["label"].tolist(), strict=True
        )]  # fmt: skip
        assert sorted(n for n, label in rows if label) == [0, 1, 2, 3, 5]
        assert len(rows) == 10
        others.update(n for n, label in rows if not label)
    assert set(others) == {1, 2, 4, 5, 6, 7}
    assert others[4] > others[7]  # which is shown twice without a click


def test_single_rows_are_all_rows_once(data):
    train = loader(data, loss="bce")
    rows = [n for batch in train for n in numbers(train, batch["item_id"])]
    assert sorted(rows) == sorted(n for _, n, _ in ROWS)


def test_the_same_seed_draws_the_same(data):
    train = loader(data)

    def draw():
        torch.manual_seed(3)
        train.generator.manual_seed(3)
        return torch.cat([batch["neg_item_id"] for batch in train])

    assert torch.equal(draw(), draw())


@pytest.mark.parametrize(
    ("rows", "settings", "sentence"),
    [
        (ROWS[-4:], {}, "no impression of the training part has both a click and a candidate"),
        (ROWS[-2:], {}, "the training part has no click.*LABEL_FIELD"),
        (ROWS[-2:], {"loss": "bce", "imbalance": "sampling"}, "the training part has no click"),
        (ROWS[-4:-2], {"loss": "bce", "imbalance": "sampling"}, "has clicks alone"),
        (ROWS[-4:-2], {"loss": "bce"}, "a share of 100% of the training rows are clicks"),
    ],
)
def test_a_training_part_without_a_comparison_is_refused(data, rows, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        loader(data, rows, **settings)
