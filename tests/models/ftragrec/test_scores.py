"""Scores and losses of FTRagRec against loops over everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from recbole_ext.data.prefix_dataset import ROW_ID
from recbole_ext.models.sequential import ftragrec
from recbole_ext.modules import retrieval_mix
from recbole_ext.types import UserError
from tests.models.ftragrec_help import FIXED, MIXES, first_batch, shake, train


@torch.no_grad()
def naive_log_prob(net: Any, batch: Any, queries: list[int], mix: str) -> list[np.ndarray]:
    """Return log p of all items but the padding for some queries, from rows and weights alone."""
    view, weight = net.retrieval.retriever, net.item_weight.double().numpy()
    item_seq, lengths, targets, users = net.keeper.rows.by_row_id()

    def encode(history, length):
        return net.encoder(history[: int(length)].view(1, -1), torch.tensor([int(length)]))

    def unit(state):
        vector = view(state)[0].double().numpy()
        return vector / np.linalg.norm(vector)

    keys = [unit(encode(*row)) for row in zip(item_seq, lengths, strict=True)]
    given, heat = float(net.retrieval.alpha), net.retrieval.settings()["temperature"]
    smoothing = net.retrieval.settings().get("smoothing")
    wanted = []
    for q in queries:
        h = encode(batch[net.ITEM_SEQ][q], batch[net.ITEM_SEQ_LEN][q])
        others = [r for r in range(len(keys)) if int(users[r]) != int(batch[net.USER_ID][q])]
        near = sorted(others, key=lambda r: -(keys[r] @ unit(h)))[: int(net.retrieval.n_neighbours)]
        cosines = np.array([keys[r] @ unit(h) for r in near])
        attention = np.exp(cosines / heat)
        attention /= attention.sum()
        a = given
        if mix == "gate":
            dense = net.retrieval.gate.dense
            facts = [cosines.max(), cosines.mean(), (attention**2).sum()]
            a = 1 / (1 + np.exp(-(dense.weight[0].double().numpy() @ facts + float(dense.bias))))
        state = h[0].double().numpy()
        if mix == "vector":
            retrieved = sum(w * weight[targets[r]] for w, r in zip(attention, near, strict=True))
            state = (1 - a) * state + a * retrieved
        p = np.exp(weight[1:] @ state)
        p /= p.sum()
        if mix == "log_linear":
            mass = np.zeros(len(p))
            for w, r in zip(attention, near, strict=True):
                mass[int(targets[r]) - 1] += w
            p *= (1 + mass / smoothing) ** a
            p /= p.sum()
        elif mix != "vector":
            p *= 1 - a
            for w, r in zip(attention, near, strict=True):
                p[int(targets[r]) - 1] += a * w
        wanted.append(np.log(p))
    return wanted


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("index", ["brute_force", "exact"])
def test_scores_are_those_of_a_loop_over_the_memory(make, mix, index):
    net, loaders = make(mix=mix, index=index, top_k=7, alpha=0.4, **FIXED)
    shake(net.retrieval.retriever.blocks, 0.05)
    shake(net.encoder, 0.1)  # states that differ: no ties among the neighbours
    if mix == "gate":
        shake(net.retrieval.gate)
    net.eval()
    batch = first_batch(loaders[2])
    scores = net.full_sort_predict(batch)
    for row, wanted in zip((0, 19), naive_log_prob(net, batch, [0, 19], mix), strict=True):
        assert scores[row, 1:].log_softmax(0).numpy() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("mix", ["probability", "vector", "gate"])
def test_losses_and_scores_are_the_same_mixture(make, mix):
    net, loaders = make(mix=mix, alpha=0.5, top_k=4, **FIXED)
    train(net, loaders[0])
    net.refresh_memory()
    if mix == "gate":
        shake(net.retrieval.gate)
    batch = first_batch(loaders[0])
    labels = batch[net.POS_ITEM_ID]
    scores = net.full_sort_predict(batch)[:, 1:].log_softmax(1)
    wanted = -scores[torch.arange(len(labels)), labels - 1].mean()
    assert net.losses(batch)["enhanced"].item() == pytest.approx(wanted.item(), abs=1e-4)


def test_the_log_linear_mix_is_trained_by_the_loss_of_the_probability_mix(make):
    losses = []
    for settings in ({"alpha": 3.0, "train_alpha": 0.4}, {"mix": "probability", "alpha": 0.4}):
        net, loaders = make(top_k=9, **{**FIXED, "kl_small_weight": 0.1}, **settings)
        losses.append(
            {name: value.item() for name, value in net.losses(first_batch(loaders[0])).items()}
        )
    assert losses[0] == losses[1] and losses[0]["enhanced"] > 0 and losses[0]["kl"] > 0


def test_predict_encodes_a_history_once_for_all_its_candidates(make):
    net, loaders = make(top_k=5, eval_args={"mode": "uni20"}, **FIXED)
    net.eval()
    encode, encoded = net.encoder.forward, []
    batch = first_batch(loaders[2])
    wanted = net.full_sort_predict(batch)[torch.arange(len(batch)), batch[net.ITEM_ID]]
    net.encoder.forward = lambda seq, length: (encoded.append(len(seq)), encode(seq, length))[1]
    assert torch.allclose(net.predict(batch), wanted, atol=1e-5)
    assert encoded == [len(batch[net.USER_ID].unique())] and len(batch) > 2 * encoded[0]
    one = batch[[0, 0, 1]]  # another user with the same history may find other rows
    one.interaction[net.USER_ID] = torch.tensor([1, 2, 2])
    first = net.full_sort_predict(one)[torch.arange(3), one[net.ITEM_ID]]
    assert torch.allclose(net.predict(one), first, atol=1e-5) and first[0] != first[1]


@pytest.mark.parametrize("mix", MIXES)
def test_a_scoring_multiplies_by_all_items_once(make, monkeypatch, mix):
    net, loaders = make(mix=mix, top_k=5, **FIXED)
    calls, item_logits = [], retrieval_mix.item_logits
    for module in (retrieval_mix, ftragrec):
        monkeypatch.setattr(
            module, "item_logits", lambda *given: (calls.append(1), item_logits(*given))[1]
        )
    net.eval().full_sort_predict(first_batch(loaders[2]))
    assert calls == [1]


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_rec_is_the_encoders_cross_entropy(make, freeze):
    net, loaders = make(freeze=freeze, **FIXED)
    net.eval()
    batch = first_batch(loaders[0])
    logits = net.encode(batch) @ net.item_weight[1:].T
    wanted = torch.nn.functional.cross_entropy(logits, batch[net.POS_ITEM_ID] - 1)
    found = net.losses(batch)["rec"]
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert found.requires_grad == (freeze == "none")


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_skipping_rows_without_the_label_changes_neither_loss_nor_gradient(
    make, monkeypatch, freeze
):
    def run(every_row: bool) -> list[torch.Tensor]:
        net, loaders = make(freeze=freeze, top_k=5, **{**FIXED, "kl_small_weight": 0.0})
        if every_row:
            monkeypatch.setattr(type(net.retrieval), "_every_row_counts", lambda self: True)
        shake(net.encoder, 0.1)
        net.eval()
        loss = net.losses(first_batch(loaders[0]))["enhanced"]
        loss.backward()
        return [loss.detach(), *(p.grad for p in net.parameters() if p.grad is not None)]

    torch.manual_seed(4)
    some = run(False)
    torch.manual_seed(4)
    for mine, theirs in zip(some, run(True), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("mix", MIXES)
def test_without_any_neighbour_the_scores_are_the_encoders(make, mix):
    net, loaders = make(mix=mix)
    users = net.keeper.rows.users
    everyone = torch.tensor([[0, len(users)]])
    net.keeper.rows.excluded = lambda policy, asked, row_id=None: everyone.expand(len(asked), 2)
    net.eval()
    batch = first_batch(loaders[2])
    logits = net.encode(batch) @ net.item_weight.T
    assert torch.equal(net.full_sort_predict(batch)[:, 1:], logits[:, 1:])
    losses = net.losses(first_batch(loaders[0]))
    sum(losses.values()).backward()
    assert losses["enhanced"].item() == pytest.approx(0.5 * losses["rec"].item(), abs=1e-5)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_a_batch_without_row_ids_says_what_to_do(make):
    net, loaders = make()
    batch = first_batch(loaders[0])
    del batch.interaction[ROW_ID]
    with pytest.raises(UserError, match="PrefixDataset"):
        net.losses(batch)
