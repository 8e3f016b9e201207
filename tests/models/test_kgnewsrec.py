"""KGNewsRec: the contract of each graph encoder; each branch finds what it alone is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contracts import assert_like_in_16_bits

from recbole_ext.types import UserError
from tests.models.news_contract import NewsContract, made, trained_auc
from tests.models.news_help import N_TOPICS

ALL = {"category_weight": 0.1, "interest_weight": 0.1, "contrastive_weight": 0.1}
SMALL = {"id_embedding_size": 8, **ALL}


class TestSign(NewsContract):
    model = "KGNewsRec"
    settings = {**NewsContract.settings, **SMALL}


class TestSage(NewsContract):
    model = "KGNewsRec"
    settings = {
        **NewsContract.settings,
        **SMALL,
        **{"kg_encoder": "sage", "fusion": "concat", "loss": "bce", "branch_norm": "layer"},
    }


class TestGat(NewsContract):
    model = "KGNewsRec"
    settings = {
        **NewsContract.settings,
        **SMALL,
        **{
            "kg_encoder": "gat",
            "fusion": "attention",
            "user_encoder": "multi_head",
            "use_id": False,
        },
    }


class TestHardNegatives(NewsContract):
    model = "KGNewsRec"
    settings = {
        **NewsContract.settings,
        **SMALL,
        **{"hard_negative_share": 0.5, "hard_negative_steps": 2, "neg_ratio": 2},
    }


ALONE = {
    "id": {"use_graph": False, "text_feature": None, "category_weight": 0.0},
    "text": {"use_id": False, "use_graph": False},
    "graph": {"use_id": False, "text_feature": None},
}
"""Branch -> settings with which it is the only one."""


@pytest.mark.parametrize("branch", ALONE)
def test_a_branch_alone_finds_its_own_signal_and_no_other(news_data, branch):
    for signal in ALONE:
        settings = {**SMALL, **ALONE[branch], "dropout_prob": 0.0}
        found = trained_auc("KGNewsRec", news_data(signal), 80, **settings)
        assert found > 0.9 if branch == signal else found < 0.7


@pytest.mark.parametrize("kg_encoder", ["sage", "gat"])
def test_the_other_graph_encoders_find_it_too(news_data, kg_encoder):
    settings = {**SMALL, **ALONE["graph"], "kg_encoder": kg_encoder, "dropout_prob": 0.0}
    assert trained_auc("KGNewsRec", news_data("graph"), 80, **settings) > 0.9


@pytest.mark.parametrize(
    ("fusion", "signal"),
    [
        *(("gate", signal) for signal in ALONE),
        *(pytest.param("concat", s, marks=pytest.mark.slow) for s in ALONE),
        *(pytest.param("attention", s, marks=pytest.mark.slow) for s in ALONE),
    ],
)
def test_all_together_find_whichever_it_is(news_data, signal, fusion):
    found = trained_auc("KGNewsRec", news_data(signal), 120, **SMALL, fusion=fusion)
    assert found > 0.85


@torch.no_grad()
def test_the_further_losses_are_what_they_say(news_data):
    weights = {"category_weight": 0.5, "interest_weight": 2.0, "contrastive_weight": 3.0}
    more = {"loss": "bce", "modality_dropout_prob": 0.0, "dropout_prob": 0.0, **weights}
    net, train = made("KGNewsRec", news_data("text"), **{**SMALL, **more})
    batch = next(iter(train))
    found = net.losses(batch)
    category, items = train.dataset.item_feat["category"], batch["item_id"]
    ids = torch.cat([batch["history"].flatten(), items]).unique()

    mapped, present = net.branches(ids)
    values = []
    for row, news in enumerate(ids.tolist()):
        there = [k for k in (1, 2) if present[row, k]]  # text and graph, and not the id
        if news and there:
            x = torch.stack([mapped[k][row] for k in there]).mean(0)
            values.append(-net.category_head(x).log_softmax(0)[category[news]])
    assert len(values) < len(ids) - 1  # news of nothing count not
    torch.testing.assert_close(found["category"], 0.5 * torch.stack(values).mean())

    news = net.all_news()
    history = batch["history"]
    user = net.user(news[history], net.says_something(history))
    clicked = batch["label"] > 0
    logits = net.interest_head(user[clicked]).log_softmax(1)
    wanted = -logits[torch.arange(len(logits)), category[items[clicked]]].mean()
    torch.testing.assert_close(found["interest"], 2 * wanted)

    cosines = F.normalize(user[clicked], dim=1) @ F.normalize(news[items[clicked]], dim=1).T
    terms = []
    for i, click in enumerate(items[clicked]):
        others = [j for j, item in enumerate(items[clicked]) if j == i or item != click]
        terms.append(-(cosines[i, others] / 0.1).log_softmax(0)[others.index(i)])
    torch.testing.assert_close(found["contrastive"], 3 * torch.stack(terms).mean())


@torch.no_grad()
def test_news_that_training_has_not_seen_have_no_id(news_data):
    net, train = made("KGNewsRec", news_data("text"), **SMALL)
    net.eval()
    dataset = train.dataset
    new, bare, old = dataset.token2id("item_id", ["N7", "N5", "N9"])  # 5 has no text either
    assert net.seen[[new, bare, old]].tolist() == [False, False, True]
    assert net.says_something(torch.tensor([new, bare, old, 0])).tolist() == [
        *(True, False, True, False)
    ]
    before = net.all_news()
    net.id_embedding.weight[[new, bare]] += 5.0
    torch.testing.assert_close(net.all_news(), before)
    net.id_embedding.weight[old] += torch.arange(8.0)
    assert not torch.allclose(net.all_news()[old], before[old])


def test_the_share_of_hard_negatives_grows_and_goes_on_where_it_was(news_data):
    settings = {**SMALL, "hard_negative_share": 0.5, "hard_negative_steps": 4, "neg_ratio": 2}
    net, train = made("KGNewsRec", news_data("text"), **settings)
    batch = next(iter(train))
    assert batch["neg_item_id"].shape[1] == 20
    shares = []
    for _ in range(6):
        shares.append(net.hard_share * min(1, net.hard_step.item() / net.hard_steps))
        net.losses(batch)
    assert shares == [0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert net.state_dict()["hard_step"] == 6
    net.eval()
    net.losses(batch)
    assert net.hard_step == 6


@pytest.mark.parametrize("kg_encoder", ["sign", "sage", "gat"])
def test_in_16_bits(news_data, kg_encoder):
    settings = {**SMALL, "modality_dropout_prob": 0.0, "dropout_prob": 0.0}
    settings |= {"kg_encoder": kg_encoder, "use_id": False}
    net, train = made("KGNewsRec", news_data("text"), **settings)
    assert_like_in_16_bits(net, next(iter(train)))


NOTHING = {"use_id": False, "use_graph": False, "text_feature": None}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (NOTHING, "use_id, text_feature, use_graph: news have no branch"),
        ({**NOTHING, "use_id": True}, "category_weight: the category is told from text and graph"),
        ({"kg_encoder": "sagge"}, "kg_encoder: 'sagge' is none of sign, sage, gat; did you mean"),
        ({"fusion": "late"}, "fusion: 'late' is none of gate, concat, attention"),
        ({"branch_norm": "batch"}, "branch_norm: 'batch' is none of l2, layer"),
        ({"ENTITY_FIELD": "x"}, r"loaded without 'x' \(ENTITY_FIELD\).*set use_graph: False"),
        ({"CATEGORY_FIELD": "x"}, r"loaded without 'x' \(CATEGORY_FIELD\).*category_weight: 0"),
        ({"text_feature": None, "use_entity_id": False}, "there is nothing for the graph to carry"),
        ({"kg_encoder": "gat", "n_heads": 3}, "n_heads 3"),
        ({"modality_dropout_prob": 1.0}, "modality_dropout_prob: 1.0 must be"),
        ({"hard_negative_share": 1.5}, "hard_negative_share: 1.5 must lie in"),
        ({"loss": "bce", "hard_negative_share": 0.5}, "hard_negative_share: 0.5 is of loss: impr"),
        ({"entity_vectors": "no.vec"}, "entity_vectors: cannot read no.vec"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(news_data, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        made("KGNewsRec", news_data("text"), **{**SMALL, **settings})


@pytest.mark.parametrize("kg_encoder", ["sign", "sage", "gat"])
def test_stored_vectors_of_entities_are_found_beside_the_data(news_data, tmp_path, kg_encoder):
    data, vectors = news_data("graph")
    shutil.copytree(Path(data) / "tiny", tmp_path / "tiny")
    rng = np.random.default_rng(0)
    lines = []
    for topic, k in np.ndindex(N_TOPICS, 4):
        vector = rng.normal(size=6) + 3 * np.eye(6)[topic]
        lines.append("\t".join([f"Q{topic}{k}", *map(str, vector)]))
    settings = {**SMALL, **ALONE["graph"], "use_entity_id": False, "kg_encoder": kg_encoder}
    settings["dropout_prob"] = 0.0
    (tmp_path / "tiny" / "entity_embedding.vec").write_text("\n".join(lines[1:]) + "\n")
    assert trained_auc("KGNewsRec", (str(tmp_path), vectors), 80, **settings) > 0.9
    net, _ = made("KGNewsRec", (str(tmp_path), vectors), **settings)
    assert not net.token_fields  # good for any other data
