"""MultimodalPreferenceRetriever: the contract, each fusion as a model, consistency, coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from contracts import ModelContract, assert_like_in_16_bits
from recbole.utils import init_seed

from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.features.build import Subject
from recbole_ext.types import UserError
from tests.models.feature_help import Fake, item_feature, write_feature
from tests.models.phase_help import moves, properties

LAST = "joint_multimodal"


class Multimodal(ModelContract):
    """Items 3 and 17 have no text, 5 and 17 no image."""

    model = "MultimodalPreferenceRetriever"
    text_tokens = 0
    image_tokens = 0

    def make_config(self, data_path: Any, folder: Any, **more: Any) -> Any:
        features = {
            "text_feature": item_feature(folder, "title", tokens=self.text_tokens),
            "image_feature": item_feature(
                folder, "poster", tokens=self.image_tokens, size=10, missing=(5, 17)
            ),
        }
        return super().make_config(data_path, folder, **{**features, **more})


class TestMultimodalPreferenceRetriever(Multimodal):
    settings = {"consistency_weight": 0.1}


class TestTokens(Multimodal):
    text_tokens = 3
    image_tokens = 4
    settings = {"fusion": "token", "softmax": "in_batch", "content_memory": 0.1}


def build(tiny_data_path, tmp_path, text_tokens=0, image_tokens=0, **settings):
    contract = Multimodal()
    contract.text_tokens, contract.image_tokens = text_tokens, image_tokens
    config = contract.make_config(tiny_data_path, tmp_path, **settings)
    init_seed(config["seed"], True)
    loaders = create_loaders(config, create_dataset(config))
    return contract.make_model(config, loaders[0].dataset), loaders


@pytest.mark.parametrize(
    ("tokens", "settings"),
    [
        ((0, 0), {"fusion": "late", "late": "concat"}),
        ((0, 0), {"fusion": "late", "late": "attention"}),
        ((3, 4), {"fusion": "late", "late": "gate", "token_pooling": "mean"}),
        ((0, 0), {"fusion": "early"}),
        ((3, 4), {"fusion": "early", "attn_dropout_prob": 0.2}),
        ((0, 0), {"fusion": "cross_modal", "use_id_key": True}),
        ((3, 4), {"fusion": "cross_modal"}),
        ((0, 4), {"fusion": "token"}),
        ((3, 0), {"image_feature": None}),
        ((0, 4), {"text_feature": None}),
    ],
    ids=str,
)
def test_each_fusion_trains_and_ranks(tiny_data_path, tmp_path, tokens, settings):
    net, (loader, _, test) = build(tiny_data_path, tmp_path, *tokens, **settings)
    with torch.no_grad():  # away from the start, where delta is zero and so is its key
        net.content.delta.weight[1:].normal_(std=0.1)
    for batch in loader:
        net.calculate_loss(batch).backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name
    batch = next(iter(test))[0]
    with torch.no_grad():
        scores = net.eval().full_sort_predict(batch)
        batch[net.ITEM_ID] = torch.full((len(batch),), 17)
        torch.testing.assert_close(net.predict(batch), scores[:, 17])
    assert scores[:, 1:].isfinite().all() and (scores[:, 0] == -torch.inf).all()


@pytest.mark.parametrize(("fusion", "softmax"), [("token", "in_batch"), ("early", "full")])
def test_it_trains_in_16_bits(tiny_data_path, tmp_path, fusion, softmax):
    weights = {"consistency_weight": 0.1, "contrastive_weight": 0.1, "diversity_weight": 0.1}
    net, (loader, _, _) = build(
        tiny_data_path, tmp_path, 3, 4, fusion=fusion, softmax=softmax, **weights
    )
    assert_like_in_16_bits(net, next(iter(loader)))


def test_consistency_by_its_definition(tiny_data_path, tmp_path):
    """1 - cos of the mapped image and the mapped text, over the batch's items that have both."""
    net, (loader, _, _) = build(tiny_data_path, tmp_path, consistency_weight=0.5)
    dataset, batch = loader.dataset, next(iter(loader))
    tokens = dataset.field2id_token["item_id"]
    found = []
    for i in sorted(set(batch[net.POS_ITEM_ID].tolist())):
        if tokens[i] not in ("i3", "i5", "i17"):
            pair = []
            for name, source in net.content.sources.items():
                x, _ = source._aligned.value.take(np.array([i]))
                pair.append(net.content.projections[name].weight.detach().numpy() @ x[0])
            cosine = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
            found.append(1 - cosine)
    loss = net.losses(batch)["consistency"]
    assert loss.item() == pytest.approx(0.5 * np.mean(found), rel=1e-4)
    loss.backward()
    assert net.content.projections["image"].weight.grad.any()
    assert not net.content.projections["text"].weight.grad.any()  # the text stands still
    net.consistency_still = "image"
    net.zero_grad()
    net.losses(batch)["consistency"].backward()
    assert net.content.projections["text"].weight.grad.any()
    assert not net.content.projections["image"].weight.grad.any()


