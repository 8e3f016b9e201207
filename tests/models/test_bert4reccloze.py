"""BERT4RecCloze: the contract, RecBole's BERT4Rec where the two agree, and where they must not."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from contracts import LIMIT, ModelContract, assert_like_in_16_bits
from recbole.utils import init_seed

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.modules.cloze import draw_hidden
from recbole_ext.registry import get_model
from recbole_ext.types import UserError

SMALL = {"hidden_size": 8, "inner_size": 16, "train_batch_size": 16}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
THEIR_NAMES = {
    "output_dense.": "output_ffn.",
    "output_norm.": "output_ln.",
    "item_bias": "output_bias",
}


class TestBERT4RecCloze(ModelContract):
    model = "BERT4RecCloze"
    settings = SMALL


def config_of(model, tiny_data_path, tmp_path, **settings) -> Config:
    made = TestBERT4RecCloze()
    made.model = model
    return made.make_config(tiny_data_path, tmp_path, **{**NO_DROPOUT, **settings})


def build(tiny_data_path, tmp_path, model="BERT4RecCloze", **settings):
    """Return model and loaders, without dropout."""
    config = config_of(model, tiny_data_path, tmp_path, **settings)
    init_seed(config["seed"], True)
    loaders = create_loaders(config, create_dataset(config))
    return get_model(model)(config, loaders[0].dataset), loaders


@pytest.fixture
def both(tiny_data_path, tmp_path):
    """Our model and RecBole's with the same weights, so large that histories matter; loaders."""
    theirs, _ = build(tiny_data_path, tmp_path, "BERT4Rec", train_neg_sample_args=None)
    ours, loaders = build(tiny_data_path, tmp_path)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    weights = {}
    for name, value in ours.state_dict().items():
        name = name.removeprefix("encoder.")
        for our_name, their_name in THEIR_NAMES.items():
            name = name.replace(our_name, their_name)
        weights[name] = value
    theirs.load_state_dict(weights)
    return ours.eval(), theirs.eval(), loaders


@torch.no_grad()
def test_scores_are_recboles_but_that_a_short_history_stays_whole(both):
    ours, theirs, (train, _, _) = both
    rows = train.dataset.inter_feat
    lengths, item_seq = rows["item_length"], rows["item_id_list"]
    scores, from_recbole = (
        ours.full_sort_predict(rows)[:, 1:],
        theirs.full_sort_predict(rows)[:, 1:],
    )
    is_full = lengths == LIMIT
    assert 0 < is_full.sum() < len(rows)
    torch.testing.assert_close(scores[is_full], from_recbole[is_full], rtol=1e-3, atol=1e-4)
    for r in (~is_full).nonzero().flatten().tolist():
        history = [*item_seq[r, : lengths[r]].tolist(), theirs.mask_token]
        state = theirs.forward(torch.tensor([history]))[0, -1]
        expected = state @ theirs.item_embedding.weight[1:-1].T + theirs.output_bias[1:]
        torch.testing.assert_close(scores[r], expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(scores[~is_full], from_recbole[~is_full], atol=0.1)


@torch.no_grad()
def test_the_loss_is_that_of_all_hidden_items(both):
    """RecBole's layers on each history alone; the draw is replayed by its seed."""
    ours, theirs, (train, _, _) = both
    batch = next(iter(train))
    torch.manual_seed(4)
    found = ours.losses(batch)["rec"].item()
    whole = [
        [*seq[:n].tolist(), target][-LIMIT:]
        for seq, n, target in zip(
            batch["item_id_list"], batch["item_length"], batch["item_id"].tolist(), strict=True
        )
    ]
    torch.manual_seed(4)
    hidden = draw_hidden(torch.tensor([len(items) for items in whole]), LIMIT, 0.2)
    assert hidden[:, 0].any(), "no first position to learn from"
    losses = []
    for items, places in zip(whole, hidden, strict=True):
        seen = torch.tensor([items]).masked_fill(places[: len(items)], theirs.mask_token)
        states = theirs.forward(seen)[0]
        for place in places.nonzero().flatten().tolist():
            logits = states[place] @ theirs.item_embedding.weight[:-1].T + theirs.output_bias
            losses.append(F.cross_entropy(logits[1:], torch.tensor(items[place] - 1)).item())
    assert found == pytest.approx(math.fsum(losses) / len(losses), rel=1e-4)


@torch.no_grad()
def test_each_time_other_items_are_hidden(both):
    ours, _, (train, _, _) = both
    batch = next(iter(train))
    found = {ours.losses(batch)["rec"].item() for _ in range(5)}
    assert len(found) == 5, "without dropout nothing but the draw can differ"


def test_the_first_position_is_trained(tiny_data_path, tmp_path):
    """Of a history of one item and its target, and with everything hidden."""
    net, (train, _, _) = build(tiny_data_path, tmp_path, mask_ratio=1.0, n_layers=1)
    rows = train.dataset.inter_feat
    net.calculate_loss(rows[(rows["item_length"] == 1).nonzero().flatten()]).backward()
    gradient = net.encoder.position_embedding.weight.grad
    assert gradient[0].any() and gradient[1].any() and not gradient[2:].any()


def test_lower_precision_gives_about_the_same(tiny_data_path, tmp_path):
    net, (train, _, _) = build(tiny_data_path, tmp_path)
    assert_like_in_16_bits(net, next(iter(train)))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio: 0.0 must be greater than 0"),
        ({"mask_ratio": 1.5}, r"mask_ratio: 1.5 must lie in \[0, 1\]"),
        (
            {"mask_random_prob": 0.6, "mask_keep_prob": 0.6},
            "mask_random_prob: 0.6, mask_keep_prob: 0.6 must be shares, together at most 1",
        ),
        ({"mask_keep_prob": -0.1}, "mask_keep_prob: -0.1 must be shares"),
        ({"softmax_memory": 0.0}, "softmax_memory"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob: 1.0 must be at least 0 and less than"),
    ],
)
def test_bad_settings_name_their_key(tiny_data_path, tmp_path, settings, sentence):
    config = config_of("BERT4RecCloze", tiny_data_path, tmp_path, **settings)
    with pytest.raises(UserError, match=sentence):
        get_model("BERT4RecCloze").check_settings(config, None)
