"""Who FTRagRec's neighbours are: nobody retrieves himself, and the dissimilar are dropped."""

from __future__ import annotations

import pytest
import torch

from recbole_ext.modules.mixing import MixSettings
from tests.models.ftragrec_help import FIXED, first_batch, shake, train


def test_a_training_row_never_finds_rows_of_its_user(make):
    net, loaders = make()
    memory = net.keeper.training(net.memory_weights)
    table = memory.neighbours_of_rows(100).long()
    users = memory.rows.users
    found = table >= 0
    assert found.any(1).all()
    assert not (users[table.clamp_min(0)] == users[:, None])[found].any()


def test_row_and_later_finds_earlier_rows_of_the_user_only(make):
    net, loaders = make(exclude="row_and_later")
    memory = net.keeper.training(net.memory_weights)
    table = memory.neighbours_of_rows(len(memory.rows)).long()
    own_and_earlier = 0
    for place, near in enumerate(table):
        near = near[near >= 0]
        mine = near[memory.rows.users[near] == memory.rows.users[place]]
        assert (mine < place).all()
        own_and_earlier += len(mine)
    assert own_and_earlier > 0


@pytest.mark.parametrize("exclude", ["user", "row_and_later"])
def test_test_queries_find_the_users_training_rows_only_by_policy(make, exclude):
    net, loaders = make(exclude=exclude)
    net.eval()
    batch, memory = first_batch(loaders[2]), net.keeper.scoring()
    near = net.search(net.encode(batch), batch, memory, len(memory.rows))[1]
    own = (memory.rows.users[near.clamp_min(0)] == batch[net.USER_ID][:, None]) & (near >= 0)
    assert own.any() == (exclude == "row_and_later")


def test_random_neighbours_are_others_and_repeatable(make):
    nearest, loaders = make(top_k=5, **FIXED)
    net, _ = make(top_k=5, neighbours="random", **FIXED)
    net.eval(), nearest.eval()
    batch = first_batch(loaders[2])
    assert torch.equal(net.full_sort_predict(batch), net.full_sort_predict(batch))
    assert not torch.equal(net.full_sort_predict(batch), nearest.full_sort_predict(batch))
    assert torch.allclose(net.full_sort_predict(batch[[3]])[0], net.full_sort_predict(batch)[3])
    assert net.result_extra()["retrieval"]["index"] == "random"
    train(net, loaders[0])


def test_random_neighbours_are_the_first_of_one_draw(make):
    """Calibration compares numbers of neighbours: scoring must then use the ones it compared."""
    net, loaders = make(top_k=12, neighbours="random", **FIXED)
    net.eval()
    batch, memory = first_batch(loaders[2]), net.keeper.scoring()
    h = net.encode(batch)
    drawn = memory.search(h, 12, batch[net.USER_ID])
    net.retrieval.use(MixSettings(0.5, 5, 0.3))
    for found, wanted in zip(net.search(h, batch, memory, 5), drawn, strict=True):
        assert torch.equal(found, wanted[:, :5])
    asker = int(batch[net.USER_ID][0])
    near = drawn[1][batch[net.USER_ID] == asker][0, :5]  # drawn by user, whatever the history
    assert {n.row for n in net.explain(user=asker)} == set(memory.rows.order[near].tolist())


def test_quality_threshold_drops_dissimilar_neighbours(make):
    net, loaders = make(quality_threshold=0.2, top_k=50, **FIXED)
    net.eval()
    batch, memory = first_batch(loaders[2]), net.keeper.scoring()
    similarity, near = net.search(net.encode(batch), batch, memory, 50)
    found = net.retrieval.find(similarity, near, memory, net.retrieval.for_scores())
    assert torch.equal(found.valid, similarity >= 0.2)
    assert 0 < found.valid.sum() < found.valid.numel()
    assert (found.weights[~found.valid] == 0).all() and (found.targets[~found.valid] == 0).all()


def test_a_threshold_that_nothing_meets_leaves_the_encoder_alone(make):
    net, loaders = make(quality_threshold=1.0, **FIXED)
    shake(net.encoder, 0.1)
    net.eval()
    batch = first_batch(loaders[2])
    similarity, near = net.search(net.encode(batch), batch, net.keeper.scoring(), 1)
    alone = similarity[:, 0] < 1
    assert alone.any()
    wanted = net.encode(batch) @ net.item_weight.T
    assert torch.equal(net.full_sort_predict(batch)[alone, 1:], wanted[alone, 1:])


def test_quality_percentile_drops_that_share_of_the_training_pairs(make):
    net, loaders = make(quality_percentile=30.0, top_k=20, **FIXED)
    memory = net.keeper.training(net.memory_weights)
    places = torch.arange(len(memory.rows))
    near = memory.neighbours_of_rows(20).long()
    with torch.no_grad():
        found = net.retrieval.weigh(memory.states[places], near, memory)
    assert found.valid.float().mean().item() == pytest.approx(0.7, abs=0.01)
