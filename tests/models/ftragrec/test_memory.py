"""FTRagRec's memory is that of its weights, wherever it is kept."""

from __future__ import annotations

import copy

import pytest
import torch
from recbole.utils import init_seed

from recbole_ext.callbacks.build import build_callbacks
from recbole_ext.data.prefix_dataset import ROW_ID
from recbole_ext.modules.memory import random_places
from recbole_ext.paths import data_folder
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import TrainState
from tests.models.ftragrec_help import FIXED, first_batch, shake, train


def test_a_refresh_after_training_changes_the_neighbours(make):
    net, loaders = make(top_k=10)
    net.refresh_memory()
    table = net.keeper.training(net.memory_weights).neighbours_of_rows(10).clone()
    shake(net.retrieval.retriever.blocks)
    assert torch.equal(net.keeper.training(net.memory_weights).neighbours_of_rows(10), table)
    net.refresh_memory()
    assert not torch.equal(net.keeper.training(net.memory_weights).neighbours_of_rows(10), table)


@pytest.mark.parametrize(("interval", "wanted"), [(1, 4), (3, 2), (10, 1)])
@pytest.mark.parametrize("original", [False, True])
def test_the_interval_says_how_often_the_memory_is_refreshed(make, interval, wanted, original):
    path = data_folder("properties") / "model" / "FTRagRec-original.yaml"
    net, _ = make(files=(path,) if original else (), retriever_update_interval=interval)
    specs = read_yaml(path if original else path.with_name("FTRagRec.yaml"))["callbacks"]
    refresh = next(c for c in build_callbacks(specs) if type(c).__name__ == "FaissRefresh")
    calls = []
    net.refresh_memory = lambda: calls.append(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    state = TrainState(net, optimizer, total_epochs=4, steps_per_epoch=1)
    refresh.on_fit_start(state)
    for epoch in range(4):
        state.epoch = state.step = epoch
        refresh.on_epoch_start(state)
    assert len(calls) == wanted


@pytest.mark.parametrize(
    ("freeze", "interval"), [("all", 10), ("none", 1), ("encoder.trm_encoder.*", 1)]
)
def test_states_that_change_are_searched_in_every_epoch(make, freeze, interval):
    net, _ = make(freeze=freeze)
    assert net.refresh_interval == interval


@pytest.mark.parametrize("part", ["retriever", "encoder"])
def test_loading_a_checkpoint_is_enough_to_score_with_its_memory(make, part):
    net, loaders = make(top_k=5, **FIXED)
    best = copy.deepcopy(net.state_dict())
    net.eval()
    batch = first_batch(loaders[2])
    wanted, evidence = net.full_sort_predict(batch), net.explain(user=3)
    shake(net.encoder if part == "encoder" else net.retrieval.retriever.blocks)
    assert not torch.equal(net.full_sort_predict(batch), wanted)
    assert [n.row for n in net.explain(user=3)] != [n.row for n in evidence]
    net.load_state_dict(best)
    assert torch.equal(net.full_sort_predict(batch), wanted)
    assert net.explain(user=3) == evidence


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_a_stale_memory_is_restored_with_the_weights(make, freeze):
    """Between refreshes training depends on older weights: a resumed run must have them."""
    net, loaders = make(freeze=freeze, top_k=6, hidden_dropout_prob=0.0, attn_dropout_prob=0.0)
    train(net, loaders[0])
    shake(net.retrieval.retriever.blocks)
    if freeze == "none":
        shake(net.encoder, 0.1)
    batch = first_batch(loaders[0])
    wanted = net.losses(batch)
    other, _ = make(freeze=freeze, top_k=6, seed=9, hidden_dropout_prob=0.0, attn_dropout_prob=0.0)
    other.load_state_dict(net.state_dict())
    found = other.eval().losses(batch)
    assert {n: v.item() for n, v in found.items()} == {n: v.item() for n, v in wanted.items()}
    other.refresh_memory()
    assert other.losses(batch)["enhanced"].item() != wanted["enhanced"].item()


def test_a_copy_of_the_model_is_independent(make):
    net, loaders = make()
    net.eval()
    batch = first_batch(loaders[2])
    wanted = net.full_sort_predict(batch)
    twin = copy.deepcopy(net)
    shake(net)
    assert torch.equal(twin.full_sort_predict(batch), wanted)


def test_the_memory_is_built_with_the_settings(make):
    net, loaders = make(neighbours="random", n_probe=32, top_k=5, **FIXED)
    assert net.keeper.n_probe == 32
    memory, row = net.keeper.scoring(), loaders[0]._dataset.inter_feat[[0]]
    begin, end = memory.rows.begin[int(row[net.USER_ID]) :][:2].tolist()
    key, n_others = row[ROW_ID] + (1 << 32), torch.tensor([len(memory.rows) - (end - begin)])
    drawn = {s: random_places(key, 5, n_others, s)[0].tolist() for s in (0, 2020)}
    wanted = [p + (end - begin) * (p >= begin) for p in drawn[2020]]  # RecBole's own seed
    found = memory.neighbours_of_rows(5)[memory.place[row[ROW_ID]]][0]
    assert found.tolist() == wanted and drawn[0] != drawn[2020]


def test_an_approximate_index_is_measured_for_the_result(make):
    net, _ = make(top_k=5, **{**FIXED, "index": "hnsw"})
    net.keeper.scoring()
    recall = net.result_extra()["retrieval"]["recall"]
    assert 0.5 < recall <= 1
    exact, _ = make(top_k=5, **FIXED)
    exact.keeper.scoring()
    assert "recall" not in exact.result_extra()["retrieval"]


@pytest.mark.parametrize(
    "more", [{}, {"neighbours": "random"}, {"freeze": "none"}, {"mix": "vector"}]
)
def test_a_memory_in_files_trains_and_scores_the_same_to_the_bit(make, tmp_path, more):
    folder = tmp_path / "files"
    folder.mkdir()
    found = []
    for limit in (None, 0):
        net, loaders = make(
            memory_limit_mib=limit, memory_dir=str(folder), memory_include_valid=True, **more
        )
        init_seed(3, True)
        train(net, loaders[0], epochs=2)
        net.calibrate(loaders[1])
        batch, losses = first_batch(loaders[0]), net.losses(first_batch(loaders[0]))
        scores = [net.full_sort_predict(batch)]
        net.extend_memory(loaders[1])
        scores += [net.full_sort_predict(first_batch(loaders[2])), *net.state_dict().values()]
        found.append([*losses.values(), *scores])
        mapped = net.result_extra()["retrieval"]["mapped_mib"]
        assert (mapped > 0) == (limit == 0) and list(folder.iterdir()) == []
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_validation_pairs_join_the_memory_when_asked(make):
    net, loaders = make(top_k=8, exclude="row_and_later", **FIXED)
    net.eval()
    batch = first_batch(loaders[2])
    before, n_rows = net.full_sort_predict(batch), len(net.keeper.rows)
    net.extend_memory(loaders[1])
    assert len(net.keeper.rows) == n_rows + len(loaders[1]._dataset.inter_feat)
    assert not torch.equal(net.full_sort_predict(batch), before)
    history = net.keeper.rows.history(4)
    valid = loaders[1]._dataset.inter_feat
    assert history[-1] == int(valid[net.POS_ITEM_ID][valid[net.USER_ID] == 4])


@pytest.mark.parametrize("freeze", ["all", "none"])
@pytest.mark.parametrize("mix", ["probability", "vector", "gate"])
def test_autocast_changes_neither_neighbours_nor_what_is_looked_up(make, mix, freeze):
    settings = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
    nets = []
    for is_on in (False, True):
        net, loaders = make(mix=mix, freeze=freeze, top_k=5, **settings)
        torch.manual_seed(0)
        shake(net.encoder, 0.02)
        net.memory_weights.copy_(net.keeper.snapshot())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_on):
            losses = net.losses(first_batch(loaders[0]))
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
        nets.append((net, {name: value.item() for name, value in losses.items()}))
    (plain, wanted), (half, found) = nets
    memories = [net.keeper.training(net.memory_weights) for net in (plain, half)]
    tables = [memory.neighbours_of_rows(5) for memory in memories]
    assert torch.equal(*tables) and torch.equal(*(memory.states for memory in memories))
    assert found == pytest.approx(wanted, rel=0.02)
    if freeze == "all":
        assert found["rec"] == wanted["rec"]
    if freeze == "all" and mix == "probability":  # nor the weights of neighbours, which are alike
        assert found == wanted
