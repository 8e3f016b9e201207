"""LRURec: the contract, the loss of every training row, items one by one, its optimizer."""

from __future__ import annotations

import numpy as np
import pytest
import recbole.trainer.trainer as host
import torch
from contracts import ModelContract, assert_like_in_16_bits
from recbole.utils import init_seed

from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.causal import N_SCORED
from recbole_ext.types import UserError
from tests.trainer.training import prepare

SMALL = {"hidden_size": 8, "inner_size": 16, "train_batch_size": 16}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}


class TestLRURec(ModelContract):
    model = "LRURec"
    settings = SMALL


def build(tiny_data_path, tmp_path, **settings):
    """Return model and loaders; tiny data, no dropout, weights for which histories matter."""
    contract = TestLRURec()
    config = contract.make_config(tiny_data_path, tmp_path, **{**NO_DROPOUT, **settings})
    init_seed(config["seed"], True)
    loaders = create_loaders(config, create_dataset(config))
    net = contract.make_model(config, loaders[0].dataset)
    with torch.no_grad():
        for parameter in [*net.encoder.item_embedding.parameters(), net.item_bias]:
            parameter[1:] = torch.randn_like(parameter[1:]) / 2
    return net, loaders


def reference_cross_entropy(net, rows, history_of) -> float:
    """Mean loss of the rows: every history encoded alone, softmax over items 1..N-1, in numpy."""
    weight = net.encoder.item_embedding.weight.detach().double().numpy()[1:]
    bias, found = net.item_bias.detach().double().numpy()[1:], []
    for r in range(len(rows)):
        history = history_of(rows, r)
        with torch.no_grad():
            h = net.encoder(history[None], torch.tensor([len(history)])).double().numpy()[0]
        logits = weight @ h + bias
        found.append(np.log(np.exp(logits).sum()) - logits[int(rows["item_id"][r]) - 1])
    return float(np.mean(found))


@torch.no_grad()
def mean_rec(net, loader) -> float:
    """Mean ``rec`` over all training rows, each of which must be there once."""
    total, n = 0.0, 0
    for batch in loader:
        pairs = int(batch[N_SCORED].sum()) if N_SCORED in batch else len(batch)
        total += float(net.losses(batch)["rec"]) * pairs
        n += pairs
    assert n == len(loader.dataset)
    return total / n


def own_history(rows, r):
    return rows["item_id_list"][r, : int(rows["item_length"][r])]


@pytest.mark.parametrize("settings", [{"train_on": "prefix"}, {"causal_stride": 1}], ids=str)
def test_the_loss_is_the_cross_entropy_of_every_row(tiny_data_path, tmp_path, settings):
    net, (loader, _, _) = build(tiny_data_path, tmp_path, **settings)
    expected = reference_cross_entropy(net, loader.dataset.inter_feat, own_history)
    assert mean_rec(net, loader) == pytest.approx(expected, rel=1e-5)


def test_windows_follow_one_another_and_predict_each_item_once(tiny_data_path, tmp_path):
    """A row beyond the limit sees what its window has before it; the last row of one sees all."""
    net, (loader, _, _) = build(tiny_data_path, tmp_path)
    limit = loader.dataset.max_item_list_len

    def history_of(rows, r):
        begin = r
        while begin and rows["user_id"][begin - 1] == rows["user_id"][r]:
            begin -= 1
        items = [int(rows["item_id_list"][begin, 0]), *rows["item_id"][begin : r + 1].tolist()]
        n_rows = int((rows["user_id"] == rows["user_id"][r]).sum())
        place = r - begin  # its target is items[place + 1]
        if place < limit:
            return torch.tensor(items[:-1])
        last = min(limit * (1 + (place - limit) // limit + 1), n_rows) - 1  # of its window
        return torch.tensor(items[last + 1 - limit : -1])

    expected = reference_cross_entropy(net, loader.dataset.inter_feat, history_of)
    assert mean_rec(net, loader) == pytest.approx(expected, rel=1e-5)
    exact = build(tiny_data_path, tmp_path, causal_stride=1)[1][0]
    assert len(loader.batch_sampler.rows) < len(exact.batch_sampler.rows)


@torch.no_grad()
def test_items_one_by_one_give_the_ranking(tiny_data_path, tmp_path):
    net, (_, _, test) = build(tiny_data_path, tmp_path)
    batch, carry = next(iter(test))[0], net.encoder.start(1)
    for item in batch[net.ITEM_SEQ][0, : int(batch[net.ITEM_SEQ_LEN][0])]:
        h, carry = net.encoder.step(item[None], carry)
    scores = net.eval().full_sort_predict(batch[[0]])
    torch.testing.assert_close(net.score(h), scores, rtol=1e-4, atol=1e-4)


def test_the_items_bias_begins_as_the_other_weights(tiny_data_path, tmp_path):
    """As in the authors' code: normal numbers, cut off at twice their deviation."""
    contract = TestLRURec()
    config = contract.make_config(tiny_data_path, tmp_path)
    net = contract.make_model(config, create_loaders(config, create_dataset(config))[0].dataset)
    bias = net.item_bias.detach()
    assert bias.abs().max() <= 0.04 and 0.01 < bias.std() < 0.03 and abs(bias.mean()) < 0.01


def test_lower_precision_gives_about_the_same(tiny_data_path, tmp_path):
    net, (loader, _, _) = build(tiny_data_path, tmp_path)
    assert_like_in_16_bits(net, next(iter(loader)))


@pytest.fixture
def parts(tiny_settings, tmp_path):
    settings = {**tiny_settings, **SMALL, "epochs": 1}
    return prepare("LRURec", settings, tmp_path / "run")


def test_weight_decay_is_decoupled_from_the_gradient(parts):
    """Without a gradient Adam's step is 0: only what AdamW takes off by itself is gone."""
    before = {name: p.detach().clone() for name, p in parts.model.named_parameters()}
    for parameter in parts.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    parts.trainer.optimizer.step()
    for name, parameter in parts.model.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (1 - 0.001 * 0.01), rtol=1e-6, atol=0)


def test_gradients_are_clipped(parts, monkeypatch):
    limits, clip = [], host.clip_grad_norm_
    monkeypatch.setattr(
        host, "clip_grad_norm_", lambda p, **how: (limits.append(how), clip(p, **how))
    )
    parts.fit()
    assert limits and all(how == {"max_norm": 5} for how in limits)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"train_on": "casual"}, "train_on: 'casual' is none of causal, prefix; did you mean 'ca"),
        ({"softmax_memory": 0.0}, "softmax_memory"),
        ({"causal_stride": 0}, "causal_stride"),
        ({"n_layers": 0}, "n_layers"),
        ({"inner_size": -1}, "inner_size must be greater than 0, not -1"),
        ({"attn_dropout_prob": 1.0}, "attn_dropout_prob: 1.0 must be at least 0 and less than 1"),
    ],
)
def test_bad_settings_name_their_key(tiny_data_path, tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        build(tiny_data_path, tmp_path, **settings)


def test_rows_that_are_no_windows_are_an_error(tiny_data_path, tmp_path):
    net, (loader, _, _) = build(tiny_data_path, tmp_path)
    batch = next(iter(loader))
    batch.drop(N_SCORED)
    with pytest.raises(UserError, match=N_SCORED):
        net.losses(batch)
