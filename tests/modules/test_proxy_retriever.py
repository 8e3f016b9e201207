"""UR4Rec's retriever: who sees whom, what the memory changes, and that all of it learns."""

from __future__ import annotations

import pytest
import torch

from recbole_ext.modules.proxy_retriever import ProxyRetriever, RetrieverBlock, proxy_mask
from recbole_ext.types import UserError

K, D, SIZE, F, M = 3, 6, 8, 5, 4


def make(n_layers=2, **more) -> ProxyRetriever:
    torch.manual_seed(0)
    blocks = [
        RetrieverBlock(
            hidden_size=SIZE,
            memory_size=F,
            n_heads=2,
            inner_size=16,
            hidden_dropout_prob=0.0,
            attn_dropout_prob=0.0,
            hidden_act="gelu",
            layer_norm_eps=1e-12,
        )
        for _ in range(n_layers)
    ]
    return ProxyRetriever(blocks, **{"n_proxies": K, "hidden_size": SIZE, "item_size": D, **more})


def inputs(n=3):
    mask = torch.tensor([[True, True, False, True], [False, True, False, False], [False] * M])
    return torch.randn(3, M, F), mask, torch.randn(3, n, D)


def test_the_mask_says_who_sees_whom():
    expected = torch.tensor(
        [
            [1, 1, 1, 1, 1],  # proxies see all
            [1, 1, 1, 1, 1],
            [1, 1, 1, 0, 0],  # items see the proxies and themselves
            [1, 1, 0, 1, 0],
            [1, 1, 0, 0, 1],
        ]
    ).bool()
    assert torch.equal(proxy_mask(2, 3), expected)
    assert proxy_mask(4, 0).all() and proxy_mask(0, 1).all()


@torch.no_grad()
def test_another_candidate_changes_no_item_in_the_first_layer():
    net = make(1)
    memory, mask, items = inputs()
    block, seen = net.layer[0], proxy_mask(K, 3)[None, None]
    x = torch.randn(3, K + 3, SIZE)
    before = block(x, seen, K, memory, mask)
    x[:, K + 1] += 1  # candidate 1 is another
    after = block(x, seen, K, memory, mask)
    changed = (before - after).abs().amax(-1) > 1e-6
    assert changed[:, :K].all()  # proxies see it
    assert changed[:, K:].tolist() == [[False, True, False]] * 3
    # with one layer the same holds of what comes out
    logits = net.match(memory, mask, items)
    items[:, 1] += 1
    changed = (net.match(memory, mask, items) - logits).abs() > 1e-6
    assert changed.tolist() == [[False, True, False]] * 3


@torch.no_grad()
def test_the_order_of_candidates_says_nothing():
    net = make()
    memory, mask, items = inputs()
    order = torch.tensor([2, 0, 1])
    logits = net.match(memory, mask, items)
    torch.testing.assert_close(net.match(memory, mask, items[:, order]), logits[:, order])


@torch.no_grad()
def test_the_memory_counts_where_it_is_there():
    net = make()
    memory, mask, items = inputs()
    for use in (lambda z: net.retrieve(z, mask), lambda z: net.match(z, mask, items)):
        before = use(memory)
        hidden = use(torch.where(mask[..., None], memory, 1e3 + memory))
        torch.testing.assert_close(hidden, before)
        shown = use(torch.where(mask[..., None], -memory, memory))
        changed = (shown - before).abs().flatten(1).amax(1) > 1e-5
        assert changed.tolist() == [True, True, False]  # the third user's memory is empty


@torch.no_grad()
def test_items_by_themselves_know_nothing_of_each_other():
    net = make()
    items = torch.randn(5, D)
    found = net.encode_items(items)
    for i in range(5):
        torch.testing.assert_close(net.encode_items(items[[i]])[0], found[i])


def test_everything_learns_with_an_empty_memory_in_the_batch():
    net = make()
    memory, mask, items = inputs()
    loss = net.retrieve(memory, mask)[..., 0].sum() + net.match(memory, mask, items).square().sum()
    (loss + net.encode_items(items[0])[:, 1].sum()).backward()
    for name, weight in net.named_parameters():
        assert weight.grad.isfinite().all(), name
        if not name.endswith("key.bias"):  # its gradient is 0: all keys shift alike
            assert weight.grad.abs().max() > 1e-9, name


def test_one_proxy_is_refused():
    with pytest.raises(UserError, match="n_proxies takes a number from 2, not 1"):
        make(n_proxies=1)
