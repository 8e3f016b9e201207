"""The fusions: what is missing takes no part, all learns, and the geometry is kept at first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_ext.modules.fusion import LateFusion, build_fusion
from recbole_ext.types import UserError
from tests.modules.test_cross_attention import naive

D, T, P = 16, 5, 7
CASES = {
    "late-gate": ("late", {"late": "gate"}, (1, 1)),
    "late-concat": ("late", {"late": "concat"}, (1, 1)),
    "late-attention": ("late", {"late": "attention"}, (1, 1)),
    "late-tokens": ("late", {"late": "gate"}, (T, P)),
    "early": ("early", {}, (T, P)),
    "early-vectors": ("early", {}, (1, 1)),
    "cross_modal": ("cross_modal", {}, (T, P)),
    "cross_modal-id": ("cross_modal", {"use_id_key": True}, (1, 1)),
    "token": ("token", {}, (T, P)),
    "token-one-text": ("token", {}, (1, P)),
    "one": ("late", {}, (T,)),
}
cases = pytest.mark.parametrize("case", CASES)
PRESENT = [(1, 1), (1, 0), (0, 1), (0, 0), (1, 1), (1, 1)]
"""Of each item: is there text, is there an image."""


def make(case: str, seed: int = 0):
    """Return a fusion, tokens, masks and ids of six items, of which some lack something."""
    torch.manual_seed(seed)
    kind, settings, n_tokens = CASES[case]
    fusion = build_fusion(kind, n_tokens, D, n_heads=2, **settings)
    tokens = [F.normalize(torch.randn(6, n, D), dim=-1) for n in n_tokens]
    masks = [torch.rand(6, n) < 0.7 for n in n_tokens]
    for m, mask in enumerate(masks):
        mask[:, 0] = True
        mask &= torch.tensor([bool(row[m]) for row in PRESENT])[:, None]
    return fusion, tokens, masks, torch.randn(6, D) / 4


@cases
def test_what_is_missing_takes_no_part(case):
    """Vectors behind the mask may be anything; nothing is NaN, nor is any gradient."""
    fusion, tokens, masks, ids = make(case)
    for token in tokens:
        token.requires_grad_()
    found = fusion(tokens, masks, ids)
    assert found.shape == (6, D) and found.isfinite().all()
    found.square().sum().backward()
    for token, mask in zip(tokens, masks, strict=True):
        assert token.grad.isfinite().all() and (token.grad[~mask] == 0).all()
        assert (token.grad[mask] != 0).any()
    others = [torch.where(m[..., None], t, 1e3 + t) for t, m in zip(tokens, masks, strict=True)]
    torch.testing.assert_close(fusion(others, masks, ids), found)


@cases
def test_every_weight_gets_a_gradient(case):
    """W_q of each attention among them."""
    fusion, tokens, masks, ids = make(case)
    (fusion(tokens, masks, ids) * torch.randn(6, D)).sum().backward()
    for name, weight in fusion.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert weight.grad.abs().max() > 1e-9, name


@cases
def test_an_item_of_which_all_is_missing_has_the_learned_vector(case):
    fusion, tokens, masks, ids = make(case)
    nothing = [torch.zeros_like(mask) for mask in masks]
    alone = build_fusion(CASES[case][0], CASES[case][2], D, n_heads=2, **CASES[case][1])
    alone.load_state_dict(fusion.state_dict())
    for each in (fusion, alone):
        found = each(tokens, nothing, torch.zeros(6, D))
        assert torch.allclose(found, found[0].expand(6, D)) and found[0].norm() > 0.1


@cases
def test_other_items_of_the_batch_change_nothing(case):
    fusion, tokens, masks, ids = make(case)
    whole = fusion(tokens, masks, ids)
    for i in range(6):
        alone = fusion([t[[i]] for t in tokens], [m[[i]] for m in masks], ids[[i]])
        torch.testing.assert_close(alone[0], whole[i])


def reference_gate(fusion, x, present) -> np.ndarray:
    """Item by item: weights over what is there, from all vectors, the stand-ins included."""
    missing = fusion.missing.detach().numpy()
    weight = fusion.mix.weight.detach().numpy()
    found = []
    for vectors, there in zip(x, present, strict=True):
        vectors = [
            v if p else missing[m] for m, (v, p) in enumerate(zip(vectors, there, strict=True))
        ]
        logits = weight @ np.concatenate(vectors)
        counts = [m for m in range(len(there)) if there[m] or not any(there)]
        powers = {m: np.exp(logits[m]) for m in counts}
        found.append(sum(powers[m] * vectors[m] for m in counts) / sum(powers.values()))
    return np.array(found)


def test_late_attention_and_concat():
    torch.manual_seed(1)
    x, present = torch.randn(6, 2, D), torch.tensor(PRESENT).bool()
    parts = [x[:, [0]], x[:, [1]]], [present[:, [0]], present[:, [1]]], torch.zeros(6, D)
    for how in ("attention", "concat"):
        fusion = LateFusion(D, [1, 1], how)
        with torch.no_grad():
            fusion.mix.weight.normal_()
        weight, missing = fusion.mix.weight.detach().numpy(), fusion.missing.detach().numpy()
        for i, found in enumerate(fusion(*parts).detach().numpy()):
            there = present[i].tolist()
            vectors = [x[i, m].numpy() if there[m] else missing[m] for m in range(2)]
            expected = weight @ np.concatenate(vectors) if how == "concat" else 0.0
            if how == "attention":
                counts = [m for m in range(2) if there[m] or not any(there)]
                powers = {m: np.exp(weight[0] @ vectors[m]) for m in counts}
                expected = sum(powers[m] * vectors[m] for m in counts) / sum(powers.values())
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def attended(layer, x: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Return what tokens [T, D] find in the tokens [S, D] that are there."""
    every = np.ones((1, len(memory)), dtype=bool)
    return naive(layer, x[None], memory[None], every, 2)[0]


