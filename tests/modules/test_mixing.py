"""The mixing maths against naive loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_ext.modules import mixing
from recbole_ext.modules.retriever import MixGate, Retriever, log_weights

B, K, N, D = 6, 4, 9, 5


def batch(seed: int = 0):
    """Return logits [B, N], weights [B, K], targets [B, K], alpha [B]; row 0 has no neighbours."""
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(B, N))).float()
    logits[:, 0] = -torch.inf
    weights = torch.tensor(rng.dirichlet(np.ones(K), size=B)).float()
    targets = torch.tensor(rng.integers(1, 4, size=(B, K)))  # few items: neighbours share targets
    alpha = torch.tensor(rng.uniform(0.1, 0.8, size=B)).float()
    weights[0], targets[0], alpha[0] = 0, 0, 0
    weights[1, 2:], targets[1, 2:] = 0, 0
    weights[1] /= weights[1].sum()
    return logits, weights, targets, alpha


def mixture(logits, weights, targets, alpha) -> np.ndarray:
    """Return p = (1 - a) softmax + a sum_k w_k 1[t_k] by the book, [B, N]; 0 for the padding."""
    out = np.zeros((B, N))
    for b in range(B):
        row = logits[b, 1:].double().numpy()
        out[b, 1:] = (1 - float(alpha[b])) * np.exp(row) / np.exp(row).sum()
        for k in range(K):
            if targets[b, k]:
                out[b, targets[b, k]] += float(alpha[b]) * float(weights[b, k])
    return out


def test_scores_are_the_mixtures_log_probabilities():
    logits, weights, targets, alpha = batch()
    wanted = mixture(logits, weights, targets, alpha)
    scores = mixing.mixture_scores(logits.clone(), weights, targets, alpha)
    assert torch.isinf(scores[:, 0]).all()
    assert scores[:, 1:].softmax(1).numpy() == pytest.approx(wanted[:, 1:], abs=1e-6)


def test_scores_in_parts_are_the_scores(monkeypatch):
    logits, weights, targets, alpha = batch()
    whole = mixing.mixture_scores(logits.clone(), weights, targets, alpha)
    monkeypatch.setattr(mixing, "SCORE_ROWS", 4)
    assert torch.equal(mixing.mixture_scores(logits.clone(), weights, targets, alpha), whole)


def test_alpha_zero_keeps_the_logits_bit_for_bit():
    logits, weights, targets, _ = batch()
    scores = mixing.mixture_scores(logits.clone(), weights, targets, torch.zeros(B))
    assert torch.equal(scores, logits)


def test_a_row_without_neighbours_keeps_its_logits():
    logits, weights, targets, alpha = batch()
    assert torch.equal(mixing.mixture_scores(logits.clone(), weights, targets, alpha)[0], logits[0])


@pytest.mark.parametrize("smoothing", [0.01, 0.5])
def test_log_linear_scores_multiply_the_distributions(smoothing):
    logits, weights, targets, alpha = batch()
    alpha = 5 * alpha  # an exponent may exceed 1
    scores = mixing.log_linear_scores(logits.clone(), weights, targets, alpha, smoothing)
    assert torch.isinf(scores[:, 0]).all()
    for b in range(B):
        p = np.exp(logits[b, 1:].double().numpy())
        for item in range(1, N):
            mass = sum(float(weights[b, k]) for k in range(K) if targets[b, k] == item)
            p[item - 1] *= (1 + mass / smoothing) ** float(alpha[b])
        assert scores[b, 1:].softmax(0).numpy() == pytest.approx(p / p.sum(), abs=1e-6)


def test_log_linear_scores_without_neighbours_or_weight_are_the_logits(monkeypatch):
    logits, weights, targets, alpha = batch()
    scores = mixing.log_linear_scores(logits.clone(), weights, targets, alpha, 0.1)
    assert torch.equal(scores[0], logits[0]) and not torch.equal(scores[1], logits[1])
    untouched = mixing.log_linear_scores(logits.clone(), weights, targets, torch.zeros(B), 0.1)
    assert torch.equal(untouched, logits)
    monkeypatch.setattr(mixing, "SCORE_ROWS", 4)
    in_parts = mixing.log_linear_scores(logits.clone(), weights, targets, alpha, 0.1)
    assert torch.equal(in_parts, scores)


def test_label_probability_is_that_of_the_scores():
    logits, weights, targets, alpha = batch()
    wanted = mixture(logits, weights, targets, alpha)
    for label in range(1, N):
        labels = torch.full((B,), label)
        log_prob = logits.log_softmax(1)[:, label]
        log_mass = mixing.label_log_mass(weights.log(), targets, labels)
        found = mixing.mixture_log_prob(log_prob, log_mass, alpha)
        assert found.exp().numpy() == pytest.approx(wanted[:, label], abs=1e-6)


def test_mixture_loss_keeps_its_gradients_however_unlikely_the_label_is():
    """In closed form: d log(exp x + exp y) / dx is x's share, whatever exp x underflows to."""
    log_weights = torch.tensor([[-150.0, 0.0], [-1.0, -0.5], [-1.0, -0.5]], requires_grad=True)
    targets, labels = torch.tensor([[4, 5], [4, 5], [4, 5]]), torch.tensor([4, 7, 4])
    log_prob = torch.tensor([-200.0, -200.0, -1.0], requires_grad=True)
    alpha = torch.tensor([0.5, 0.5, 0.0], requires_grad=True)
    log_mass = mixing.label_log_mass(log_weights, targets, labels)
    found = mixing.mixture_log_prob(log_prob, log_mass, alpha)
    assert found.tolist() == pytest.approx([-150 + np.log(0.5), -200 + np.log(0.5), -1.0])
    found.sum().backward()
    assert log_weights.grad.tolist() == [[pytest.approx(1.0), 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert log_prob.grad.tolist() == pytest.approx([0.0, 1.0, 1.0], abs=1e-6)
    assert alpha.grad.tolist() == pytest.approx([1 / 0.5, -1 / 0.5, -1.0])  # 0 has no share to gain


def test_a_saturated_gate_has_finite_losses_and_gradients():
    alpha = torch.ones(2, requires_grad=True)
    log_mass = torch.tensor([mixing.NEGLIGIBLE, -0.5])
    found = mixing.mixture_log_prob(torch.tensor([-2.0, -2.0]), log_mass, alpha)
    found.sum().backward()
    assert found.isfinite().all() and alpha.grad.isfinite().all() and found[0] > -20


def test_vectors_mix_as_the_formula_says():
    rng = np.random.default_rng(1)
    h, emb = rng.normal(size=(B, D)), rng.normal(size=(B, K, D))
    _, weights, _, alpha = batch()
    found = mixing.mix_vectors(torch.tensor(h), weights.double(), torch.tensor(emb), alpha.double())
    for b in range(B):
        a = float(alpha[b])
        retrieved = sum(float(weights[b, k]) * emb[b, k] for k in range(K))
        assert found[b].numpy() == pytest.approx((1 - a) * h[b] + a * retrieved, abs=1e-6)


def test_vectors_with_alpha_zero_are_the_states_bit_for_bit():
    h, emb = torch.randn(B, D), torch.randn(B, K, D)
    assert torch.equal(mixing.mix_vectors(h, torch.rand(B, K), emb, torch.zeros(B)), h)


def test_label_scores_of_the_mixture_use_one_neighbour_at_a_time():
    log_prob, alpha = torch.tensor([-2.0, -0.5]), torch.tensor([0.3, 0.6])
    is_label = torch.tensor([[True, False], [False, True]])
    found = mixing.mixture_label_scores(log_prob, is_label, alpha)
    for b in range(2):
        for k in range(2):
            a, p = float(alpha[b]), np.exp(float(log_prob[b]))
            assert found[b, k].item() == pytest.approx(
                np.log((1 - a) * p + a * float(is_label[b, k]))
            )


def test_label_scores_of_the_vectors_use_one_neighbour_at_a_time():
    rng = np.random.default_rng(2)
    h, weight = rng.normal(size=(B, D)), rng.normal(size=(N, D))
    targets, labels = rng.integers(1, N, size=(B, K)), rng.integers(1, N, size=B)
    alpha = rng.uniform(0, 1, size=B)
    found = mixing.vector_label_scores(
        torch.tensor(h), torch.tensor(weight)[targets], torch.tensor(weight),
        torch.tensor(labels), torch.tensor(alpha),
    )  # fmt: skip
    for b in range(B):
        for k in range(K):
            alone = (1 - alpha[b]) * h[b] + alpha[b] * weight[targets[b, k]]
            logits = weight[1:] @ alone
            wanted = logits[labels[b] - 1] - np.log(np.exp(logits).sum())
            assert found[b, k].item() == pytest.approx(wanted)


def test_kl_is_the_sum_over_neighbours():
    rng = np.random.default_rng(3)
    valid = torch.ones(B, K, dtype=torch.bool)
    valid[0], valid[1, 2:] = False, False
    similarity = torch.tensor(rng.normal(size=(B, K))).float().requires_grad_()
    scores, b = rng.normal(size=(B, K)), 0.7
    weighed = log_weights(similarity, valid, 0.5)
    found = mixing.retrieval_kl(weighed, torch.tensor(scores).float(), valid, b)
    total = 0.0
    for row in range(B):
        ks = [k for k in range(K) if valid[row, k]]
        if not ks:
            continue
        p = np.exp(similarity[row, ks].detach().double().numpy() / 0.5)
        q = np.exp(scores[row, ks] / b)
        p, q = p / p.sum(), q / q.sum()
        total += (p * np.log(p / q)).sum()
    assert found.item() == pytest.approx(total / B, abs=1e-6)
    found.backward()
    assert torch.isfinite(similarity.grad).all()
    assert (similarity.grad[0] == 0).all() and (similarity.grad[2] != 0).all()


def test_kl_is_torchs_own():
    log_p, log_q = torch.randn(B, K).log_softmax(1), torch.randn(B, K).log_softmax(1)
    valid = torch.ones(B, K, dtype=torch.bool)
    wanted = torch.nn.functional.kl_div(log_q, log_p.exp(), reduction="batchmean")
    assert mixing.retrieval_kl(log_p, log_q, valid, 1.0).item() == pytest.approx(
        wanted.item(), abs=1e-6
    )


def test_untrained_retriever_is_the_identity_and_similarity_the_cosine():
    torch.manual_seed(0)
    retriever = Retriever(D, n_layers=2)
    h, keys = torch.randn(B, D), torch.randn(B, K, D)
    assert torch.equal(retriever(h), h)
    found = retriever.similarity(h, keys)
    for b in range(B):
        for k in range(K):
            x, y = h[b].double().numpy(), keys[b, k].double().numpy()
            wanted = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
            assert found[b, k].item() == pytest.approx(wanted, abs=1e-5)


def test_similarity_has_gradients_on_both_sides():
    retriever = Retriever(D)
    h, keys = torch.randn(B, D, requires_grad=True), torch.randn(B, K, D, requires_grad=True)
    retriever.similarity(h, keys)[:, 0].sum().backward()
    assert (h.grad != 0).any() and (keys.grad[:, 0] != 0).any()
    assert (retriever.blocks[0].dense_2.weight.grad != 0).any()


def test_weights_sum_to_one_over_the_valid_neighbours():
    valid = torch.tensor([[True, False, True], [False, False, False]])
    similarity = torch.tensor([[0.2, float("-inf"), 0.4], [float("-inf")] * 3])
    weights = log_weights(similarity, valid, 0.1).exp() * valid
    ratio = np.exp(0.2 / 0.1) / np.exp(0.4 / 0.1)
    assert weights[0].tolist() == pytest.approx([ratio / (1 + ratio), 0, 1 / (1 + ratio)], abs=1e-6)
    assert weights[1].tolist() == [0, 0, 0]


def test_temperature_is_learned_only_when_asked_and_stays_in_its_range():
    learned, fixed = (
        Retriever(D, temperature=0.3),
        Retriever(D, temperature=0.3, learn_temperature=False),
    )
    assert "log_temperature" in dict(learned.named_parameters())
    assert "log_temperature" not in dict(fixed.named_parameters())
    assert "log_temperature" in fixed.state_dict()
    assert learned.temperature.item() == pytest.approx(0.3)
    with torch.no_grad():
        learned.log_temperature.fill_(-50)
    assert learned.temperature.item() == pytest.approx(0.01)


def test_the_gates_facts_are_those_of_its_docstring():
    """Negative cosines, missing neighbours, and a row without any, by a loop in numpy."""
    rng = np.random.default_rng(5)
    similarity = rng.uniform(-1, 1, size=(B, K))
    similarity[1] = -np.abs(similarity[1])
    valid = rng.uniform(size=(B, K)) < 0.7
    valid[0], valid[1], valid[2] = False, [True, True, False, False], True
    weights = rng.dirichlet(np.ones(K), size=B) * valid
    gate = MixGate(0.2)
    factor, bias = np.array([1.5, -0.7, 2.0]), 0.3
    with torch.no_grad():
        gate.dense.weight.copy_(torch.tensor(factor))
        gate.dense.bias.fill_(bias)
    wanted = []
    for b in range(B):
        near = [k for k in range(K) if valid[b, k]]
        facts = np.zeros(3)
        if near:
            cosines = similarity[b, near]
            facts[:] = max(cosines), sum(cosines) / len(near), sum(weights[b, near] ** 2)
        wanted.append(1 / (1 + np.exp(-(factor @ facts + bias))))
    given = np.where(valid, similarity, -np.inf)
    found = gate(torch.tensor(given), torch.tensor(weights).float(), torch.tensor(valid))
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


def test_the_gate_starts_at_alpha_and_learns():
    gate = MixGate(0.2)
    similarity, valid = torch.rand(B, K), torch.ones(B, K, dtype=torch.bool)
    alpha = gate(similarity, torch.full((B, K), 1 / K), valid)
    assert alpha.tolist() == pytest.approx([0.2] * B)
    alpha.sum().backward()
    assert (gate.dense.weight.grad != 0).all()
