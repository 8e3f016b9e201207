"""UR4Rec: the contract, its memory, its losses by their definitions, and the three phases."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from contracts import ModelContract, assert_like_in_16_bits
from recbole.utils import init_seed

from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.quick_start import run
from recbole_ext.types import UserError
from tests.models.feature_help import SIZE, item_feature, user_feature
from tests.modules.test_bert_init import weights, write

CUTOFF = 12_005.0
NO_DROPOUT = {
    "hidden_dropout_prob": 0.0,
    "attn_dropout_prob": 0.0,
    "retriever_dropout_prob": 0.0,
}


class Proxies(ModelContract):
    model = "UR4Rec"
    stored = False

    def make_config(self, data_path: Any, folder: Any, **more: Any) -> Any:
        features = {"text_feature": item_feature(folder, "title")}
        if self.stored:
            features["user_feature"] = user_feature(folder, "taste", CUTOFF)
        small = {"n_proxies": 3, "retriever_size": 16, "retriever_inner_size": 32}
        return super().make_config(data_path, folder, **{**small, **features, **more})


class TestUR4Rec(Proxies):
    stored = True
    settings = {"diversity_weight": 0.1, "memory_items": 4}


class TestGRU4Rec(Proxies):
    settings = {"backbone": "GRU4Rec", "n_layers": 1, "retriever_layers": 1}


def build(tiny_data_path, tmp_path, stored=False, **settings):
    contract = Proxies()
    contract.stored = stored
    config = contract.make_config(tiny_data_path, tmp_path, **{**NO_DROPOUT, **settings})
    init_seed(config["seed"], True)
    loaders = create_loaders(config, create_dataset(config))
    return contract.make_model(config, loaders[0].dataset), loaders


def test_the_memory_is_the_users_text_and_those_of_the_last_items(tiny_data_path, tmp_path):
    net, (loader, _, _) = build(tiny_data_path, tmp_path, stored=True, memory_items=4)
    rows = loader.dataset.inter_feat
    batch = rows[torch.arange(len(rows))]
    memory, mask = net.memory(batch)
    assert memory.shape == (len(rows), 5, SIZE)
    items, users = (net.texts._aligned.value.table(), net.user_texts._aligned.value.table())
    n_user_texts = 0
    for row in range(len(rows)):
        length, user = int(batch["item_length"][row]), int(batch["user_id"][row])
        history = batch["item_id_list"][row, :length].tolist()[::-1][:4]
        wanted = [users[user] if batch["timestamp"][row] > CUTOFF else np.zeros(SIZE)]
        wanted += [items[i] for i in history] + [np.zeros(SIZE)] * (4 - len(history))
        for place, x in enumerate(wanted):
            assert bool(mask[row, place]) == bool(x.any())
            if x.any():
                unit = x / np.linalg.norm(x)
                np.testing.assert_allclose(memory[row, place], unit, rtol=1e-4, atol=1e-6)
        n_user_texts += bool(wanted[0].any())
    assert 0 < n_user_texts < len(rows)


@pytest.mark.parametrize("backbone", ["SASRec", "GRU4Rec"])
@torch.no_grad()
def test_the_preference_stands_beside_each_item_at_the_input(tiny_data_path, tmp_path, backbone):
    net, (_, _, test) = build(tiny_data_path, tmp_path, backbone=backbone)
    net.concatenated.weight.normal_()
    batch = next(iter(test))[0]
    proxies = net.retriever.retrieve(*net.memory(batch))  # [B, K, d]
    scores = torch.einsum("bkd,d->bk", proxies, net.aggregate.score.weight[0])
    preference = (scores.softmax(1).unsqueeze(-1) * proxies).sum(1)  # [B, d]
    item_emb = net.encoder.item_embedding(batch["item_id_list"])  # [B, L, D]
    both = torch.cat([item_emb, preference.unsqueeze(1).expand(-1, item_emb.shape[1], -1)], -1)
    embedded = net.encoder.embed_items(both @ net.concatenated.weight.T)
    expected = net.eval().encoder.encode_embedded(embedded, batch["item_length"])
    torch.testing.assert_close(net.encode(batch), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_begins_as_the_backbone(tiny_data_path, tmp_path):
    net, (_, _, test) = build(tiny_data_path, tmp_path)
    net.encoder.item_embedding.weight.normal_()
    batch = next(iter(test))[0]
    alone = net.encoder(batch["item_id_list"], batch["item_length"])
    torch.testing.assert_close(net.encode(batch), alone, rtol=0.02, atol=0.02)
    assert not torch.equal(net.encode(batch), alone)


@torch.no_grad()
def test_losses_by_their_definition(tiny_data_path, tmp_path):
    settings = {"temperature": 0.2, "cl_weight": 0.5, "cf_weight": 0.3, "n_negatives": 2}
    net, (loader, _, _) = build(tiny_data_path, tmp_path, **settings)
    batch = next(iter(loader))
    targets = batch["item_id"]
    torch.manual_seed(3)
    losses = net.losses(batch)
    memory = net.memory(batch)
    table = net.encoder.item_embedding.weight
    proxies = net.retriever.retrieve(*memory).double().numpy()
    items = net.retriever.encode_items(table[targets]).double().numpy()
    found = []
    for user, target in zip(proxies, targets.tolist(), strict=True):
        cosines = {}
        for item, name in zip(items, targets.tolist(), strict=True):
            each = user @ item / np.linalg.norm(user, axis=1) / np.linalg.norm(item)
            cosines.setdefault(name, []).append(np.exp(each.max() / 0.2))
        own = cosines.pop(target)[0]
        found.append(-np.log(own / (own + sum(map(sum, cosines.values())))))
    assert losses["cl"].item() == pytest.approx(0.5 * np.mean(found), rel=1e-4)
    torch.manual_seed(3)
    others = torch.randint(1, net.n_items - 1, (len(targets), 2))
    others += others >= targets[:, None]
    asked = table[torch.cat([targets[:, None], others], 1)]
    logits = net.retriever.match(*memory, asked).double().numpy()
    p = 1 / (1 + np.exp(-logits))
    expected = -(np.log(p[:, 0]).mean() + np.log(1 - p[:, 1:]).mean()) / 2
    assert losses["cf"].item() == pytest.approx(0.3 * expected, rel=1e-4)
    h = net.encode(batch)
    log_p = (h @ table[1:].T).log_softmax(1)[torch.arange(len(h)), targets - 1]
    assert losses["rec"].item() == pytest.approx(-log_p.mean().item(), rel=1e-4)


@pytest.mark.parametrize("backbone", ["SASRec", "GRU4Rec"])
def test_it_trains_in_16_bits(tiny_data_path, tmp_path, backbone):
    net, (loader, _, _) = build(tiny_data_path, tmp_path, backbone=backbone, diversity_weight=0.1)
    assert_like_in_16_bits(net, next(iter(loader)))


def test_it_can_begin_as_a_bert(tiny_data_path, tmp_path):
    folder = write(tmp_path / "bert", weights())
    net, _ = build(tiny_data_path, tmp_path, retriever_init=str(folder), retriever_layers=1)
    found = net.retriever.layer[0].self_attention.query.weight
    assert torch.equal(found, weights()["encoder.layer.0.attention.self.query.weight"])


PHASES = [
    {"name": "backbone", "train": ["encoder.*"], "losses": ["rec"], "epochs": 1},
    {"name": "retriever", "train": ["retriever.*"], "losses": ["cl", "cf"], "epochs": 1},
    {"name": "joint", "losses": ["rec", "cl", "cf"], "epochs": 1},
]


def test_the_phases_train_what_they_say(tiny_data_path, tmp_path):
    config = Proxies().make_config(tiny_data_path, tmp_path)
    given = config["callbacks"][0]["Alternate"]["phases"]
    names = ("name", "train", "losses")
    assert [[p.get(n) for n in names] for p in given] == [[p.get(n) for n in names] for p in PHASES]
    settings = {**config.external_config_dict, "callbacks": [{"Alternate": {"phases": PHASES}}]}
    folder = tmp_path / "run"
    run("UR4Rec", "tiny", config_dict={**settings, "epochs": 9, "output_dir": str(folder)})
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    counted = [{name for name, loss in line["losses"].items() if loss} for line in lines]
    assert counted == [{"rec"}, {"cl", "cf"}, {"rec", "cl", "cf"}]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backbone": "GRU"}, "backbone: 'GRU' is neither SASRec nor GRU4Rec.*'GRU4Rec'"),
        ({"text_feature": None}, "text_feature: name the stored texts of the items"),
        ({"temperature": 0.0}, "temperature: 0.0 must be greater than 0"),
        ({"memory_items": 0}, "memory_items: 0 must be greater than 0"),
        (
            {"memory_items": 1},
            "memory_items: 1 is a memory of one key.* 2 or more, or .*user_feature",
        ),
        ({"retriever_layers": 0}, "retriever_layers: 0 must be greater than 0"),
        ({"n_negatives": -1}, "n_negatives: -1 must be greater than 0"),
        ({"temperature": float("nan")}, "temperature: nan must be greater than 0"),
        ({"backbone": "GRU4Rec", "gru_size": 0}, "gru_size: 0 must be greater than 0"),
        ({"retriever_size": 0}, "retriever_size: 0 must be greater than 0"),
        ({"retriever_heads": 0}, "retriever_heads: 0 must be greater than 0"),
        ({"cl_weight": -1.0}, "cl_weight: -1.0 must be at least 0"),
        ({"cf_weight": -1.0}, "cf_weight: -1.0 must be at least 0"),
        ({"diversity_weight": -1.0}, "diversity_weight: -1.0 must be at least 0"),
        ({"retriever_dropout_prob": 1.0}, "retriever_dropout_prob: 1.0 must be .* less than 1"),
        ({"hidden_dropout_prob": -0.1}, "hidden_dropout_prob: -0.1 must be at least 0"),
        ({"n_proxies": 1}, "n_proxies takes a number from 2, not 1: a proxy attends to the others"),
        ({"retriever_heads": 3}, "hidden_size: 16 is not a multiple of n_heads 3"),
        ({"retriever_init": "nowhere"}, "retriever_init: nowhere/config.json is missing"),
        ({"proxy_pooling": "max"}, "pooling: 'max' is none of mean, attention"),
    ],
)
def test_bad_settings_are_one_sentence(tiny_data_path, tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        build(tiny_data_path, tmp_path, **settings)


def test_one_item_beside_the_users_text_is_a_memory(tiny_data_path, tmp_path):
    net, (_, _, test) = build(tiny_data_path, tmp_path, stored=True, memory_items=1)
    assert net.memory(next(iter(test))[0])[0].shape[1] == 2


def test_a_bert_has_so_many_layers(tiny_data_path, tmp_path):
    folder = write(tmp_path / "bert", weights())
    with pytest.raises(UserError, match="retriever_layers: 3, and the BERT in .* has 2; take as"):
        build(tiny_data_path, tmp_path, retriever_init=str(folder), retriever_layers=3)


def test_the_memory_takes_one_vector_of_each(tiny_data_path, tmp_path):
    tokens = item_feature(tmp_path, "tokens", tokens=3)
    with pytest.raises(UserError, match="text_feature .* has 3 vectors for an item"):
        build(tiny_data_path, tmp_path, text_feature=tokens)
    other = item_feature(tmp_path, "other", size=SIZE + 1)
    with pytest.raises(UserError, match="user_feature .* one memory holds both"):
        build(tiny_data_path, tmp_path, stored=True, text_feature=other)
