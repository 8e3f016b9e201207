"""FTRagRec's KL term by its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_ext.data.prefix_dataset import ROW_ID
from tests.models.ftragrec_help import FIXED, first_batch, shake, train


def test_kl_is_weighted_named_and_left_out_at_zero(make):
    net, loaders = make(kl_small_weight=0.5, top_k=20)
    batch = first_batch(loaders[0])
    net.eval()
    half = net.losses(batch)["kl"].item()
    net.retrieval.kl = replace(net.retrieval.kl, weight=1.0)
    assert net.losses(batch)["kl"].item() == pytest.approx(2 * half) and half > 0
    net.retrieval.kl = replace(net.retrieval.kl, weight=0.0)
    assert list(net.losses(batch)) == ["rec", "enhanced"]


@pytest.mark.parametrize("mix", ["probability", "vector", "gate"])
@pytest.mark.parametrize("kl_target", ["label", "model"])
def test_a_threshold_that_drops_nothing_changes_no_loss(make, mix, kl_target):
    def losses(threshold: float) -> list[torch.Tensor]:
        settings = {**FIXED, "kl_small_weight": 1.0, "kl_target": kl_target}
        net, loaders = make(mix=mix, top_k=3, quality_threshold=threshold, **settings)
        torch.manual_seed(3)
        shake(net.encoder, 0.1)
        net.refresh_memory()
        found = net.losses(first_batch(loaders[0]))
        sum(found.values()).backward()
        assert found["kl"] > 0
        retriever = net.retrieval.retriever
        return [*found.values(), retriever.blocks[0].dense_2.weight.grad]

    for without, with_it in zip(losses(-1.0), losses(-0.99999), strict=True):
        torch.testing.assert_close(without, with_it)


@pytest.mark.parametrize("mix", ["probability", "gate"])
def test_a_row_whose_neighbours_never_lead_to_the_label_has_no_kl(make, mix):
    settings = {**FIXED, "kl_small_weight": 1.0}
    net, loaders = make(mix=mix, top_k=3, **settings)
    shake(net.encoder, 0.1)
    net.refresh_memory()
    batch, memory = first_batch(loaders[0]), net.keeper.scoring()
    places = memory.place[batch[ROW_ID]]
    near = memory.neighbours_of_rows(3)[places].long()
    leads = (memory.targets[near] == memory.targets[places][:, None]).any(1)
    alone = [net.losses(batch[[row]])["kl"].item() for row in range(len(batch))]
    assert [kl > 0 for kl in alone] == leads.tolist() and 0 < leads.sum() < len(batch)


def test_kl_of_the_vector_mix_compares_with_each_neighbour_alone(make):
    settings = {"kl_small_weight": 1.0, "kl_temperature": 0.5, "alpha": 0.4, "calibrate": "none"}
    net, loaders = make(mix="vector", kl_target="label", top_k=4, **settings)
    shake(net.encoder, 0.3)
    net.refresh_memory()
    batch, memory = first_batch(loaders[0])[:6], net.keeper.scoring()
    weight, temperature = net.item_weight.double().numpy(), net.retrieval.settings()["temperature"]
    terms = []
    for place in memory.place[batch[ROW_ID]].tolist():
        near = memory.neighbours_of_rows(4)[place].tolist()
        state, label = memory.states[place].double().numpy(), int(memory.targets[place])
        cosine, alone = [], []
        for other in near:
            key = memory.states[other].double().numpy()
            cosine.append(state @ key / np.linalg.norm(state) / np.linalg.norm(key))
            logits = weight[1:] @ (0.6 * state + 0.4 * weight[int(memory.targets[other])])
            alone.append(np.exp(logits[label - 1]) / np.exp(logits).sum())
        p, q = np.exp(np.array(cosine) / temperature), np.array(alone) ** (1 / 0.5)
        p, q = p / p.sum(), q / q.sum()
        terms.append((p * np.log(p / q)).sum())
    assert net.losses(batch)["kl"].item() == pytest.approx(np.mean(terms), rel=1e-3)


@pytest.mark.parametrize("mix", ["probability", "vector"])
def test_alpha_zero_teaches_the_retriever_nothing(make, mix):
    settings = {**FIXED, "kl_small_weight": 1.0, "alpha": 0.0}
    net, loaders = make(mix=mix, top_k=8, **settings)
    losses = net.losses(first_batch(loaders[0]))
    assert losses["kl"] == 0
    assert losses["enhanced"].item() == pytest.approx(losses["rec"].item(), abs=1e-5)
    sum(losses.values()).backward()
    assert all((p.grad == 0).all() for p in net.retrieval.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"quality_threshold": -0.99999},
        {"quality_threshold": 0.7},
        {"mix": "gate"},
        {"kl_target": "model"},
    ],
)
def test_kl_of_a_batch_is_the_mean_over_its_rows(make, more):
    """Rows none of whose neighbours leads to the label have nothing to learn and count as 0.

    Unless the model is asked, which says as much of them as of the others.
    """
    net, loaders = make(
        top_k=8, kl_small_weight=1.0, kl_temperature=0.5, train_alpha=0.3, calibrate="none", **more
    )
    shake(net.encoder, 0.1)
    net.refresh_memory()
    batch = first_batch(loaders[0])
    memory = net.keeper.scoring()
    places = memory.place[batch[ROW_ID]]
    near = memory.neighbours_of_rows(8)[places].long()
    log_prob = memory.label_log_prob(net.item_weight).exp().numpy()
    temperature, terms, n_lost = net.retrieval.settings()["temperature"], [], 0
    least, asks_model = more.get("quality_threshold", -1), "kl_target" in more
    weight = net.item_weight.double()
    for place, row in zip(places.tolist(), near, strict=True):
        is_label = np.array([int(memory.targets[r]) == int(memory.targets[place]) for r in row])
        cosine = [
            torch.cosine_similarity(memory.states[place], memory.states[r], dim=0) for r in row
        ]
        kept = np.array(cosine, dtype=np.float64) >= least
        n_lost += is_label.any() and not is_label[kept].any()
        p = np.exp(np.array(cosine, dtype=np.float64)[kept] / temperature)
        q = (0.7 * log_prob[place] + 0.3 * is_label[kept]) ** (1 / 0.5)
        if asks_model:
            q = np.exp((weight[memory.targets[row]] @ memory.states[place].double()).numpy() / 0.5)
        p, q = p / p.sum(), q / q.sum()
        counts = asks_model or is_label[kept].any()
        terms.append((p * np.log(p / q)).sum() if counts else 0.0)
    assert 0 < np.count_nonzero(terms) and asks_model == (np.count_nonzero(terms) == len(terms))
    assert (n_lost > 0) == (least > 0)  # the threshold takes some rows' label from them
    assert net.losses(batch)["kl"].item() == pytest.approx(np.mean(terms), abs=1e-4)


@pytest.mark.parametrize("mix", ["probability", "vector"])
@pytest.mark.parametrize("kl_target", ["label", "model"])
def test_kl_pulls_the_weights_towards_its_target(make, mix, kl_target):
    settings = {"enhanced_rec_weight": 0.0, "kl_small_weight": 1.0, "kl_target": kl_target}
    net, loaders = make(mix=mix, top_k=8, learn_temperature=True, calibrate="none", **settings)
    shake(net.encoder, 0.1)
    before = sum(float(net.losses(batch)["kl"].detach()) for batch in loaders[0])
    train(net, loaders[0], epochs=5)
    assert sum(float(net.losses(batch)["kl"].detach()) for batch in loaders[0]) < 0.9 * before
