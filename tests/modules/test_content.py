"""Stored features as modules, and item vectors: v_i = P x_i + delta_i."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_ext.features.store import Aligned
from recbole_ext.modules.content import ItemContent, linear_map
from recbole_ext.modules.feature_source import FeatureSource
from recbole_ext.modules.fusion import build_fusion
from recbole_ext.modules.profile import PooledProfile, StoredProfile
from recbole_ext.types import UserError

N, SIZE, D, T = 9, 12, 8, 4
PLACE = np.array([-1, 2, 0, -1, 1, 5, 4, 3, 6])
"""Row of each id in the file; ids 0 (padding) and 3 have none."""


def stored(tokens: int = 0, dtype: str = "float16", seed: int = 0) -> Aligned:
    rng = np.random.default_rng(seed)
    shape = (7, tokens, SIZE) if tokens else (7, SIZE)
    values = rng.normal(size=shape).astype(dtype)
    mask = None
    if tokens:
        mask = np.arange(tokens) < rng.integers(1, tokens + 1, size=7)[:, None]
    else:
        values[4] = 0  # id 6: it is there, and says nothing
    return Aligned(values, mask, PLACE, 0)


def make(kinds=("text",), tokens=0, fusion="late", **more) -> ItemContent:
    torch.manual_seed(0)
    sources = {kind: FeatureSource(stored(tokens, seed=i)) for i, kind in enumerate(kinds)}
    built = build_fusion(fusion, [s.n_tokens for s in sources.values()], D)
    return ItemContent(sources, built, D, N, **more)


def test_vectors_come_in_float32_and_of_unit_length():
    aligned = stored()
    values, mask = FeatureSource(aligned)(torch.tensor([1, 0, 6, 8, 3]))
    assert values.shape == (5, 1, SIZE) and values.dtype == torch.float32
    assert mask.squeeze(1).tolist() == [True, False, False, True, False]
    for row, place in ((0, 2), (3, 6)):
        expected = aligned.values[place].astype(np.float32)
        np.testing.assert_allclose(values[row, 0], expected / np.linalg.norm(expected), rtol=1e-5)
    assert (values[~mask] == 0).all()


class Watched(np.ndarray):
    """An array that notes how many rows are read at a time."""

    largest = 0

    def __getitem__(self, index):
        found = super().__getitem__(index)
        Watched.largest = max(Watched.largest, len(np.atleast_1d(index)))
        return np.asarray(found)


def test_what_says_nothing_is_not_present():
    """Id 6 has a vector of zeros; of the tokens of id 8 none counts."""
    assert FeatureSource(stored()).present.tolist() == [i not in (0, 3, 6) for i in range(N)]
    tokens = stored(T)
    tokens.mask[6] = False
    assert FeatureSource(tokens).present.tolist() == [i not in (0, 3, 8) for i in range(N)]


def of_rows(values: np.ndarray, mask: np.ndarray | None = None) -> Aligned:
    """Return rows 0, 1 and 2 as those of ids 1, 2 and 4; ids 0 and 3 have none."""
    return Aligned(values, mask, np.array([-1, 0, 1, -1, 2]), 0)


def test_numbers_of_what_does_not_count_are_not_read():
    """Of a row that stands in for those without, and of a place that the mask leaves out."""
    values = np.ones((3, 2), np.float16)
    found, counts = FeatureSource(of_rows(values))(torch.tensor([0, 3, 1]))
    assert counts.flatten().tolist() == [False, False, True] and not found[:2].any()
    tokens, mask = (
        np.ones((3, 2, 2), np.float16),
        np.array([[False, True], [True, True]])[[0, 1, 1]],
    )
    tokens[0, 0] = np.nan
    found, counts = FeatureSource(of_rows(tokens, mask))(torch.arange(5))
    assert counts.sum(1).tolist() == [0, 1, 2, 0, 2]
    assert not found[~counts].any() and found[counts].isfinite().all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_of_no_numbers_is_refused_when_it_is_opened(value):
    """In row 0 it would else be that of all ids without a vector too: NaN x 0 is NaN."""
    values = np.ones((3, 2), np.float16)
    values[0, 1] = value
    with pytest.raises(UserError, match="1 of 5 rows have values that are no numbers"):
        FeatureSource(of_rows(values))


def test_tokens_stay_in_their_file_and_a_chunk_at_a_time_is_read():
    aligned = stored(T)
    watched = Aligned(aligned.values.view(Watched), aligned.mask, PLACE, 0)
    source = FeatureSource(watched)
    assert not any(buffer.is_floating_point() for buffer in source.buffers())
    assert copy.deepcopy(source)._aligned.value.values is source._aligned.value.values
    torch.manual_seed(0)
    small = ItemContent({"text": source}, build_fusion("late", [T], D), D, N, memory_mib=1e-9)
    Watched.largest = 0
    with torch.no_grad():
        found = small.all()
    assert Watched.largest == 1
    torch.manual_seed(0)
    whole = ItemContent({"text": FeatureSource(aligned)}, build_fusion("late", [T], D), D, N)
    with torch.no_grad():
        torch.testing.assert_close(found, whole.all())


def test_chunks_have_the_gradients_of_the_whole():
    found = []
    for memory_mib in (1e-9, 64):
        content = make(("text", "image"), T, "token", memory_mib=memory_mib)
        (content(torch.arange(N)) * torch.arange(D)).sum().backward()
        found.append({name: p.grad for name, p in content.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name], rtol=1e-4, atol=1e-5, msg=name)


@torch.no_grad()
def test_an_item_is_its_mapped_text_and_its_delta():
    content = make()
    content.delta.weight.normal_()
    ids = torch.tensor([5, 3, 1])
    found = content(ids).numpy()
    weight = content.projections["text"].weight.numpy()
    aligned = stored()
    for row, i in enumerate(ids.tolist()):
        if i == 3:
            mapped = content.fusion.missing.numpy()
        else:
            x = aligned.values[PLACE[i]].astype(np.float32)
            mapped = weight @ (x / np.linalg.norm(x))
        expected = mapped + content.delta.weight[i].numpy()
        np.testing.assert_allclose(found[row], expected / np.linalg.norm(expected), rtol=1e-4)


@torch.no_grad()
def test_untrained_items_keep_the_geometry_of_their_texts():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 96)) + 0.6 * rng.normal(size=96)
    source = FeatureSource(Aligned(x.astype("float32"), None, np.arange(300), 0))
    content = ItemContent({"text": source}, build_fusion("late", [1], 64), 64, 300)

    def cosines(vectors):
        vectors = F.normalize(vectors, dim=-1)
        return (vectors @ vectors.T)[torch.ones(300, 300).triu(1) > 0]

    before, after = cosines(torch.from_numpy(x).float()), cosines(content.all())
    assert 0.15 < before.mean() < 0.4
    assert abs(after.mean() - before.mean()) < 0.1
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.6
    mlp = torch.nn.Sequential(
        torch.nn.Linear(96, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.LayerNorm(64)
    )
    unit = F.normalize(torch.from_numpy(x).float(), dim=-1)
    assert cosines(mlp(unit)).mean() > before.mean() + 0.2  # what this is to avoid


@pytest.mark.parametrize(("size", "hidden_size"), [(8, 8), (5, 16), (64, 16)])
@torch.no_grad()
def test_a_linear_map_keeps_lengths(size, hidden_size):
    x = F.normalize(torch.randn(500, size), dim=-1)
    lengths = linear_map(size, hidden_size)(x).norm(dim=-1)
    if size <= hidden_size:
        torch.testing.assert_close(lengths, torch.ones(500))
    assert lengths.square().mean().item() == pytest.approx(1, rel=0.1)


def test_modalities_are_means_of_unit_length():
    content = make(("text", "image"), T)
    ids = torch.tensor([4, 3, 8])
    found, present = content.modalities(ids)
    assert present.tolist() == [[True, True], [False, False], [True, True]]
    for m, name in enumerate(content.sources):
        aligned = stored(T, seed=m)
        x, mask = aligned.take(np.array([4]))
        x = x[0][mask[0]] / np.linalg.norm(x[0][mask[0]], axis=-1, keepdims=True)
        expected = (x @ content.projections[name].weight.detach().numpy().T).mean(0)
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(found[0, m].detach(), expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_pooled_profile_weighs_by_what_and_when():
    profile = PooledProfile(D, 6)
    profile.recency.normal_()
    profile.pool.score.weight.normal_()
    items, lengths = torch.randn(3, 5, D), torch.tensor([5, 3, 2])
    mask = torch.arange(5) < lengths[:, None]
    mask[0, 1] = False  # an item without a text
    mask[2] = False  # a history of such items
    found = profile(items, mask, lengths).numpy()
    recency, score = profile.recency.numpy(), profile.pool.score.weight[0].numpy()
    for row in (0, 1):
        powers = {
            i: np.exp(recency[int(lengths[row]) - 1 - i] + items[row, i].numpy() @ score)
            for i in range(5)
            if mask[row, i]
        }
        expected = sum(power * items[row, i].numpy() for i, power in powers.items())
        np.testing.assert_allclose(
            found[row], expected / sum(powers.values()), rtol=1e-4, atol=1e-6
        )
    np.testing.assert_array_equal(found[2], profile.missing.numpy())


def test_rows_that_may_not_see_the_text_do_not_depend_on_it():
    torch.manual_seed(0)
    source = FeatureSource(stored())
    profile = StoredProfile(source, D, None)
    pooled, users = torch.randn(4, D), torch.tensor([1, 2, 3, 4])  # user 3 has no text
    usable = torch.tensor([True, False, True, True])
    before = profile(pooled, users, usable)
    source.values.add_(torch.randn_like(source.values))
    after = profile(pooled, users, usable)
    assert (before != after).any(1).tolist() == [True, False, False, True]
    torch.testing.assert_close(before[1], F.normalize(pooled[1], dim=0))
    before.sum().backward()
    assert all(p.grad.isfinite().all() for p in profile.parameters())
