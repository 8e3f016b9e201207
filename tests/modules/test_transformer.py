"""The encoder against RecBole's own layers, and against itself where it takes short cuts."""

from __future__ import annotations

import pytest
import torch
from recbole.model.layers import TransformerEncoder
from torch import nn

from recbole_ext.modules import attention, transformer
from recbole_ext.modules.transformer import SASEncoder, encoder_keys
from recbole_ext.types import UserError

N_ITEMS, D, LENGTH = 30, 16, 12
SIZES = {
    "n_items": N_ITEMS,
    "hidden_size": D,
    "n_heads": 4,
    "inner_size": 24,
    "max_length": LENGTH,
}


class RecBoleSASRec(nn.Module):
    """SASRec's forward pass with RecBole's layers and its attention mask, without config."""

    def __init__(self, n_layers, hidden_act):
        super().__init__()
        self.item_embedding = nn.Embedding(N_ITEMS, D, padding_idx=0)
        self.position_embedding = nn.Embedding(LENGTH, D)
        self.trm_encoder = TransformerEncoder(
            n_layers=n_layers,
            n_heads=4,
            hidden_size=D,
            inner_size=24,
            hidden_dropout_prob=0.0,
            attn_dropout_prob=0.0,
            hidden_act=hidden_act,
            layer_norm_eps=1e-12,
        )
        self.LayerNorm = nn.LayerNorm(D, eps=1e-12)
        self.dropout = nn.Dropout(0.0)

    def states(self, item_seq):
        x = self.item_embedding(item_seq) + self.position_embedding.weight[: item_seq.size(1)]
        mask = (item_seq != 0)[:, None, None, :].expand(-1, -1, item_seq.size(1), -1).tril()
        mask = torch.where(mask, 0.0, -10000.0)
        return self.trm_encoder(self.dropout(self.LayerNorm(x)), mask)[-1]


def random_sequences(rows=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, LENGTH + 1, (rows,), generator=generator)
    lengths[0], lengths[1] = 1, LENGTH
    item_seq = torch.randint(1, N_ITEMS, (rows, LENGTH), generator=generator)
    item_seq[torch.arange(LENGTH) >= lengths[:, None]] = 0
    return item_seq, lengths


def pair(n_layers=2, hidden_act="gelu"):
    """RecBole's model and ours with the same random weights, biases and norms included."""
    theirs = RecBoleSASRec(n_layers, hidden_act)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = SASEncoder(
        **SIZES,
        n_layers=n_layers,
        hidden_act=hidden_act,
        hidden_dropout_prob=0.0,
        attn_dropout_prob=0.0,
    )
    ours.load_state_dict(encoder_keys(theirs.state_dict(), prefix=""))
    return theirs, ours


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("hidden_act", ["gelu", "relu", "swish"])
def test_values_and_gradients_are_recboles(n_layers, hidden_act):
    torch.manual_seed(0)
    theirs, ours = pair(n_layers, hidden_act)
    item_seq, lengths = random_sequences()
    wanted = theirs.states(item_seq)[torch.arange(len(lengths)), lengths - 1]
    found = ours(item_seq, lengths)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    direction = torch.randn_like(wanted)
    (wanted * direction).sum().backward()
    (found * direction).sum().backward()
    theirs_grad = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        wanted_grad = theirs_grad[name].grad
        torch.testing.assert_close(parameter.grad, wanted_grad, atol=2e-5, rtol=1e-4, msg=name)


def test_states_are_recboles_at_every_real_position():
    torch.manual_seed(0)
    theirs, ours = pair()
    item_seq, _ = random_sequences()
    real = item_seq != 0
    torch.testing.assert_close(
        ours.states(item_seq)[real], theirs.states(item_seq)[real], atol=1e-5, rtol=1e-5
    )


