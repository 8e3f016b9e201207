"""LRURec's encoder: a plain forward pass, the padding, items one by one, 16 bits, export."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recbole_ext.modules import transformer
from recbole_ext.modules.lru import LRUEncoder
from recbole_ext.types import UserError

N_ITEMS, D, LENGTH = 30, 6, 9


def encoder(**sizes):
    torch.manual_seed(0)
    net = LRUEncoder(n_items=N_ITEMS, hidden_size=D, inner_size=10, **sizes).eval()
    with torch.no_grad():  # weights large enough that histories matter
        for name, parameter in net.named_parameters():
            if name.endswith(("weight", "bias")):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return net


@pytest.fixture(scope="module")
def net():
    return encoder()


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(1)
    lengths = torch.tensor([1, LENGTH, 4, 7, 2])
    item_seq = torch.randint(1, N_ITEMS, (len(lengths), LENGTH))
    return item_seq.masked_fill(torch.arange(LENGTH) >= lengths[:, None], 0), lengths


def norm(x, layer):
    spread = ((x - x.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / (spread + layer.eps).sqrt() * layer.weight + layer.bias


def reference(net, items):
    """Equations 4 to 9 of the paper for one history [L], in complex128, one item at a time."""
    x = norm(net.item_embedding.weight.double()[items], net.LayerNorm)
    for block in net.blocks:
        unit, forward = block.unit, block.feed_forward
        decay = torch.exp(torch.complex(-unit.nu_log.exp(), unit.theta_log.exp()).cdouble())
        into = torch.view_as_complex(unit.dense_in.weight.double().view(-1, 2, D).mT.contiguous())
        shift = torch.view_as_complex(unit.dense_in.bias.double().view(-1, 2))
        out = unit.dense_out.weight.double().view(D, -1, 2)  # Re(C h) = C_re h_re - C_im h_im
        out = torch.complex(out[..., 0], -out[..., 1])
        h, states = torch.zeros_like(decay), []
        for one in x:
            h = decay * h + unit.gamma_log.double().exp() * (into @ one.cdouble() + shift)
            states.append((out @ h).real + unit.dense_out.bias)
        z = norm(torch.stack(states) + x, block.LayerNorm)
        inner = F.gelu(z @ forward.dense_1.weight.double().T + forward.dense_1.bias)
        inner = inner @ forward.dense_2.weight.double().T + forward.dense_2.bias
        x = norm(inner + z, forward.LayerNorm)
    return x


@torch.no_grad()
def test_states_are_those_of_the_papers_equations(net, batch):
    item_seq, lengths = batch
    states = net.states(item_seq, lengths)
    for row, length in enumerate(lengths.tolist()):
        expected = reference(net, item_seq[row, :length])
        torch.testing.assert_close(states[row, :length].double(), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(net(item_seq, lengths)[row], states[row, length - 1])


def test_inputs_keep_their_size(net):
    """Gamma is sqrt(1 - |lambda|^2), so that states of white noise have the noise's variance."""
    fresh = LRUEncoder(n_items=4, hidden_size=D).blocks[0].unit
    modulus = (-fresh.nu_log.exp()).exp()
    torch.testing.assert_close(fresh.gamma_log.exp() ** 2 + modulus**2, torch.ones(2 * D))


def test_padding_influences_nothing(net, batch):
    item_seq, lengths = batch
    padded = torch.arange(LENGTH) >= lengths[:, None]
    junk = torch.where(padded, torch.randint(1, N_ITEMS, item_seq.shape), item_seq)
    assert not torch.equal(junk, item_seq)
    gradients = []
    for seq in (item_seq, junk):
        net.zero_grad()
        net(seq, lengths).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in net.named_parameters()})
    assert torch.equal(net(item_seq, lengths), net(junk, lengths))
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@torch.no_grad()
def test_groups_of_like_length_change_nothing(net, batch, monkeypatch):
    together = net.states(*batch), net(*batch)
    monkeypatch.setattr(transformer, "CHUNK_ITEMS", 10)
    real = torch.arange(LENGTH) < batch[1][:, None]
    torch.testing.assert_close(net.states(*batch)[real], together[0][real])
    torch.testing.assert_close(net(*batch), together[1])


@torch.no_grad()
def test_items_one_by_one_give_the_states_of_the_whole(net, batch):
    item_seq, lengths = batch
    states, carry = net.states(item_seq, lengths), net.start(len(item_seq))
    for t in range(LENGTH):
        h, carry = net.step(item_seq[:, t], carry)
        real = t < lengths
        torch.testing.assert_close(h[real], states[real, t], rtol=0, atol=1e-5)


def test_dropout_is_where_the_authors_code_has_it():
    """On the embeddings before LayerNorm, on the unit's output, and on both layers behind it."""
    torch.manual_seed(0)
    net = LRUEncoder(n_items=9, hidden_size=D, inner_size=10, hidden_dropout_prob=0.5)
    block = net.blocks[0]
    forward = block.feed_forward
    watched = [net.dropout, block.unit, block.dropout, forward.dense_1, forward.dropout]
    calls = {part: [] for part in (*watched, net.LayerNorm, forward.dense_2)}
    for part, seen in calls.items():
        part.register_forward_hook(lambda _, x, y, seen=seen: seen.append((x[0], y)))
    net(torch.tensor([[3]]), torch.tensor([1]))
    (embedding, dropped), (unit, _) = calls[net.dropout][0], calls[block.dropout][0]
    assert torch.equal(embedding, net.item_embedding(torch.tensor([[3]])))
    assert torch.equal(calls[net.LayerNorm][0][0], dropped)
    assert torch.equal(unit, calls[block.unit][0][1])
    (inner, dropped), (outer, _) = calls[forward.dropout]
    assert torch.equal(inner, F.gelu(calls[forward.dense_1][0][1]))
    assert torch.equal(calls[forward.dense_2][0][0], dropped)
    assert torch.equal(outer, calls[forward.dense_2][0][1])
    assert [part.p for part in (net.dropout, block.dropout, forward.dropout)] == [0.5, 0.2, 0.5]


def test_low_precision_keeps_the_recurrence_in_32_bits(net, batch):
    expected = net(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        unit = net.blocks[0].unit
        assert unit._inputs(torch.randn(1, 2, D)).dtype == torch.float32
        found = net(*batch)
    assert (found.float() - expected).norm() / expected.norm() < 0.03
    found.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@torch.no_grad()
def test_an_exported_program_is_the_scan_and_gives_the_same_states(net, batch):
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, item_seq):
            return self.net._states(item_seq)

    program = torch.export.export(Whole(), (batch[0],))
    concatenations = [
        node for node in program.graph.nodes if node.target is torch.ops.aten.cat.default
    ]
    assert len(concatenations) == len(net.blocks) * 2 * 4  # of both parts, log2 of 9 rounded up
    found = program.module()(batch[0])
    torch.testing.assert_close(found, net._states(batch[0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "word"),
    [
        ({"n_layers": 0}, "n_layers"),
        ({"initializer_range": 0.0}, "initializer_range"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"unit_dropout_prob": 1.0}, "dropout"),
    ],
)
def test_bad_sizes_name_themselves(sizes, word):
    with pytest.raises(UserError, match=word):
        LRUEncoder(n_items=9, hidden_size=4, **sizes)
