"""DuoRec: the contract, what its options compute, and that both ways of training are one loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts import ModelContract
from recbole.utils import init_seed

from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.prefix_dataset import ROW_ID
from recbole_ext.types import UserError

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}


class TestDuoRec(ModelContract):
    model = "DuoRec"


class TestDuoRecCausal(ModelContract):
    model = "DuoRec"
    settings = {"train_on": "causal", "train_batch_size": 16}


def build(tiny_data_path, tmp_path, **settings):
    """Return model and loaders; tiny data, no dropout."""
    contract = TestDuoRec()
    config = contract.make_config(tiny_data_path, tmp_path, **NO_DROPOUT, **settings)
    init_seed(config["seed"], True)
    loaders = create_loaders(config, create_dataset(config))
    return contract.make_model(config, loaders[0].dataset), loaders


def reference_cross_entropy(net, rows) -> np.ndarray:
    """Loss of each row, [R]: every history encoded alone, softmax over items 1..N-1, in numpy."""
    weight = net.encoder.item_embedding.weight.detach().numpy()[1:]
    found = []
    for r in range(len(rows)):
        length = int(rows[net.ITEM_SEQ_LEN][r])
        history = rows[net.ITEM_SEQ][r : r + 1, :length]
        with torch.no_grad():
            h = net.encoder(history, torch.tensor([length])).numpy()[0]
        logits = weight.astype(np.float64) @ h
        found.append(np.log(np.exp(logits).sum()) - logits[int(rows[net.POS_ITEM_ID][r]) - 1])
    return np.array(found)


@torch.no_grad()
def mean_rec(net, loader, count) -> float:
    """Mean ``rec`` over all training pairs, batches weighted by their number of pairs."""
    total, n = 0.0, 0
    for batch in loader:
        pairs = count(batch)
        total += float(net.losses(batch)["rec"]) * pairs
        n += pairs
    assert n == len(loader.dataset)
    return total / n


def test_prefix_and_causal_give_the_cross_entropy_of_every_row(tiny_data_path, tmp_path):
    prefix, (prefix_loader, _, _) = build(tiny_data_path, tmp_path)
    causal, (causal_loader, _, _) = build(
        tiny_data_path, tmp_path, train_on="causal", train_batch_size=16
    )
    with torch.no_grad():  # weights large enough that histories matter
        for parameter in prefix.parameters():
            parameter.mul_(5.0)
    causal.load_state_dict(prefix.state_dict())
    expected = reference_cross_entropy(prefix, prefix_loader.dataset.inter_feat).mean()
    assert mean_rec(prefix, prefix_loader, len) == pytest.approx(expected, rel=1e-5)
    by_window = mean_rec(causal, causal_loader, lambda batch: int(batch["n_scored"].sum()))
    assert by_window == pytest.approx(expected, rel=1e-5)


def test_a_stride_gives_fewer_windows_and_is_not_exact(tiny_data_path, tmp_path):
    exact, (exact_loader, _, _) = build(tiny_data_path, tmp_path, train_on="causal")
    rough, (rough_loader, _, _) = build(
        tiny_data_path, tmp_path, train_on="causal", causal_stride=4
    )
    with torch.no_grad():
        for parameter in exact.parameters():
            parameter.mul_(5.0)
    rough.load_state_dict(exact.state_dict())
    assert len(rough_loader.batch_sampler.rows) < len(exact_loader.batch_sampler.rows)

    def pairs(batch):
        return int(batch["n_scored"].sum())

    expected = mean_rec(exact, exact_loader, pairs)
    assert mean_rec(rough, rough_loader, pairs) != pytest.approx(expected, rel=1e-5)
    assert mean_rec(rough, rough_loader, pairs) == pytest.approx(expected, rel=0.1)


def reference_nce(a: np.ndarray, b: np.ndarray) -> float:
    """InfoNCE by the definition, row by row."""
    z = np.concatenate([a, b]).astype(np.float64)
    n = len(a)
    losses = []
    for i in range(2 * n):
        scores = [z[i] @ z[j] for j in range(2 * n) if j != i]
        losses.append(np.log(np.exp(scores).sum()) - z[i] @ z[(i + n) % (2 * n)])
    return float(np.mean(losses))


@pytest.mark.parametrize(
    ("contrast", "terms"),
    [
        ("us_x", {"cl": (0.3, "h", "h_sem")}),
        ("un", {"cl_un": (0.2, "h", "h")}),
        ("su", {"cl_su": (0.3, "h", "h_sem")}),
        ("us", {"cl_un": (0.2, "h", "h"), "cl_su": (0.3, "h", "h_sem")}),
    ],
)
def test_contrast_names_weights_and_views(tiny_data_path, tmp_path, contrast, terms):
    net, (loader, _, _) = build(tiny_data_path, tmp_path, contrast=contrast, lmd=0.2, lmd_sem=0.3)
    batch = next(iter(loader))
    rows = loader.dataset.inter_feat
    torch.manual_seed(4)
    partner = net.same_target(batch[ROW_ID])  # the model draws the same after the same seed
    views = {
        "h": net.encoder(batch[net.ITEM_SEQ], batch[net.ITEM_SEQ_LEN]),
        "h_sem": net.encoder(rows[net.ITEM_SEQ][partner], rows[net.ITEM_SEQ_LEN][partner]),
    }
    views = {name: view.detach().numpy() for name, view in views.items()}
    torch.manual_seed(4)
    losses = net.losses(batch)
    assert list(losses) == ["rec", *terms]
    for name, (weight, a, b) in terms.items():
        expected = weight * reference_nce(views[a], views[b])
        assert losses[name].item() == pytest.approx(expected, rel=1e-4)


def test_the_two_views_differ_under_dropout(tiny_data_path, tmp_path):
    net, (loader, _, _) = build(tiny_data_path, tmp_path)
    for module in net.modules():
        if hasattr(module, "p"):
            module.p = 0.5
    batch = next(iter(loader))
    embedded = net.encoder.embed(batch[net.ITEM_SEQ])
    lengths = batch[net.ITEM_SEQ_LEN]
    net.train()
    one, two = (net.encoder.encode_embedded(embedded, lengths) for _ in range(2))
    assert not torch.allclose(one, two)


def test_masked_same_target_leaves_out_those_negatives(tiny_data_path, tmp_path):
    plain, (loader, _, _) = build(tiny_data_path, tmp_path)
    masked, _ = build(tiny_data_path, tmp_path, mask_same_target=True)
    masked.load_state_dict(plain.state_dict())
    batch = next(iter(loader))
    targets = batch[plain.POS_ITEM_ID]
    assert len(targets.unique()) < len(targets), "the batch repeats no target"

    def cl(net):
        torch.manual_seed(4)
        return net.losses(batch)["cl"].item()

    assert cl(masked) < cl(plain)  # fewer terms in the denominator


def test_training_rows_are_not_saved(tiny_data_path, tmp_path):
    net, _ = build(tiny_data_path, tmp_path)
    parameters = {name for name, _ in net.named_parameters()}
    assert set(net.state_dict()) == parameters


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"contrast": "both"}, "contrast"),
        ({"sim": "euclid"}, "sim"),
        ({"train_on": "users"}, "train_on"),
        ({"temperature": 0.0}, "temperature"),
        ({"n_heads": 3}, "n_heads"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"bucket_window": -1}, "bucket_window"),
        ({"train_on": "causal", "causal_stride": 0}, "causal_stride"),
    ],
)
def test_bad_settings_name_their_key(tiny_data_path, tmp_path, settings, word):
    with pytest.raises(UserError, match=word):
        build(tiny_data_path, tmp_path, **settings)


def test_rows_without_ids_are_an_error(tiny_data_path, tmp_path):
    net, (loader, _, _) = build(tiny_data_path, tmp_path)
    batch = next(iter(loader))
    batch.drop(ROW_ID)
    with pytest.raises(UserError, match=ROW_ID):
        net.losses(batch)
