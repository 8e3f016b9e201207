"""JointRec: the contract with each retriever, its scores and losses by their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from contracts import ModelContract
from recbole.utils import init_seed

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.models.multimodal.jointrec import LOSSES, ScoreMix, rank_fusion
from recbole_ext.modules.memory_bank import bank_info_nce
from recbole_ext.modules.sampling import other_items
from recbole_ext.registry import get_model
from recbole_ext.types import UserError
from tests.models.feature_help import item_feature

SMALL = {"hidden_size": 8, "inner_size": 16, "joint_negatives": 7}


class Joint(ModelContract):
    model = "JointRec"

    def make_config(self, data_path: Any, folder: Any, **more: Any) -> Config:
        feature = item_feature(folder, "title")
        return super().make_config(data_path, folder, **{"text_feature": feature, **SMALL, **more})


class TestJointRec(Joint):
    settings = {"memory_bank_size": 0}


class Banked(Joint):
    def test_losses_are_named_finite_scalars_that_sum_up(self, net, batch):
        # in training a batch is in the bank when it comes the second time
        super().test_losses_are_named_finite_scalars_that_sum_up(net.eval(), batch)


class TestJointRecWithABank(Banked):
    settings = {"memory_bank_size": 16, "sasrec_loss": "bpr", "hidden_dropout_prob": 0.1}


class TestJointRecOfRanks(Banked):
    """And of texts and images."""

    settings = {"combine": "rank_fusion", "retriever": "MultimodalPreferenceRetriever"}

    def make_config(self, data_path: Any, folder: Any, **more: Any) -> Config:
        poster = item_feature(folder, "poster", size=10, missing=(5, 17))
        return super().make_config(data_path, folder, **{"image_feature": poster, **more})


OF_PROXIES = {
    "retriever": "UR4Rec",
    "retriever_config": {"n_proxies": 3, "retriever_size": 16, "retriever_inner_size": 32},
}


class TestJointRecOfProxies(Banked):
    settings = {**OF_PROXIES, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1}


class TestJointRecOfProxiesWithoutABank(Joint):
    settings = {
        **OF_PROXIES,
        "retriever_config": {**OF_PROXIES["retriever_config"], "backbone": "GRU4Rec"},
        "memory_bank_size": 0,
    }


@pytest.fixture
def made(tiny_data_path, tmp_path):
    """Return a model and its loaders for settings."""

    def make(**settings: Any) -> tuple[Any, Any]:
        contract = Joint()
        config = contract.make_config(tiny_data_path, tmp_path, **settings)
        init_seed(3, True)
        loaders = create_loaders(config, create_dataset(config))
        return contract.make_model(config, loaders[0].dataset), loaders

    return make


@torch.no_grad()
def test_the_score_is_the_sum_of_the_parts(made):
    net, (_, _, test) = made()
    for parameter in net.mix.parameters():
        parameter.normal_(generator=torch.Generator().manual_seed(1))
    batch = next(iter(test))[0]
    scores = net.eval().full_sort_predict(batch).double().numpy()
    h, items = net.encode(batch).double().numpy(), net.item_weight.double().numpy()
    theirs = net.retriever.full_sort_predict(batch).double().numpy()
    user = net.mix.of_user.weight.double().numpy(), net.mix.of_user.bias.double().numpy()
    gate = h @ user[0].T + user[1] + items @ net.mix.of_item.weight.double().numpy()[0]  # [B, N]
    one, two = np.exp(net.mix.log_scale.double().numpy())
    wanted = one * (h @ items.T) + two * theirs / (1 + np.exp(-gate))
    np.testing.assert_allclose(scores[:, 1:], wanted[:, 1:], rtol=1e-4, atol=1e-5)


def test_a_gate_that_has_not_learned_is_nearly_closed():
    mix, user, items = ScoreMix(4), torch.randn(2, 4), torch.randn(3, 4)
    mixed = mix(torch.zeros(2, 3), torch.ones(2, 3), user, items)
    assert mixed.flatten().tolist() == pytest.approx([1 / (1 + np.exp(2))] * 6, abs=1e-6)


def test_ranks_are_fused_by_their_reciprocals():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 6, (4, 9)), rng.integers(0, 6, (4, 9))  # with ties
    found = rank_fusion(torch.tensor(one), torch.tensor(two), 10.0)
    for row in range(4):
        for i in range(9):
            ranks = [1 + (scores[row] > scores[row, i]).sum() for scores in (one, two)]
            wanted = sum(1 / (10.0 + rank) for rank in ranks)
            assert float(found[row, i]) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("combine", ["learned", "rank_fusion"])
@torch.no_grad()
def test_candidates_have_the_scores_that_they_have_among_all(made, combine):
    net, (_, _, test) = made(combine=combine)
    for parameter in net.mix.parameters():
        parameter.normal_(generator=torch.Generator().manual_seed(1))
    batch = next(iter(test))[0]
    candidates = torch.arange(1, 9).repeat(len(batch), 1) + torch.arange(len(batch))[:, None] % 5
    found = net.eval().scores(batch, candidates)
    torch.testing.assert_close(found, net.full_sort_predict(batch).gather(1, candidates))


def test_the_losses_of_a_part_that_does_not_train_are_zero(made):
    net, (train, _, _) = made(memory_bank_size=16)
    batch = next(iter(train))
    net.losses(batch)
    net.eval()  # the bank has the batch, and keeps it so
    net.bank.ids.zero_()  # of other items, which are negatives
    for frozen, zero in (("sasrec", {"sasrec"}), ("retriever", {"retrieval", "contrastive"})):
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        found = net.losses(batch)
        assert tuple(found) == LOSSES
        for name in ("sasrec", "retrieval", "contrastive", "joint"):
            assert found[name].requires_grad == (name not in zero), (frozen, name)
            assert (found[name].item() == 0) == (name in zero), (frozen, name)


def test_candidates_are_the_same_and_begin_with_the_target(made):
    net, (train, _, _) = made()
    batch = next(iter(train))
    losses = net.eval().losses(batch)
    sets = net.score_sets
    assert sets["sasrec"].shape == sets["retriever"].shape == (len(batch), 8)
    target = batch[net.POS_ITEM_ID]
    wanted = net.encode(batch) @ net.item_weight.T
    own = wanted.gather(1, target[:, None]).squeeze(1)
    torch.testing.assert_close(sets["sasrec"][:, 0], own)
    theirs = net.retriever.scores(batch, target[:, None]).squeeze(1)
    torch.testing.assert_close(sets["retriever"][:, 0], theirs)
    gate = torch.sigmoid(torch.tensor(-2.0))
    mixed = sets["sasrec"] + gate * sets["retriever"]  # nothing has been learned
    torch.testing.assert_close(losses["joint"], -mixed.log_softmax(1)[:, 0].mean())


@pytest.mark.parametrize("frozen", ["", "sasrec", "retriever"])
@pytest.mark.parametrize(
    "more", [{}, {"softmax": "in_batch"}, {"retrieval_loss": "bpr", "n_negatives": 5}]
)
@pytest.mark.parametrize("bank", [0, 16])
def test_a_step_encodes_its_items_once(made, bank, more, frozen):
    net, (train, _, _) = made(memory_bank_size=bank, retriever_config=more)
    for parameter in getattr(net, frozen).parameters() if frozen else ():
        parameter.requires_grad_(False)
    encoders = {"items": net.retriever.content, "users": net.retriever.user_profile}
    calls = []
    for name, module in {**encoders, "histories": net.sasrec}.items():
        module.register_forward_hook(lambda *_, _of=name: calls.append(_of))
    batch = next(iter(train))
    torch.manual_seed(2)
    losses = net.losses(batch)
    keys = ["items"] if bank and frozen != "retriever" else []  # those of the slow copy
    assert sorted(calls) == sorted(["items", "users", "histories", *keys])
    theirs = net.retriever.scores(batch, drawn_candidates(net, batch))
    torch.testing.assert_close(net.score_sets["retriever"], theirs)
    if frozen != "retriever" and "n_negatives" not in more:  # of which nothing is drawn
        alone = net.retriever.losses(batch)["rec"]
        torch.testing.assert_close(losses["retrieval"], alone)


def test_a_step_asks_the_memory_once(made, monkeypatch):
    """UR4Rec's proxies: for its scores, its losses and the bank."""
    net, (train, _, _) = made(memory_bank_size=16, retriever="UR4Rec", retriever_config=QUIET)
    calls, retrieve = [], net.retriever.retriever.retrieve
    monkeypatch.setattr(
        net.retriever.retriever, "retrieve", lambda *a: calls.append(0) or retrieve(*a)
    )
    losses = net.losses(next(iter(train)))
    assert len(calls) == 1
    assert losses["retrieval"] > 0 and losses["matching"] > 0


