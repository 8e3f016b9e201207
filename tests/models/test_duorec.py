"""DuoRec: the contract, what its options compute, and that both ways of training are one loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts import ModelContract
from recbole.utils import init_seed

from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.causal import N_SCORED
from recbole_ext.data.prefix_dataset import ROW_ID
from recbole_ext.registry import get_model
from recbole_ext.types import UserError

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "contrast": "su"}
"""Of the contrasts su alone makes sense without dropout."""
DROPOUT = {"hidden_dropout_prob": 0.4, "attn_dropout_prob": 0.3}


class TestDuoRec(ModelContract):
    model = "DuoRec"


class TestDuoRecCausal(ModelContract):
    model = "DuoRec"
    settings = {"train_on": "causal", "train_batch_size": 16}


class TestDuoRecSampled(ModelContract):
    model = "DuoRec"
    settings = {"softmax": "sampled", "sampled_by": "popularity", "n_sampled": 20}


def build(tiny_data_path, tmp_path, **settings):
    """Return model and loaders; tiny data, no dropout unless it is asked for."""
    contract = TestDuoRec()
    config = contract.make_config(tiny_data_path, tmp_path, **{**NO_DROPOUT, **settings})
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


def reference_nce(a, b, temperature=1.0, sim="dot", same=None) -> float:
    """InfoNCE by the definition, row by row; other rows of one group in ``same`` do not count."""
    z = torch.cat([a, b]).detach().numpy().astype(np.float64)
    if sim == "cos":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    n, losses = len(a), []
    for i in range(2 * n):
        positive = (i + n) % (2 * n)
        others = [
            j
            for j in range(2 * n)
            if j == positive or (j != i and (same is None or same[i % n] != same[j % n]))
        ]
        scores = z[others] @ z[i] / temperature
        losses.append(np.log(np.exp(scores).sum()) - z[positive] @ z[i] / temperature)
    return float(np.mean(losses))


VIEWS = {
    "us_x": {"cl": (0.3, "h'", "h_sem")},
    "un": {"cl_un": (0.2, "h", "h'")},
    "su": {"cl_su": (0.3, "h", "h_sem")},
    "us": {"cl_un": (0.2, "h", "h'"), "cl_su": (0.3, "h", "h_sem")},
}
"""Of each contrast the terms: weight and the two views."""
CONTRASTS = {"lmd": 0.2, "lmd_sem": 0.3, **DROPOUT}
OPTIONS = [
    {"temperature": 0.7, "sim": "cos"},
    {"temperature": 3.0, "mask_same_target": True},
]


def further_views(net, data, h, rows, contrast) -> dict[str, torch.Tensor]:
    """Draw what the model draws after ``h``, in its order, from the training rows themselves."""
    views, feat = {"h": h}, data.inter_feat
    if contrast != "su":
        views["h'"] = net.encoder(feat[net.ITEM_SEQ][rows], feat[net.ITEM_SEQ_LEN][rows])
        assert not torch.allclose(views["h'"], h), "dropout does nothing"
    if contrast != "un":
        partner = net.same_target(rows)
        assert torch.equal(feat[net.POS_ITEM_ID][partner], feat[net.POS_ITEM_ID][rows])
        views["h_sem"] = net.encoder(feat[net.ITEM_SEQ][partner], feat[net.ITEM_SEQ_LEN][partner])
    return views


def assert_contrast(losses, views, contrast, options, targets):
    """Compare names and values with the definition in numpy."""
    masked = options.get("mask_same_target", False)
    assert len(targets.unique()) < len(targets), "the batch repeats no target"
    assert list(losses) == ["rec", *VIEWS[contrast]]
    for name, (weight, a, b) in VIEWS[contrast].items():
        expected = weight * reference_nce(
            views[a],
            views[b],
            options["temperature"],
            options.get("sim", "dot"),
            targets.tolist() if masked else None,
        )
        assert losses[name].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("options", OPTIONS, ids=["cos", "masked"])
@pytest.mark.parametrize("contrast", VIEWS)
def test_contrast_of_prefix_rows(tiny_data_path, tmp_path, contrast, options):
    """With dropout h, h' and h_sem are three different things, which a seed replays."""
    net, (loader, _, _) = build(tiny_data_path, tmp_path, contrast=contrast, **CONTRASTS, **options)
    batch = next(iter(loader))
    torch.manual_seed(4)
    losses = net.losses(batch)
    torch.manual_seed(4)
    h = net.encoder(batch[net.ITEM_SEQ], batch[net.ITEM_SEQ_LEN])
    views = further_views(net, loader.dataset, h, batch[ROW_ID], contrast)
    assert_contrast(losses, views, contrast, options, batch[net.POS_ITEM_ID])


