"""The queue of negatives and the slow encoder, against plain loops."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from recbole_ext.modules.memory_bank import MemoryBank, SlowCopy, bank_info_nce


def vectors(n, seed=0):
    return F.normalize(torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_oldest_give_way():
    bank, queue = MemoryBank(5, 4), []
    for seed, n in enumerate((2, 4, 1, 8, 3)):
        keys, ids = vectors(n, seed), torch.arange(n) + 10 * seed
        bank.push(keys, ids)
        queue = [*queue, *zip(ids.tolist(), keys.tolist(), strict=True)][-5:]
        held = {
            i: k for i, k in zip(bank.ids[bank.filled()].tolist(), bank.keys.tolist(), strict=False)
        }
        assert held.keys() == {i for i, _ in queue}
        for i, key in queue:
            assert held[i] == key
    assert len(bank.state_dict()) == 3  # it is part of a checkpoint


def test_what_is_empty_is_no_negative():
    bank, queries = MemoryBank(6, 4), vectors(3)
    ids = torch.tensor([1, 2, 3])
    assert float(bank_info_nce(queries, queries, ids, bank)) == 0
    bank.push(vectors(2, 1), torch.tensor([7, 8]))
    assert (bank.logits(queries, ids, 1.0) == -math.inf).sum(1).tolist() == [4, 4, 4]


def test_the_loss_is_the_one_of_the_paper():
    bank = MemoryBank(6, 4)
    bank.push(vectors(4, 1), torch.tensor([5, 6, 2, 9]))
    queries = (3 * vectors(3)).requires_grad_()
    keys = (2 * vectors(3, 2)).requires_grad_()
    ids = torch.tensor([1, 2, 9])
    loss = bank_info_nce(queries, keys, ids, bank, temperature=0.2)
    wanted = []
    for q, k, i in zip(queries, keys, ids.tolist(), strict=True):
        cos = [float(F.cosine_similarity(q, k, dim=0))]
        # equal items are no negatives: the positive is counted once
        others = zip(bank.keys[:4], [5, 6, 2, 9], strict=True)
        cos += [float(F.cosine_similarity(q, other, dim=0)) for other, j in others if j != i]
        wanted.append(-cos[0] / 0.2 + math.log(sum(math.exp(c / 0.2) for c in cos)))
    assert float(loss) == pytest.approx(sum(wanted) / 3, rel=1e-5)
    loss.backward()
    assert keys.grad is None and queries.grad.abs().sum() > 0


def test_of_several_queries_the_nearest_counts():
    bank = MemoryBank(6, 4)
    bank.push(vectors(4, 1), torch.tensor([5, 6, 2, 9]))
    queries, keys, ids = vectors(6).view(3, 2, 4), vectors(3, 2), torch.tensor([1, 2, 9])
    loss = bank_info_nce(queries, keys, ids, bank, temperature=0.2)
    wanted = []
    for qs, k, i in zip(queries, keys, ids.tolist(), strict=True):
        others = zip(bank.keys[:4], [5, 6, 2, 9], strict=True)
        asked = [k, *(other for other, j in others if j != i)]
        cos = [max(float(F.cosine_similarity(q, key, dim=0)) for q in qs) for key in asked]
        wanted.append(-cos[0] / 0.2 + math.log(sum(math.exp(c / 0.2) for c in cos)))
    assert float(loss) == pytest.approx(sum(wanted) / 3, rel=1e-5)


def test_the_slow_copy_follows():
    fast = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    slow = SlowCopy(fast, decay=0.9)
    x, start = vectors(8), copy.deepcopy(fast)
    assert torch.equal(slow(x), fast(x)) and not slow(x).requires_grad
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.add_(1.0)
    assert torch.equal(slow(x), start(x)), "it has weights of its own"
    for step in range(1, 4):
        slow.follow()
        wanted = copy.deepcopy(start)
        with torch.no_grad():
            for parameter in wanted.parameters():
                parameter.add_(1 - 0.9**step)
        assert torch.allclose(slow(x), wanted(x), atol=1e-6)
    assert not list(slow.parameters()) and len(slow.state_dict()) == 4
    again = SlowCopy(fast)
    again.load_state_dict(slow.state_dict())
    assert torch.equal(again(x), slow(x))


def test_the_loss_is_exact_but_for_the_product():
    """With one-hot keys a product is one number of the query, rounded once and no more."""
    bank = MemoryBank(4, 4)
    bank.push(torch.eye(4), torch.tensor([5, 6, 7, 8]))
    queries, keys = vectors(3).bfloat16(), vectors(3, 2).bfloat16()
    ids = torch.tensor([1, 2, 3])
    with torch.autocast("cpu", torch.bfloat16):
        loss = bank_info_nce(queries, keys, ids, bank, temperature=0.07)
    q, k = (F.normalize(x.double(), dim=1) for x in (queries, keys))  # [3, 4] each
    others = q.bfloat16().double()  # [3, 4], cosines with the one-hot keys
    logits = torch.cat([(q * k).sum(1, keepdim=True), others], 1) / 0.07  # [3, 5]
    wanted = -logits.log_softmax(1)[:, 0].mean()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