def drawn_candidates(net: Any, batch: Any) -> torch.Tensor:
    """Return the candidates [B, 1 + K] that seed 2 draws."""
    torch.manual_seed(2)
    target = batch[net.POS_ITEM_ID]
    negatives = other_items(target, net.n_negatives, net.n_items)
    return torch.cat([target[:, None], negatives], dim=1)


QUIET = {**OF_PROXIES["retriever_config"], "retriever_dropout_prob": 0.0}


@pytest.mark.parametrize(
    "settings",
    [{}, {"retriever": "UR4Rec", "retriever_config": QUIET}],
    ids=["text", "proxies"],
)
def test_the_bank_fills_with_keys_of_the_slow_encoder(made, settings):
    net, (train, _, _) = made(memory_bank_size=1000, bank_decay=0.5, **settings)
    assert len(net.bank.keys) == net.n_items - 1  # no longer than the catalogue
    batches = [batch for batch, _ in zip(train, range(3), strict=False)]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for batch in batches:
        with torch.no_grad():
            keys = net.slow_content(batch[net.POS_ITEM_ID])
        before = int(net.bank.n_pushed)
        losses = net.losses(batch)
        assert float(losses["contrastive"]) == 0 if before == 0 else losses["contrastive"] > 0
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        size = len(net.bank.keys)
        place = (before + torch.arange(len(keys)))[-size:] % size
        torch.testing.assert_close(net.bank.keys[place], keys[-size:])
        assert torch.equal(net.bank.ids[place], batch[net.POS_ITEM_ID][-size:])
    fast = net.retriever.key_encoder(batches[0][net.POS_ITEM_ID])
    assert not torch.allclose(fast, net.slow_content(batches[0][net.POS_ITEM_ID]), atol=1e-3)
    pushed = int(net.bank.n_pushed)
    net.eval().losses(batches[0])
    assert int(net.bank.n_pushed) == pushed, "an evaluation leaves it alone"


