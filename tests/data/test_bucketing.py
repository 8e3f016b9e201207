"""Bucketed loader: each row once, alike lengths together, one generator; causal windows."""

from __future__ import annotations

import pytest
import torch
from recbole.config import Config
from recbole.data.dataloader import TrainDataLoader

from recbole_ext.data.bucketing import BucketedBatches, BucketedTrainDataLoader
from recbole_ext.data.causal import causal_windows
from recbole_ext.data.prefix_dataset import ROW_ID, PrefixDataset
from recbole_ext.data.rows import histories_of
from recbole_ext.modules.histories import Histories

LENGTHS = torch.randint(1, 51, (1037,), generator=torch.Generator().manual_seed(0))


def batches(window=4, batch_size=32, shuffle=True, seed=1):
    return BucketedBatches(
        torch.arange(len(LENGTHS)),
        LENGTHS,
        batch_size=batch_size,
        window=window,
        shuffle=shuffle,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("window", [0, 1, 4, 1000])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_row_once_per_epoch(window, shuffle):
    sampler = batches(window=window, shuffle=shuffle)
    for _ in range(2):
        epoch = list(sampler)
        assert sorted(sum(epoch, [])) == list(range(1037))
        assert len(epoch) == len(sampler) == 33
        assert sorted(map(len, epoch))[0] == 1037 % 32
        assert sorted(map(len, epoch))[1:] == [32] * 32


def padding(sampler):
    return sum(int(LENGTHS[b].max()) * len(b) - int(LENGTHS[b].sum()) for b in sampler)


def test_batches_of_a_window_hold_rows_of_like_length():
    assert padding(batches(window=30)) < 0.15 * padding(batches(window=0))
    epoch = list(batches(window=1000))
    spans = sorted((int(LENGTHS[b].min()), int(LENGTHS[b].max())) for b in epoch)
    for (_, high), (low, _) in zip(spans, spans[1:], strict=False):
        assert high <= low  # one window: the batches cut one sorted list


def test_short_rows_do_not_come_first():
    """Batches of a window are shuffled: mean length and place are uncorrelated over epochs."""
    sampler = batches(window=1000)
    places = []
    for _ in range(40):
        epoch = list(sampler)
        means = torch.tensor([LENGTHS[b].double().mean() for b in epoch])
        places.append(torch.corrcoef(torch.stack([means, torch.arange(33.0).double()]))[0, 1])
    assert abs(torch.stack(places).mean()) < 5 / (33 * 40) ** 0.5


def test_incomplete_batch_holds_rows_of_any_length():
    means = []
    for seed in range(30):
        (short,) = [b for b in batches(window=1000, seed=seed) if len(b) < 32]
        means.append(LENGTHS[short].double().mean().item())
    assert min(means) < 15 and max(means) > 35


def test_generator_state_decides_an_epoch():
    sampler = batches()
    state = sampler.generator.get_state()
    first, second = list(sampler), list(sampler)
    assert first != second
    sampler.generator.set_state(state)
    assert list(sampler) == first and list(sampler) == second


@pytest.fixture
def train_set(tiny_settings):
    config = Config("SASRec", "tiny", config_dict={**tiny_settings, "bucket_window": 3})
    return config, PrefixDataset(config).build()[0]


def test_loader_serves_recboles_batches_of_bucketed_rows(train_set):
    config, dataset = train_set
    loader = BucketedTrainDataLoader(config, dataset, None, shuffle=True)
    seen = []
    for batch in loader:
        rows = batch[ROW_ID]
        for field in dataset.inter_feat:
            assert torch.equal(batch[field], dataset.inter_feat[field][rows])
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(dataset))) and len(loader) == -(-len(dataset) // 64)


def test_window_zero_is_recboles_order(train_set):
    config, dataset = train_set
    config["bucket_window"] = 0
    ours = BucketedTrainDataLoader(config, dataset, None, shuffle=True)
    theirs = TrainDataLoader(config, dataset, None, shuffle=True)
    for _ in range(2):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a[ROW_ID], b[ROW_ID])


def test_rows_between_which_some_are_missing_share_no_window():
    """Of a user's 1 2 3 2 5 7 8, limit 2, a file lacks the rows of 3 and of the second 2."""
    seq, lengths = torch.tensor([[1, 0], [3, 2], [2, 5], [5, 7]]), torch.tensor([1, 2, 2, 2])
    targets, users = torch.tensor([2, 5, 7, 8]), torch.zeros(4, dtype=torch.long)
    rows, n_scored = causal_windows(users, seq, lengths, targets, stride=2)
    # 3 2 ends with the target of row 0 and is one longer, but it is not 1 2
    assert (rows.tolist(), n_scored.tolist()) == ([0, 1, 3], [1, 1, 2])


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_causal_windows_cover_each_row_once(train_set, stride):
    _, dataset = train_set
    feat = dataset.inter_feat
    offsets = histories_of(feat, "item_id_list")
    assert isinstance(offsets, Histories)
    users, seq, lengths, targets = (
        feat[f] for f in ("user_id", "item_id_list", "item_length", "item_id")
    )
    rows, n_scored = causal_windows(users, seq, lengths, targets, stride)
    for found, wanted in zip(
        causal_windows(users, offsets, lengths, targets, stride), (rows, n_scored), strict=True
    ):
        assert torch.equal(found, wanted)
    covered = []
    for row, n in zip(rows.tolist(), n_scored.tolist(), strict=True):
        for back in range(n):
            r, end = row - back, int(lengths[row]) - back
            covered.append(r)
            assert users[r] == users[row]
            seen = seq[row, :end]  # what the encoder sees at that position
            own = seq[r, : lengths[r]]
            assert torch.equal(own[len(own) - len(seen) :], seen)
            assert len(own) - len(seen) < stride
    assert sorted(covered) == list(range(len(dataset)))
    # Users with n training rows of a history limit of 10: one window, then one for each stride.
    counts = torch.bincount(users)
    expected = sum(1 + -(-max(n - 10, 0) // stride) for n in counts.tolist() if n)
    assert len(rows) == expected