def test_it_knows_what_is_covered(tiny_data_path, tmp_path):
    net, (loader, _, _) = build(tiny_data_path, tmp_path)
    tokens = loader.dataset.field2id_token["item_id"]
    present = net.content.present(torch.arange(net.n_items))
    assert not present[0].any()
    for i in range(1, net.n_items):
        expected = [tokens[i] not in ("i3", "i17"), tokens[i] not in ("i5", "i17")]
        assert present[i].tolist() == expected


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"fusion": "cross_modal"}, "fusion: cross_modal would attend over a single key"),
        ({"fusion": "token"}, "fusion: token would attend over a single key"),
        ({"fusion": "tokens"}, "fusion: 'tokens' is none of.*did you mean 'token'"),
        ({"late": "gated"}, "late: 'gated' is none of.*did you mean 'gate'"),
        ({"text_feature": None, "image_feature": None}, "name one or both of the stored features"),
        ({"consistency_still": "both"}, "consistency_still: 'both' is neither text nor image"),
        (
            {"image_feature": None, "consistency_weight": 0.1},
            "consistency_weight: of one modality there is nothing to be consistent with",
        ),
        ({"consistency_weight": -0.1}, "consistency_weight: -0.1 must be at least 0"),
        ({"attn_dropout_prob": 1.0}, "attn_dropout_prob: 1.0 must be at least 0 and less than 1"),
        ({"fusion": "early", "n_heads": 3}, "hidden_size: 64 is not a multiple of n_heads 3"),
    ],
)
def test_bad_settings_are_one_sentence(tiny_data_path, tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        build(tiny_data_path, tmp_path, **settings)


def test_texts_then_images_then_both(tiny_data_path, tmp_path, monkeypatch):
    """The plan of MultimodalPreferenceRetriever-phases.yaml: what moves in each of its phases."""
    (plan,) = properties("MultimodalPreferenceRetriever-phases")["callbacks"]
    phases = plan["Alternate"]["phases"]
    assert [phase["name"] for phase in phases] == ["pretrain_text", "pretrain_image", LAST]
    assert all(phase["until"] == {"metric": "ndcg@10", "patience": 3} for phase in phases[:2])
    short = [{**{k: v for k, v in p.items() if k != "until"}, "epochs": 1} for p in phases]
    more = {"callbacks": [{"Alternate": {"phases": short}}], "epochs": 9}
    config = Multimodal().make_config(tiny_data_path, tmp_path, **more)
    settings = {**config.external_config_dict, "output_dir": str(tmp_path / "run")}
    found: dict[str, set[str]] = {}
    for phase, _, names in moves(Multimodal.model, settings, monkeypatch):
        found.setdefault(phase, set()).update(names)
    user = {n for n in found[LAST] if n.startswith("user_")} | {"score.log_scale"}
    of_text, of_image = (f"content.projections.{kind}.weight" for kind in ("text", "image"))
    assert list(found) == ["pretrain_text", "pretrain_image", LAST]
    assert found["pretrain_text"] == {of_text, *user}
    assert found["pretrain_image"] == {of_image, *user}
    others = {"content.delta.weight", "content.fusion.mix.weight", "content.fusion.missing"}
    assert found[LAST] == {of_text, of_image, *user, *others}


def test_features_that_have_changed_places_are_said(tiny_data_path, tmp_path, caplog):
    texts = {f"i{i}": f"title {i}" for i in range(9)}
    made = {
        kind: write_feature(
            tmp_path, f"of {kind}", texts, Subject("x", kind, "item", "tiny"), Fake()
        )
        for kind in ("text", "image", "vector")
    }
    found = []
    for text, image in (("text", "image"), ("image", "text"), ("vector", "vector")):
        caplog.clear()
        features = {"text_feature": made[text], "image_feature": made[image]}
        build(tiny_data_path, tmp_path, **features)
        found.append([r.getMessage() for r in caplog.records if "that is meant" in r.getMessage()])
    assert found[0] == found[2] == []
    assert found[1] == [
        f"text_feature: '{made['image']}' is a feature of kind image; is it image_feature that is "
        "meant?",
        f"image_feature: '{made['text']}' is a feature of kind text; is it text_feature that is "
        "meant?",
    ]