@pytest.mark.parametrize(
    "settings",
    [{}, {"retriever": "UR4Rec", "retriever_config": {**QUIET, "cl_weight": 0.2}}],
    ids=["text", "proxies"],
)
@torch.no_grad()
def test_the_banks_contrast_is_of_cosines(made, settings):
    """InfoNCE by its definition: positive and negatives are cosines alike, within [-1, 1]."""
    net, (train, _, _) = made(
        memory_bank_size=1000, bank_temperature=0.2, contrastive_weight=0.2, **settings
    )
    first, second = (batch for batch, _ in zip(train, range(2), strict=False))
    net.losses(first)
    asked, held = first[net.POS_ITEM_ID], net.n_items - 1
    net.eval()
    losses = []
    queries, targets = net.retriever.towers(second).queries.numpy(), second[net.POS_ITEM_ID]
    bank, own = (net.retriever.key_encoder(ids).numpy() for ids in (asked[-held:], targets))
    for user, target, key in zip(queries, targets.tolist(), own, strict=True):
        others = bank[(asked[-held:] != target).numpy()]
        powers = [np.exp(cosine(user, one) / 0.2) for one in (key, *others)]
        losses.append(-np.log(powers[0] / sum(powers)))
    found = net.losses(second)["contrastive"].item()
    assert found == pytest.approx(0.2 * np.mean(losses), rel=1e-4)


