"""TextPreferenceRetriever: the contract, its losses by their definitions, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from contracts import ModelContract
from recbole.utils import init_seed

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.types import UserError
from tests.models.feature_help import item_feature, user_feature

CUTOFF = 12_005.0
"""A time in the tiny data: users 0 to 11 end before it, and those after user 12 begin later."""


class Text(ModelContract):
    model = "TextPreferenceRetriever"
    tokens = 0
    stored = False

    def make_config(self, data_path: Any, folder: Any, **more: Any) -> Config:
        features = {"text_feature": item_feature(folder, "title", tokens=self.tokens)}
        if self.stored:
            features["user_feature"] = user_feature(folder, "taste", CUTOFF)
        return super().make_config(data_path, folder, **{**features, **more})


class TestTextPreferenceRetriever(Text):
    settings = {"contrastive_weight": 0.1, "diversity_weight": 0.1}


class TestStoredTextsAndTokens(Text):
    """A text for the user, several vectors for an item, a chunk at a time, match or not."""

    tokens = 4
    stored = True
    settings = {"profile": "stored", "retrieval_loss": "bce", "content_memory": 0.05}


def build(tiny_data_path, tmp_path, contract=None, **settings):
    contract = contract or Text()
    config = contract.make_config(tiny_data_path, tmp_path, **settings)
    init_seed(config["seed"], True)
    loaders = create_loaders(config, create_dataset(config))
    return contract.make_model(config, loaders[0].dataset), loaders


def vectors_of(net, batch):
    """Return users [B, D] and all items [N, D] in numpy, and the targets [B]."""
    with torch.no_grad():
        users, items = net.encode(batch), net.encode_items(torch.arange(net.n_items))
    return users.double().numpy(), items.double().numpy(), batch[net.POS_ITEM_ID].numpy()


def test_users_and_items_have_unit_length(tiny_data_path, tmp_path):
    net, (loader, _, _) = build(tiny_data_path, tmp_path)
    users, items, _ = vectors_of(net, next(iter(loader)))
    for x in (users, items):
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-5)


def test_scores_are_cosines_times_a_learned_scale(tiny_data_path, tmp_path):
    net, (_, _, test) = build(tiny_data_path, tmp_path, retrieval_loss="bce", scale=7.0)
    with torch.no_grad():
        net.score.bias.fill_(-2.0)
        batch = next(iter(test))[0]
        scores = net.eval().full_sort_predict(batch).numpy()
    users, items, _ = vectors_of(net, batch)
    np.testing.assert_allclose(
        scores[:, 1:], (users @ items.T * 7 - 2)[:, 1:], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("softmax", ["full", "in_batch"])
def test_softmax_by_its_definition(tiny_data_path, tmp_path, softmax):
    net, (loader, _, _) = build(tiny_data_path, tmp_path, softmax=softmax, scale=5.0)
    batch = next(iter(loader))
    users, items, targets = vectors_of(net, batch)
    count = np.bincount(loader.dataset.inter_feat[net.POS_ITEM_ID].numpy(), minlength=net.n_items)
    q, losses = count / count.sum(), []
    for user, target in zip(users, targets, strict=True):
        own = np.exp(5 * user @ items[target])
        if softmax == "full":
            others = sum(np.exp(5 * user @ items[i]) for i in range(1, net.n_items) if i != target)
        else:  # each target of the batch stands for all items that it could have been
            others = sum(
                np.exp(5 * user @ items[i]) / (len(targets) * q[i]) for i in targets if i != target
            )
        losses.append(-np.log(own / (own + others)))
    assert net.losses(batch)["rec"].item() == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("loss", ["bpr", "bce"])
def test_pairs_by_their_definition(tiny_data_path, tmp_path, loss):
    settings = {"retrieval_loss": loss, "n_negatives": 3, "scale": 5.0}
    net, (loader, _, _) = build(tiny_data_path, tmp_path, **settings)
    batch = next(iter(loader))
    users, items, targets = vectors_of(net, batch)
    torch.manual_seed(3)
    others = torch.randint(1, net.n_items - 1, (len(targets), 3)).numpy()
    others += others >= targets[:, None]
    positive = 5 * (users * items[targets]).sum(1)
    negative = 5 * np.einsum("bd,bkd->bk", users, items[others])
    if loss == "bpr":
        expected = np.log1p(np.exp(negative - positive[:, None])).mean()
    else:
        expected = (np.log1p(np.exp(-positive)).mean() + np.log1p(np.exp(negative)).mean()) / 2
    torch.manual_seed(3)
    assert net.losses(batch)["rec"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("tokens", [0, 4])
def test_item_vectors_are_computed_once_for_an_evaluation(
    tiny_data_path, tmp_path, tokens, monkeypatch
):
    contract = Text()
    contract.tokens = tokens
    net, (loader, _, test) = build(
        tiny_data_path, tmp_path, contract, eval_batch_size=8, eval_memory_mib=0.001
    )
    asked: list[int] = []
    compute = net.content._vectors
    monkeypatch.setattr(net.content, "_vectors", lambda ids: asked.append(len(ids)) or compute(ids))

    def evaluate():
        asked.clear()
        net.eval()
        with torch.no_grad():
            return [net.full_sort_predict(batch[0]) for batch in test]

    first = evaluate()
    assert len(first) > 2 and asked == [net.n_items]
    net.train()
    net.calculate_loss(next(iter(loader))).backward()
    torch.optim.SGD(net.parameters(), lr=1.0).step()
    second = evaluate()
    assert asked == [net.n_items] and not torch.allclose(first[0], second[0])
    with torch.no_grad():  # weights that move under an evaluation are noticed
        net.content.delta.weight.add_(torch.randn_like(net.content.delta.weight))
        net.full_sort_predict(next(iter(test))[0])
    assert asked == [net.n_items] * 2


def test_joint_training_scores_candidates_with_gradients(tiny_data_path, tmp_path):
    net, (loader, _, _) = build(tiny_data_path, tmp_path)
    batch = next(iter(loader))
    candidates = torch.randint(1, net.n_items, (len(batch), 5))
    some, every = net.scores(batch, candidates), net.scores(batch)
    torch.testing.assert_close(some, every.gather(1, candidates))
    some.sum().backward()
    assert net.content.projections["text"].weight.grad.any() and net.score.log_scale.grad.any()


def test_rows_see_only_texts_from_before_their_target(tiny_data_path, tmp_path):
    contract = Text()
    contract.stored = True
    net, (loader, _, test) = build(tiny_data_path, tmp_path, contract, profile="stored")
    rows = loader.dataset.inter_feat
    usable = net.usable_profiles(rows[torch.arange(len(rows))])
    users = [
        int(token[1:]) if token != "[PAD]" else -1
        for token in loader.dataset.field2id_token["user_id"]
    ]
    for row, times in enumerate(rows["timestamp"].tolist()):
        user = users[rows["user_id"][row]]
        assert bool(usable[row]) == (times > CUTOFF), (user, times)
    assert usable.any() and not usable.all()
    batch = rows[torch.arange(len(rows))]
    before = net.eval().encode(batch)
    net.user_text.source.values.neg_()
    changed = (net.encode(batch) - before).abs().amax(1) > 1e-6
    with_text = batch["user_id"] != users.index(2)
    assert torch.equal(changed, usable & with_text)
    batch = next(iter(test))[0]
    batch.drop("timestamp")  # for a recommendation of today all texts are old
    assert torch.equal(net.usable_profiles(batch), batch["user_id"] != users.index(2))
    with pytest.raises(UserError, match="user_feature needs the field 'timestamp' .TIME_FIELD."):
        net.train().usable_profiles(batch)


def test_the_result_says_what_is_covered(tiny_data_path, tmp_path):
    net, _ = build(tiny_data_path, tmp_path)
    assert net.result_extra()["coverage"] == {"text": pytest.approx(38 / 40)}


def test_the_scale_is_bounded_and_not_negative(tiny_data_path, tmp_path):
    net, _ = build(tiny_data_path, tmp_path, scale=3.0)
    for log_scale, expected in ((np.log(3), 3.0), (50.0, 100.0), (-50.0, 0.0)):
        with torch.no_grad():
            net.score.log_scale.fill_(log_scale)
        assert net.score(torch.ones(())).item() == pytest.approx(expected, abs=1e-4)


def test_histories_and_items_without_any_text(tiny_data_path, tmp_path):
    class Sparse(Text):
        def make_config(self, data_path, folder, **more):
            feature = item_feature(folder, "sparse", missing=range(1, 40))
            return super().make_config(data_path, folder, text_feature=feature, **more)

    net, (loader, _, test) = build(tiny_data_path, tmp_path, Sparse())
    assert net.content.present(torch.arange(net.n_items)).sum() == 1
    for batch in loader:
        net.calculate_loss(batch).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    with torch.no_grad():
        assert net.eval().full_sort_predict(next(iter(test))[0])[:, 1:].isfinite().all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"text_feature": None}, "text_feature: name the stored texts of the items"),
        ({"text_feature": "nowhere"}, "there is no feature 'nowhere'"),
        ({"retrieval_loss": "brp"}, "retrieval_loss: 'brp' is none of.*did you mean 'bpr'"),
        ({"softmax": "half"}, "softmax: 'half' is none of full, in_batch"),
        ({"profile": "pool"}, "profile: 'pool' is none of pooled, stored"),
        ({"profile": "stored"}, "profile: stored and user_feature go together"),
        ({"user_feature": "taste"}, "profile: stored and user_feature go together"),
        ({"token_pooling": "max"}, "token_pooling: 'max' is none of mean, attention"),
        ({"scale": 0.0}, "scale: 0.0 must be greater than 0"),
        ({"contrastive_weight": -1.0}, "contrastive_weight: -1.0 must be at least 0"),
        ({"diversity_weight": -1.0}, "diversity_weight: -1.0 must be at least 0"),
        ({"n_negatives": 0}, "n_negatives: 0 must be greater than 0"),
        ({"content_memory": -1.0}, "content_memory: -1.0 must be greater than 0"),
        ({"diversity_top_k": 1}, "diversity_top_k: a list of one is never diverse"),
    ],
)
def test_bad_settings_are_one_sentence(tiny_data_path, tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        build(tiny_data_path, tmp_path, **settings)


def test_texts_of_users_must_say_when_they_were_written(tiny_data_path, tmp_path, caplog):
    feature = user_feature(tmp_path, "taste", None)
    with pytest.raises(UserError, match="does not say up to which time its texts were written"):
        build(tiny_data_path, tmp_path, profile="stored", user_feature=feature)
    may = {"user_feature_may_leak": True}
    with pytest.raises(UserError, match="user_feature_may_leak: no user_feature is named"):
        build(tiny_data_path, tmp_path, **may)
    net, (loader, _, _) = build(
        tiny_data_path, tmp_path, profile="stored", user_feature=feature, **may
    )
    assert "user_feature 'taste' may leak" in caplog.text and "prove nothing" in caplog.text
    rows = loader.dataset.inter_feat
    batch = rows[torch.arange(len(rows))]
    two = loader.dataset.token2id("user_id", "u2")  # who has no text
    assert torch.equal(net.usable_profiles(batch), batch["user_id"] != two)
    feature = user_feature(tmp_path, "dated", CUTOFF)
    for scaled in ({"normalize_all": True}, {"normalize_field": ["timestamp"]}):
        with pytest.raises(UserError, match="'timestamp' is scaled.*set normalize_all: False"):
            build(tiny_data_path, tmp_path, profile="stored", user_feature=feature, **scaled)