def pooled(pool, x: np.ndarray) -> np.ndarray:
    powers = np.exp(x @ pool.score.weight[0].detach().numpy())
    return powers @ x / powers.sum()


@pytest.mark.parametrize("case", ["early", "cross_modal", "token"])
def test_attention_among_the_tokens_that_are_there(case):
    """Item by item, with nothing but its own tokens: no masks."""
    fusion, tokens, masks, ids = make(case)
    with torch.no_grad():
        for name, weight in fusion.named_parameters():
            if "missing" not in name:
                weight.normal_(std=0.3)
    fusion = fusion.double()
    found = fusion([t.double() for t in tokens], masks, ids.double()).detach().numpy()
    for i, there in enumerate(PRESENT):
        text, image = (t[i][m[i]].double().numpy() for t, m in zip(tokens, masks, strict=True))
        if case == "early" and any(there):
            kinds = fusion.modality.detach().numpy()
            x = np.concatenate([text + kinds[0], image + kinds[1]])
            expected = pooled(fusion.pool, x + attended(fusion.attention, x, x))
        elif case == "token" and any(there):
            x = text if there[0] else image.mean(0, keepdims=True)
            expected = pooled(
                fusion.pool, x + attended(fusion.attention, x, image) if there[1] else x
            )
        elif case == "cross_modal" and all(there):
            new_text = text + attended(fusion.text_to_image, text, image)
            new_image = image + attended(fusion.image_to_text, image, text)
            sides = [
                pooled(p, x) for p, x in zip(fusion.late.pools, (new_text, new_image), strict=True)
            ]
            powers = np.exp(fusion.late.mix.weight.detach().numpy() @ np.concatenate(sides))
            expected = powers @ np.array(sides) / powers.sum()
        elif case == "cross_modal" and any(there):
            side = 0 if there[0] else 1
            expected = pooled(fusion.late.pools[side], (text, image)[side])
        else:
            continue
        np.testing.assert_allclose(found[i], expected, rtol=1e-8)


def test_the_gate_is_a_softmax_over_what_is_there():
    torch.manual_seed(1)
    fusion = LateFusion(D, [1, 1], "gate")
    with torch.no_grad():
        fusion.mix.weight.mul_(50)
    x = torch.randn(6, 2, D)
    present = torch.tensor(PRESENT).bool()
    found = fusion([x[:, [0]], x[:, [1]]], [present[:, [0]], present[:, [1]]], torch.zeros(6, D))
    expected = reference_gate(fusion, x.numpy(), present.numpy())
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], x[1, 0])  # text alone: the text as it is
    torch.testing.assert_close(found[2], x[2, 1])


@cases
def test_untrained_it_keeps_the_geometry(case):
    """Two modalities that say the same: fused items are as far from each other as they were.

    A random MLP with LayerNorm brings them together: from a mean cosine of .25 to one of .9.
    """
    torch.manual_seed(2)
    kind, settings, n_tokens = CASES[case]
    fusion = build_fusion(kind, n_tokens, D, n_heads=2, **settings)
    direction = F.normalize(torch.randn(D), dim=0)
    x = F.normalize(F.normalize(torch.randn(200, D), dim=-1) + 0.6 * direction, dim=-1)
    tokens = [x[:, None].expand(-1, n, -1) for n in n_tokens]
    masks = [torch.ones(200, n, dtype=torch.bool) for n in n_tokens]

    def mean_cosine(vectors):
        vectors = F.normalize(vectors, dim=-1)
        return ((vectors @ vectors.T).sum() - 200) / (200 * 199)

    before = mean_cosine(x)
    assert 0.15 < before < 0.4
    after = mean_cosine(fusion(tokens, masks, torch.zeros(200, D)))
    assert abs(after - before) < 0.1
    mlp = torch.nn.Sequential(
        torch.nn.Linear(D, D), torch.nn.ReLU(), torch.nn.Linear(D, D), torch.nn.LayerNorm(D)
    )
    assert mean_cosine(mlp(x)) > before + 0.2  # the test can see a collapse


@pytest.mark.parametrize(
    ("kind", "n_tokens", "settings", "sentence"),
    [
        (
            "cross_modal",
            (1, 1),
            {},
            "fusion: cross_modal would attend over a single key.*use_id_key",
        ),
        ("cross_modal", (T, 1), {}, "cross_modal would attend over a single key"),
        ("token", (T, 1), {}, "fusion: token would attend over a single key.*tokens or patches"),
        ("token", (T, 1), {"use_id_key": True}, "fusion: token would attend over a single key"),
        ("token", (T, P, P), {}, "fusion: token takes text and image, not 3"),
        ("latte", (1, 1), {}, "fusion: 'latte' is none of late.*did you mean 'late'"),
        ("late", (1, 1), {"late": "gates"}, "late: 'gates' is none of gate.*did you mean 'gate'"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(kind, n_tokens, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        build_fusion(kind, n_tokens, D, **settings)