def cosine(user: np.ndarray, item: np.ndarray) -> float:
    """Return the cosine of a user's vector, or of the nearest of several, and an item's."""
    users = user.reshape(-1, len(item)).astype(float)
    return float((users @ item / np.linalg.norm(users, axis=1) / np.linalg.norm(item)).max())


@pytest.mark.parametrize(
    ("settings", "weight"),
    [
        ({"contrastive_weight": 0.3}, 0.3),
        ({"contrastive_weight": 0.3, "retriever_config": {"contrastive_weight": 0.6}}, 0.6),
        ({"retriever": "UR4Rec", "retriever_config": {**QUIET, "cl_weight": 0.4}}, 0.4),
    ],
    ids=str,
)
def test_the_banks_contrast_has_the_weight_of_the_one_that_it_replaces(made, settings, weight):
    net, (train, _, _) = made(memory_bank_size=16, bank_temperature=0.2, **settings)
    batch = next(iter(train))
    net.losses(batch)  # fills the bank
    target = batch[net.POS_ITEM_ID]
    with torch.no_grad():
        loss = net.eval().losses(batch)["contrastive"]
        keys, queries = net.slow_content(target), net.retriever.towers(batch).queries
    assert keys.shape[1] == net.bank.keys.shape[1] == queries.shape[-1]
    expected = bank_info_nce(queries, keys, target, net.bank, 0.2)
    assert loss.item() == pytest.approx(weight * expected.item(), rel=1e-5) != 0


def test_pictures_that_the_retriever_does_not_read_are_said(tiny_data_path, tmp_path, caplog):
    poster = item_feature(tmp_path, "poster", size=10)
    found = []
    for retriever in ("TextPreferenceRetriever", "MultimodalPreferenceRetriever"):
        caplog.clear()
        more = {"retriever": retriever, "image_feature": poster}
        config = Joint().make_config(tiny_data_path, tmp_path, **more)
        get_model("JointRec").check_settings(config, None)
        found.append("image_feature does nothing" in caplog.text)
    assert found == [True, False]


TEXT, PATCHES = 3, 4


@pytest.mark.parametrize(
    ("tokens", "fusion"),
    [
        ((0, 0), {"fusion": "late", "late": "concat"}),
        ((0, 0), {"fusion": "late", "late": "gate"}),
        ((TEXT, PATCHES), {"fusion": "late", "late": "attention"}),
        ((TEXT, PATCHES), {"fusion": "early"}),
        ((0, 0), {"fusion": "cross_modal", "use_id_key": True}),
        ((TEXT, PATCHES), {"fusion": "cross_modal"}),
        ((0, PATCHES), {"fusion": "token"}),
    ],
    ids=str,
)
def test_each_fusion_trains_inside(made, tmp_path, tokens, fusion):
    """What each loss moves: its own part, and ``joint`` all of them."""
    missing = {"size": 10, "missing": (5, 17)}
    net, (train, _, test) = made(
        text_feature=item_feature(tmp_path, "words", tokens=tokens[0]),
        image_feature=item_feature(tmp_path, "poster", tokens=tokens[1], **missing),
        retriever="MultimodalPreferenceRetriever",
        retriever_config=fusion,
        memory_bank_size=16,
    )
    with torch.no_grad():  # away from the start, where delta is zero and so is its key
        net.retriever.content.delta.weight[1:].normal_(std=0.1)
    moved: dict[str, set[str]] = {name: set() for name in LOSSES}
    for batch in train:
        for name, loss in net.losses(batch).items():
            assert loss.isfinite(), name
            net.zero_grad(set_to_none=True)
            if loss.requires_grad:
                loss.backward(retain_graph=True)
            for weight, parameter in net.named_parameters():
                if parameter.grad is not None and parameter.grad.any():
                    assert parameter.grad.isfinite().all(), (name, weight)
                    moved[name].add(weight)
    # attention does not change when all keys shift alike
    everything = {n for n, _ in net.named_parameters() if not n.endswith("key.bias")}
    moved = {name: weights & everything for name, weights in moved.items()}
    parts = {part: {n for n in everything if n.startswith(part)} for part in ("sas", "retriever")}
    assert moved["joint"] == everything
    assert moved["sasrec"] == parts["sas"]
    assert moved["retrieval"] == parts["retriever"]
    fusing = {n for n in everything if n.startswith("retriever.content.fusion.")}
    for name in ("contrastive", "diversity"):  # an item without any content is in no profile
        assert {n for n in fusing if not n.endswith("missing")} <= moved[name], name
        assert moved[name] <= parts["retriever"], name
    assert moved["consistency"] == {"retriever.content.projections.image.weight"}
    batch = next(iter(test))[0]
    with torch.no_grad():
        scores = net.eval().full_sort_predict(batch)
        batch[net.ITEM_ID] = torch.full((len(batch),), 17)
        torch.testing.assert_close(net.predict(batch), scores[:, 17])