def scored_positions(net, batch) -> list[tuple[int, int, int]]:
    """Window, position and row id of all that a batch of windows predicts, the plain way."""
    found = []
    for window in range(len(batch)):
        length, n_scored = int(batch[net.ITEM_SEQ_LEN][window]), int(batch[N_SCORED][window])
        for position in range(length - n_scored, length):
            row = int(batch[ROW_ID][window]) - (length - 1 - position)
            found.append((window, position, row))
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=["cos", "masked"])
@pytest.mark.parametrize("contrast", VIEWS)
def test_contrast_of_windows(tiny_data_path, tmp_path, contrast, options):
    """As many positions as windows, drawn from all; each is contrasted with its own row."""
    net, (loader, _, _) = build(
        tiny_data_path,
        tmp_path,
        train_on="causal",
        train_batch_size=32,
        contrast=contrast,
        **CONTRASTS,
        **options,
    )
    batch = next(iter(loader))
    torch.manual_seed(4)
    losses = net.losses(batch)
    torch.manual_seed(4)
    longest = int(batch[net.ITEM_SEQ_LEN].max())
    states = net.encoder.states(batch[net.ITEM_SEQ][:, :longest])
    scored = scored_positions(net, batch)
    drawn = [scored[i] for i in torch.randperm(len(scored))[: len(batch)].tolist()]
    assert 1 < len(drawn) < len(scored) and drawn != scored[: len(drawn)]
    rows = torch.tensor([row for _, _, row in drawn])
    feat = loader.dataset.inter_feat
    for (window, position, _), row in zip(drawn, rows.tolist(), strict=True):
        assert feat[net.ITEM_SEQ_LEN][row] == position + 1
        history = feat[net.ITEM_SEQ][row, : position + 1]
        assert torch.equal(history, batch[net.ITEM_SEQ][window, : position + 1])
    h = torch.stack([states[window, position] for window, position, _ in drawn])
    views = further_views(net, loader.dataset, h, rows, contrast)
    assert_contrast(losses, views, contrast, options, feat[net.POS_ITEM_ID][rows])


@pytest.mark.parametrize("sampled_by", ["uniform", "popularity"])
@pytest.mark.parametrize("train_on", ["prefix", "causal"])
def test_a_large_sample_gives_the_full_softmax(tiny_data_path, tmp_path, train_on, sampled_by):
    sampled = {"softmax": "sampled", "n_sampled": 100_000, "sampled_by": sampled_by}
    full, (loader, _, _) = build(tiny_data_path, tmp_path, train_on=train_on)
    net, _ = build(tiny_data_path, tmp_path, train_on=train_on, **sampled)
    batch = next(iter(loader))
    found, expected = (each.losses(batch)["rec"].item() for each in (net, full))
    assert found == pytest.approx(expected, rel=0.01)


def test_training_rows_are_not_saved(tiny_data_path, tmp_path):
    net, _ = build(tiny_data_path, tmp_path)
    parameters = {name for name, _ in net.named_parameters()}
    assert set(net.state_dict()) == parameters


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"contrast": "both"}, "contrast"),
        ({"contrast": "us-x"}, "contrast: 'us-x' is none of us_x, un, su, us; did you mean 'us_x'"),
        ({"sim": "euclid"}, "sim"),
        ({"train_on": "users"}, "train_on"),
        ({"softmax": "half"}, "softmax"),
        ({"softmax": "sampled", "sampled_by": "zipf"}, "sampled_by"),
        ({"softmax": "sampled", "n_sampled": 0}, "n_sampled"),
        ({"softmax_memory": 0.0}, "softmax_memory"),
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


@pytest.mark.parametrize("contrast", ["us_x", "un", "us"])
def test_a_view_that_dropout_makes_needs_dropout(tiny_data_path, tmp_path, contrast):
    """Without dropout h' is h: nothing would be contrasted, and nothing would say so."""
    config = TestDuoRec().make_config(tiny_data_path, tmp_path, **NO_DROPOUT)
    config["contrast"] = contrast
    train_data = create_loaders(config, create_dataset(config))[0]
    with pytest.raises(UserError, match="hidden_dropout_prob and attn_dropout_prob.*contrast: su"):
        get_model("DuoRec").check_settings(config, train_data.dataset)
    config["attn_dropout_prob"] = 0.1
    get_model("DuoRec").check_settings(config, train_data.dataset)


def test_rows_without_ids_are_an_error(tiny_data_path, tmp_path):
    net, (loader, _, _) = build(tiny_data_path, tmp_path)
    batch = next(iter(loader))
    batch.drop(ROW_ID)
    with pytest.raises(UserError, match=ROW_ID):
        net.losses(batch)