def test_each_row_is_encoded_as_if_it_were_alone(monkeypatch):
    torch.manual_seed(0)
    _, ours = pair()
    monkeypatch.setattr(transformer, "CHUNK_ITEMS", 20)
    item_seq, lengths = random_sequences(rows=23, seed=5)
    alone = [ours(item_seq[i : i + 1, :n], n.view(1)) for i, n in enumerate(lengths)]
    torch.testing.assert_close(ours(item_seq, lengths), torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_rows_without_an_item_are_cut_into_parts_too(monkeypatch):
    monkeypatch.setattr(transformer, "CHUNK_ITEMS", 4)
    item_seq, lengths = torch.tensor([[0, 0, 0], [5, 6, 0], [0, 0, 0]]), torch.tensor([0, 2, 0])
    sums = transformer.by_length(lambda seq, _: seq.sum(1), item_seq, lengths)
    assert sums.tolist() == [0, 11, 0]


def test_the_explicit_attention_of_training_agrees_with_the_fused_one():
    """A dropout of 2^-40 takes the explicit path and never drops anything."""
    torch.manual_seed(0)
    _, ours = pair()
    item_seq, lengths = random_sequences()
    with torch.no_grad():
        fused, fused_all = ours(item_seq, lengths), ours.states(item_seq)
        for block in ours.trm_encoder.layer:
            block.multi_head_attention.attn_dropout_prob = 2.0**-40
        explicit, explicit_all = ours.train()(item_seq, lengths), ours.states(item_seq)
    torch.testing.assert_close(explicit, fused, atol=1e-5, rtol=1e-5)
    real = item_seq != 0
    torch.testing.assert_close(explicit_all[real], fused_all[real], atol=1e-5, rtol=1e-5)


def test_dropout_varies_in_training_only():
    torch.manual_seed(0)
    encoder = SASEncoder(**SIZES)
    item_seq, lengths = random_sequences()
    assert not torch.equal(encoder(item_seq, lengths), encoder(item_seq, lengths))
    torch.manual_seed(1)
    first = encoder(item_seq, lengths)
    torch.manual_seed(1)
    assert torch.equal(encoder(item_seq, lengths), first)
    encoder.eval()
    assert torch.equal(encoder(item_seq, lengths), encoder(item_seq, lengths))


class Scale(nn.Module):
    """Stands for a dropout: what it stands on is seen in the output, and nothing is random."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def test_dropout_stands_where_recboles_does(monkeypatch):
    """Each dropout of both is a factor of its own; in training alone, where RecBole's act too."""
    torch.manual_seed(0)
    theirs, ours = pair()
    theirs.dropout, ours.dropout = Scale(0.9), Scale(0.9)
    for block in theirs.trm_encoder.layer:
        block.multi_head_attention.attn_dropout = Scale(0.6)
    for block in (*theirs.trm_encoder.layer, *ours.trm_encoder.layer):
        block.multi_head_attention.out_dropout = Scale(0.7)
        block.feed_forward.dropout = Scale(0.8)
    for block in ours.trm_encoder.layer:
        block.multi_head_attention.attn_dropout_prob = 0.3
    monkeypatch.setattr(attention, "dropout", lambda x, p: x * (0.6 if p == 0.3 else 1.0))
    item_seq, lengths = random_sequences()
    real = item_seq != 0
    wanted = theirs.states(item_seq)
    torch.testing.assert_close(ours.states(item_seq)[real], wanted[real], atol=1e-5, rtol=1e-5)
    last = wanted[torch.arange(len(lengths)), lengths - 1]
    torch.testing.assert_close(ours(item_seq, lengths), last, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("which", [torch.optim.Adam, torch.optim.AdamW])
def test_initial_weights_and_a_padding_row_that_stays_zero(which):
    torch.manual_seed(0)
    encoder = SASEncoder(n_items=2000, hidden_size=64, max_length=50)
    for name, parameter in encoder.named_parameters():
        if "LayerNorm.weight" in name:
            assert (parameter == 1).all()
        elif name.endswith("bias"):
            assert (parameter == 0).all()
        else:
            std = parameter[1:].std().item()
            assert std == pytest.approx(0.02, rel=0.05), name
    item_seq = torch.tensor([[3, 5, 0], [7, 0, 0]])
    optimizer = which(encoder.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        encoder(item_seq, torch.tensor([2, 1])).square().sum().backward()
        optimizer.step()
    assert (encoder.item_embedding.weight[0] == 0).all()
    assert (encoder.item_embedding.weight[3] != 0).all()


def test_foreign_names_are_mapped_and_others_kept():
    ours = nn.Module()
    ours.encoder = SASEncoder(**SIZES)
    theirs = RecBoleSASRec(2, "gelu")
    assert set(encoder_keys(theirs.state_dict())) == set(ours.state_dict())
    assert set(encoder_keys(ours.state_dict())) == set(ours.state_dict())
    assert list(encoder_keys({"head.weight": torch.zeros(1)})) == ["head.weight"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("n_heads", 3), ("n_layers", 0), ("hidden_act", "mish"), ("hidden_dropout_prob", 1.0)],
)
def test_senseless_arguments_are_named(argument, value):
    with pytest.raises(UserError, match=argument.split("_")[1]):
        SASEncoder(**{**SIZES, argument: value})


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu():
    torch.manual_seed(0)
    _, ours = pair()
    item_seq, lengths = random_sequences()
    expected = ours(item_seq, lengths)
    found = ours.cuda()(item_seq.cuda(), lengths.cuda())
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)