def test_of_one_modality_there_is_nothing_to_be_consistent_with(made, tmp_path):
    """JointRec's weight is for two; one of the retriever's own is refused."""
    images = {"text_feature": None, "image_feature": item_feature(tmp_path, "poster")}
    images["retriever"] = "MultimodalPreferenceRetriever"
    net, (train, _, _) = made(consistency_weight=0.5, **images)
    assert net.losses(next(iter(train)))["consistency"].item() == 0
    with pytest.raises(UserError, match="consistency_weight: of one modality there is nothing"):
        made(retriever_config={"consistency_weight": 0.5}, **images)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"combine": "sum"}, "combine: 'sum' is none of learned, rank_fusion"),
        ({"retriever": "BPR"}, "retriever: 'BPR' is none of TextPreferenceRetriever, Multi"),
        ({"retriever": "UR4rec"}, "retriever: 'UR4rec' is none of.*did you mean 'UR4Rec'"),
        ({**OF_PROXIES, "retriever_config": {"n_proxies": 3, "memory_items": 0}}, "memory_items: "),
        (
            {"retriever": "UR4Rec", "retriever_config": {"fusion": "late"}},
            "^retriever_config: 'fusion' is no setting of UR4Rec; it is one of "
            "MultimodalPreferenceRetriever: set retriever: MultimodalPreferenceRetriever, or",
        ),
        (
            {"retriever_config": {"fusin": "late"}},
            "^retriever_config: 'fusin' is no setting of TextPreferenceRetriever; did you mean "
            "'fusion', of retriever: MultimodalPreferenceRetriever.$",
        ),
        ({"joint_negatives": 0}, "joint_negatives takes a number from 1 to 1e.06, not 0"),
        ({"contrastive_weight": -0.1}, "contrastive_weight takes a number from 0 to .*, not -0.1"),
        (
            {"retriever": "MultimodalPreferenceRetriever", "retriever_config": {"fuson": "late"}},
            "^retriever_config: 'fuson' is no setting of MultimodalPre.*; did you mean 'fusion'.$",
        ),
        ({"retriever_config": {"retrieval_loss": "mse"}}, "retrieval_loss: 'mse' is none of"),
        *(
            ({"retriever_config": {key: 1}}, f"retriever_config: '{key}' is of the whole run")
            for key in ("learning_rate", "topk", "MAX_ITEM_LIST_LENGTH", "seed", "nproc", "epochs")
        ),
        ({"text_feature": None}, "text_feature: name the stored texts"),
    ],
)
def test_what_cannot_be_meant(wrong, sentence, tiny_data_path, tmp_path):
    config = Joint().make_config(tiny_data_path, tmp_path, **wrong)
    with pytest.raises(UserError, match=sentence):
        get_model("JointRec").check_settings(config, None)
