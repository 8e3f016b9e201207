"""``accelerate`` against RecBole's own models: loss, gradients, scores, checkpoints."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.layers import TransformerEncoder
from recbole.utils import init_seed
from torch import nn

from recbole_ext.callbacks.base import CallbackList
from recbole_ext.config import Config
from recbole_ext.data.bucketing import BucketedTrainDataLoader
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.vocabulary import vocabulary_of
from recbole_ext.models.accelerate import PARTS, Encoder, accelerated
from recbole_ext.modules import transformer
from recbole_ext.modules.dropout import Dropout
from recbole_ext.quick_start import load_run, run
from recbole_ext.registry import ACCELERATED, get_model
from recbole_ext.trainer.hooked_trainer import build_trainer
from recbole_ext.types import UserError

FEATURES = {"item": ["item_id", "class", "release_year"]}
SETTINGS: dict[str, dict[str, Any]] = {
    "SASRecF": {"selected_features": ["class"]},
    "FDSA": {"selected_features": ["class"]},
    "GRU4RecF": {"selected_features": ["class"]},
    "S3Rec": {"item_attribute": "class", "train_stage": "pretrain"},
    "CORE": {"sess_dropout": 0.0, "item_dropout": 0.0},
    "NARM": {"dropout_probs": [0.0, 0.0]},
    "BERT4Rec": {"mask_ratio": 0.4},
}
SMALL = {"hidden_size": 8, "embedding_size": 8, "inner_size": 16, "n_heads": 2, "n_layers": 2}


def build(name: str, settings: dict[str, Any], dropout: float = 0.0) -> tuple[Any, Any, Any]:
    """Return config, training loader and RecBole's model; no two biases are alike."""
    known = Config(name, "tiny", config_dict=settings).internal_config_dict
    mine = {key: value for key, value in SMALL.items() if key in known}
    mine |= {key: dropout for key in known if key.endswith(("dropout_prob", "dropout_probs"))}
    mine |= SETTINGS.get(name, {})
    if "class" in str(mine):
        mine["load_col"] = {**settings["load_col"], **FEATURES}
    config = Config(name, "tiny", config_dict={**settings, **mine, "accelerate": True})
    init_seed(config["seed"], True)
    dataset = create_dataset(config)
    train, _, _ = create_loaders(config, dataset)
    model = config.model_class(config, train._dataset)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for part in model.modules():
            if isinstance(part, nn.Embedding) and part.padding_idx is not None:
                part.weight[part.padding_idx] = 0.0
    return config, train, model


def loss_and_gradients(model: Any, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    init_seed(1, True)  # S3Rec masks items in its loss
    loss = model.calculate_loss(batch)
    loss.backward()
    return loss.detach(), {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }


def test_every_model_of_the_list_has_its_parts():
    assert tuple(PARTS) == ACCELERATED


@pytest.mark.parametrize(
    ("name", "dropout"),
    [
        *((name, 0.0) for name in ACCELERATED),
        # never drops anything, and takes the way of training all the same
        *((name, 2.0**-40) for name in ("SASRec", "GCSAN", "BERT4Rec")),
    ],
)
def test_loss_gradients_and_scores_are_those_of_recbole(name, dropout, tiny_settings, monkeypatch):
    monkeypatch.setattr(transformer, "CHUNK_ITEMS", 25)  # several parts of a batch
    config, train, theirs = build(name, tiny_settings, dropout)
    ours = accelerated(copy.deepcopy(theirs), config)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for batch in (next(iter(train)), short_rows(train)):
        expected, gradients = loss_and_gradients(theirs, batch)
        found, found_gradients = loss_and_gradients(ours, batch)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        for key, value in gradients.items():
            torch.testing.assert_close(
                found_gradients[key], value, atol=1e-5, rtol=1e-4, msg=lambda m, k=key: f"{k}: {m}"
            )
        with torch.no_grad():
            for method in ("full_sort_predict", "predict"):
                torch.testing.assert_close(
                    getattr(ours.eval(), method)(batch),
                    getattr(theirs.eval(), method)(batch),
                    atol=1e-5,
                    rtol=1e-4,
                )
        ours.train(), theirs.train()


@pytest.mark.parametrize("use_last", [False, True])
@pytest.mark.parametrize("kind", ["causal", "padding"])
def test_the_encoder_in_training_is_recboles_where_nothing_is_dropped(kind, use_last, monkeypatch):
    theirs, ours = encoders(hidden_dropout_prob=2.0**-40, attn_dropout_prob=2.0**-40)
    x, lengths = torch.randn(4, 6, 8, requires_grad=True), torch.tensor([1, 6, 3, 2])
    real = torch.arange(6) < lengths[:, None]  # [B, L]
    seen = real[:, None, None, :]  # [B, 1, 1, L]
    if kind == "causal":
        seen = seen & torch.ones(6, 6, dtype=torch.bool).tril()  # [B, 1, L, L]
    mask = torch.where(seen, 0.0, -10000.0)
    expected = theirs.train()(x, mask)
    monkeypatch.delattr("torch.nn.functional.scaled_dot_product_attention")  # not that of training
    ours.last = lengths - 1 if use_last else None
    found = ours.train()(x, mask)
    assert len(found) == len(expected) == 2
    torch.testing.assert_close(found[0][real], expected[0][real], atol=1e-5, rtol=1e-5)
    rows = torch.arange(4)
    read = found[1][:, 0] if use_last else found[1][rows, lengths - 1]  # [B, D]
    wanted = expected[1][rows, lengths - 1]  # [B, D]
    if not use_last:
        read, wanted = found[1][real], expected[1][real]  # [n, D]
    torch.testing.assert_close(read, wanted, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(wanted)
    for mine, other in zip(
        torch.autograd.grad((read * weights).sum(), [x, *ours.parameters()]),
        torch.autograd.grad((wanted * weights).sum(), [x, *theirs.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_every_dropout_of_a_layer_has_recboles_probability():
    theirs, ours = encoders(hidden_dropout_prob=0.2, attn_dropout_prob=0.6)
    for mine, other in zip(ours.layer, theirs.layer, strict=True):
        attention, recboles = mine.multi_head_attention, other.multi_head_attention
        assert attention.attn_dropout_prob == recboles.attn_dropout.p == 0.6
        assert attention.out_dropout.p == recboles.out_dropout.p == 0.2
        assert mine.feed_forward.dropout.p == other.feed_forward.dropout.p == 0.2


def encoders(**dropouts: float) -> tuple[TransformerEncoder, Encoder]:
    """Return RecBole's encoder with parameters that all differ, and ours with copies of them."""
    torch.manual_seed(0)
    theirs = TransformerEncoder(2, 2, 8, 16, **dropouts)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return theirs, Encoder(copy.deepcopy(theirs))


def short_rows(train: Any) -> Interaction:
    """Rows of one to three items: most of the batch is padding that nobody shares."""
    batch = next(iter(train))
    length = train._dataset.item_list_length_field
    rows = (batch[length] <= 3).nonzero().flatten()
    assert len(rows)
    return batch[rows]


@pytest.mark.parametrize("name", ["SASRec", "LightSANs"])
def test_dropout_is_ours_and_leaves_the_parameters_alone(name, tiny_settings):
    config, train, theirs = build(name, tiny_settings, dropout=0.5)
    before = {key: value.clone() for key, value in theirs.state_dict().items()}
    state = torch.get_rng_state()
    ours = accelerated(theirs, config)
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn
    assert not any(type(part) is nn.Dropout for part in ours.modules())
    assert any(isinstance(part, Dropout) and part.p == 0.5 for part in ours.modules())
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
    batch = next(iter(train))
    torch.manual_seed(0)
    first, second = ours.calculate_loss(batch), ours.calculate_loss(batch)
    torch.manual_seed(0)
    assert torch.equal(ours.calculate_loss(batch), first) and not torch.equal(first, second)


def test_a_run_says_what_it_leaves_out_and_its_checkpoint_is_recboles(
    tiny_settings, tmp_path, caplog
):
    settings = {**tiny_settings, **SMALL, "accelerate": True, "output_dir": str(tmp_path / "run")}
    del settings["embedding_size"]
    with caplog.at_level(logging.INFO):
        result = run("SASRec", "tiny", config_dict=settings)
    assert "padding" in caplog.text
    config, train, theirs = build("SASRec", tiny_settings)
    saved = torch.load(tmp_path / "run" / "best.pt", weights_only=True)["state_dict"]
    theirs.load_state_dict(saved)
    ours = accelerated(copy.deepcopy(theirs), config)
    batch = next(iter(train))
    torch.testing.assert_close(
        ours.eval().full_sort_predict(batch), theirs.eval().full_sort_predict(batch)
    )
    again = load_run(result["folder"]).model  # for a report, with the run's own settings
    assert all(torch.equal(again.state_dict()[key], value) for key, value in saved.items())


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec", "BERT4Rec", "LightSANs"])
def test_an_accelerated_model_can_be_pickled(name, tiny_settings, tmp_path):
    config, train, theirs = build(name, tiny_settings)
    ours = accelerated(theirs, config)
    torch.save(ours, tmp_path / "model.pt")
    batch = next(iter(train))
    expected, gradients = loss_and_gradients(ours, batch)
    for again in (
        pickle.loads(pickle.dumps(ours)),
        copy.deepcopy(ours),
        torch.load(tmp_path / "model.pt", weights_only=False),
    ):
        assert type(again) is type(ours) and again is not ours
        found, found_gradients = loss_and_gradients(again, batch)
        assert torch.equal(found, expected)
        assert all(torch.equal(found_gradients[key], gradients[key]) for key in gradients)


def test_it_is_off_by_default_and_suggested_in_one_line(tiny_settings, caplog):
    config, _, model = build("SASRec", tiny_settings)
    config["accelerate"] = False
    assert Config("SASRec", "tiny", config_dict=tiny_settings)["accelerate"] is False
    with caplog.at_level(logging.INFO):
        assert type(accelerated(model, config)) is config.model_class
    assert [r.message for r in caplog.records if "accelerate: true" in r.message]


@pytest.mark.parametrize("name", ["Caser", "NextItNet", "SINE"])
def test_other_models_are_refused(name, tiny_settings):
    with pytest.raises(UserError, match=f"accelerate: {name} .*SASRec"):
        Config(name, "tiny", config_dict={**tiny_settings, "accelerate": True})


class SASRec(get_model("SASRec")):  # type: ignore[misc]
    """A user's own: what is left out may be what it reads, and its name does not matter."""


def test_a_model_derived_from_recboles_is_refused_everywhere(tiny_settings, tmp_path):
    with pytest.raises(UserError, match="accelerate: SASRec of .*test_accelerate is not among"):
        Config(SASRec, "tiny", config_dict={**tiny_settings, "accelerate": True})
    config = Config(SASRec, "tiny", config_dict=tiny_settings)
    dataset = create_dataset(config)
    train, _, _ = create_loaders(config, dataset)
    model = config.model_class(config, train._dataset)
    assert accelerated(model, config) is model and type(model) is SASRec
    config["accelerate"] = True  # past the check of the settings
    for attempt in (
        lambda: create_loaders(config, dataset),
        lambda: accelerated(model, config),
        lambda: build_trainer(config, model, tmp_path, CallbackList(()), vocabulary_of(dataset)),
    ):
        with pytest.raises(UserError, match="accelerate: SASRec of .*test_accelerate"):
            attempt()


def test_our_own_models_stay_as_they_are(tiny_settings, caplog):
    config = Config("DuoRec", "tiny", config_dict={**tiny_settings, "accelerate": True})
    train, _, _ = create_loaders(config, create_dataset(config))
    model = config.model_class(config, train._dataset)
    with caplog.at_level(logging.INFO):
        assert accelerated(model, config) is model and type(model) is config.model_class
    assert not caplog.records


def test_bucket_window_without_accelerate_is_refused(tiny_settings):
    config = Config("SASRec", "tiny", config_dict={**tiny_settings, "bucket_window": 3})
    with pytest.raises(UserError, match="bucket_window: 3 .* only with accelerate: True; SASRec"):
        create_loaders(config, create_dataset(config))


def test_bucket_window_groups_the_rows_of_an_accelerated_model(tiny_settings):
    settings = {**tiny_settings, "accelerate": True, "bucket_window": 3}
    config = Config("SASRec", "tiny", config_dict=settings)
    train, _, _ = create_loaders(config, create_dataset(config))
    assert isinstance(train, BucketedTrainDataLoader) and train.bucket_window == 3
    _, train, _ = build("SASRec", tiny_settings)
    assert not isinstance(train, BucketedTrainDataLoader)  # RecBole's batches by default


def test_the_softmax_is_left_to_recbole_for_its_other_loss(tiny_settings):
    settings = {**tiny_settings, "loss_type": "BPR", "train_neg_sample_args": NEGATIVES}
    config, train, theirs = build("SASRec", settings)
    ours = accelerated(copy.deepcopy(theirs), config)
    batch = next(iter(train))
    torch.testing.assert_close(ours.calculate_loss(batch), theirs.calculate_loss(batch))


NEGATIVES = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False}
