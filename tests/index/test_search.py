"""Every search structure against a loop over numpy, and what each must do at its edges."""

from __future__ import annotations

import builtins
from collections.abc import Container

import numpy as np
import pytest
import torch

from recbole_ext.index import brute_force, build, faiss_index
from recbole_ext.index.brute_force import BruteForceIndex, exclude_ranges
from recbole_ext.index.build import build_index, recall
from recbole_ext.index.faiss_index import FaissIndex, drop_excluded
from recbole_ext.index.interface import MISSING, evenly_spaced, pad_neighbours, unit_rows
from recbole_ext.types import UserError

EXACT = ("brute_force", "exact")
APPROXIMATE = ("ivf", "hnsw")
D = 8


def vectors(n: int, seed: int = 0) -> torch.Tensor:
    """Return n vectors of different lengths, around a few centres."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(20, D))
    lengths = rng.uniform(0.5, 5, size=(n, 1))
    return torch.tensor(
        lengths * (centres[rng.integers(20, size=n)] + rng.normal(size=(n, D)))
    ).float()


def reference(
    keys: np.ndarray, query: np.ndarray, k: int, forbidden: Container[int]
) -> list[tuple[float, int]]:
    """Return the k nearest (cosine, row) of one query, by looking at every row."""
    found = []
    for row, key in enumerate(keys):
        if row not in forbidden:
            cosine = float(key @ query / np.linalg.norm(key) / np.linalg.norm(query))
            found.append((cosine, row))
    return sorted(found, reverse=True)[:k]


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("k", [1, 7])
def test_exact_search_is_the_loop_over_all_rows(kind, k):
    keys, queries = vectors(300), vectors(20, seed=1)
    ranges = torch.tensor([[3 * i, 3 * i + 40 * (i % 3)] for i in range(20)])
    similarity, ids = build_index(keys, kind).search(queries, k, ranges)
    for i in range(20):
        forbidden = range(int(ranges[i, 0]), int(ranges[i, 1]))
        wanted = reference(keys.double().numpy(), queries[i].double().numpy(), k, forbidden)
        assert ids[i].tolist() == [row for _, row in wanted]
        assert similarity[i].numpy() == pytest.approx([cosine for cosine, _ in wanted], abs=1e-5)


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("n", [639, 640, 647, 5120, 5127])
@pytest.mark.parametrize("k", [1, 10, 70])
def test_exact_search_where_rows_come_in_blocks(kind, n, k, monkeypatch):
    """Fewer and more rows than blocks are made of, and more queries than are taken at a time."""
    for most in ("CPU_QUERIES", "THREADS_QUERIES"):
        monkeypatch.setattr(brute_force, most, 32)
    keys, queries = vectors(n), vectors(70, seed=1)
    start = torch.arange(70) * 7  # [B]
    ranges = torch.stack([start, start + torch.tensor([0, 3, 60, n])[start % 4]], dim=1)
    ranges = ranges.clamp_max(n)
    similarity, ids = build_index(keys, kind).search(queries, k, ranges)
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(keys, axis=1)
    cosine = queries.double().numpy() @ keys.double().numpy().T / lengths  # [B, R]
    for i, (begin, end) in enumerate(ranges.tolist()):
        cosine[i, begin:end] = -np.inf
    wanted = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(cosine, wanted, 1)
    assert similarity.numpy() == pytest.approx(best, abs=1e-5)
    found = np.where(ids == MISSING, -np.inf, np.take_along_axis(cosine, ids.numpy(), 1))
    assert found == pytest.approx(best, abs=1e-6), "rows of these very cosines"
    assert all(
        len(set(row) - {MISSING}) == (np.isfinite(b).sum())
        for row, b in zip(ids.tolist(), best, strict=True)
    )


def test_rows_that_are_equal_are_all_found_once():
    keys = vectors(40).repeat(30, 1)  # each 30 times
    similarity, ids = BruteForceIndex(keys).search(keys[:40], 30)
    assert torch.equal(ids.sort(1).values, torch.arange(30) * 40 + torch.arange(40)[:, None])
    assert similarity.flatten().tolist() == pytest.approx([1.0] * 1200, abs=1e-5)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_approximate_search_finds_nearly_all_and_never_the_excluded(kind):
    keys, queries = vectors(4000), vectors(100, seed=1)
    ranges = torch.stack([torch.arange(100) * 30, torch.arange(100) * 30 + 400], dim=1)
    index = build_index(keys, kind)
    assert recall(index, BruteForceIndex(keys), queries, 10, ranges) > 0.9
    _, ids = index.search(queries, 10, ranges)
    assert not ((ids >= ranges[:, :1]) & (ids < ranges[:, 1:])).any()


def test_ivf_finds_what_its_lists_hold_without_the_excluded_rows():
    """Queries share ranges, or have one alone, or an empty one: each as a loop over its lists."""
    keys, queries = vectors(4000), vectors(60, seed=1)
    ranges = torch.tensor([[0, 900], [700, 2500], [5, 5], [4000, 4000]])[torch.arange(60) % 4]
    ranges[7] = torch.tensor([100, 3900])
    faiss = pytest.importorskip("faiss")
    index = FaissIndex(keys, "ivf")
    _, ids = index.search(queries, 10, ranges)
    lists = index._index.invlists
    _, probed = index._index.quantizer.search(unit_rows(queries).numpy(), index._index.nprobe)
    for i in range(60):
        held = [
            int(row)
            for n in probed[i]
            for row in faiss.rev_swig_ptr(lists.get_ids(int(n)), lists.list_size(int(n)))
        ]
        forbidden = set(range(4000)) - set(held) | set(range(*ranges[i].tolist()))
        wanted = reference(keys.double().numpy(), queries[i].double().numpy(), 10, forbidden)
        assert ids[i].tolist() == [row for _, row in wanted]


@pytest.mark.parametrize("kind", (*EXACT, "hnsw"))
def test_a_user_who_fills_the_neighbourhood_does_not_empty_the_answer(kind):
    """The 900 nearest rows are excluded: the search must go on until others turn up."""
    torch.manual_seed(0)
    own = torch.tensor([1.0] + [0.0] * (D - 1)) + 0.01 * torch.randn(900, D)
    others = torch.randn(100, D)
    keys = torch.cat([others[:50], own, others[50:]])
    queries = torch.eye(D)[:1]
    _, ids = build_index(keys, kind).search(queries, 5, torch.tensor([[50, 950]]))
    wanted = reference(keys.numpy(), queries[0].numpy(), 5, range(50, 950))
    assert ids[0].tolist() == [row for _, row in wanted]


@pytest.mark.parametrize("kind", (*EXACT, *APPROXIMATE))
def test_fewer_rows_than_neighbours_are_padded(kind):
    keys = vectors(6)
    similarity, ids = build_index(keys, kind).search(keys[:2], 9, torch.tensor([[0, 2], [0, 6]]))
    assert sorted(ids[0, :4].tolist()) == [2, 3, 4, 5]
    assert ids[0, 4:].tolist() == [MISSING] * 5
    assert ids[1].tolist() == [MISSING] * 9
    assert torch.isinf(similarity[1]).all() and torch.isinf(similarity[0, 4:]).all()
    assert torch.isfinite(similarity[0, :4]).all()


@pytest.mark.parametrize("kind", (*EXACT, *APPROXIMATE))
def test_no_query_no_answer(kind):
    similarity, ids = build_index(vectors(50), kind).search(torch.zeros(0, D), 3)
    assert similarity.shape == ids.shape == (0, 3)


@pytest.mark.parametrize("kind", (*EXACT, *APPROXIMATE))
@pytest.mark.parametrize("is_unit", [False, True])
def test_the_models_tensors_are_left_alone(kind, is_unit):
    """A numpy view of a CPU tensor shares its memory: normalising it in place moves weights."""
    keys = unit_rows(vectors(50)) if is_unit else vectors(50)
    keys, queries = torch.nn.Parameter(keys), torch.nn.Parameter(keys[:4].clone())
    before = keys.detach().clone(), queries.detach().clone()
    index = build_index(keys, kind)
    index.search(queries, 3, torch.tensor([[0, 2]] * 4))
    assert torch.equal(keys, before[0]) and torch.equal(queries, before[1])
    with torch.no_grad():
        keys.zero_()  # and what the index holds is its own
    similarity, _ = index.search(queries, 1)
    assert similarity.flatten().tolist() == pytest.approx([1.0] * 4, abs=1e-5)


def test_brute_force_in_chunks_is_brute_force(monkeypatch):
    keys, queries = vectors(200), vectors(33, seed=1)
    ranges = torch.stack([torch.arange(33), torch.arange(33) + 9], dim=1)
    whole = BruteForceIndex(keys).search(queries, 4, ranges)
    for name, value in (("CHUNK_CELLS", 200 * 5), ("CPU_QUERIES", 1), ("THREADS_QUERIES", 1)):
        monkeypatch.setattr(f"recbole_ext.index.brute_force.{name}", value)
        parts = BruteForceIndex(keys).search(queries, 4, ranges)
        assert torch.equal(whole[1], parts[1])


def test_exclude_ranges_touches_only_the_ranges():
    scores = torch.zeros(4, 6)
    exclude_ranges(scores, torch.tensor([[1, 3], [0, 0], [5, 6], [4, 2]]))
    hidden = {(b, r) for b, r in torch.isinf(scores).nonzero().tolist()}
    assert hidden == {(0, 1), (0, 2), (2, 5)}


def test_drop_excluded_keeps_the_order_of_the_others():
    similarity = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    kept, ids = drop_excluded(similarity, torch.tensor([[4, 1, -1, 0]]), torch.tensor([[1, 3]]))
    assert ids.tolist() == [[4, 0, -1, -1]]
    assert kept[0, :2].tolist() == pytest.approx([0.9, 0.6])


def test_pad_neighbours_marks_both_signs_of_absence():
    inf = float("-inf")
    similarity, ids = pad_neighbours(torch.tensor([[0.5, inf, 0.1]]), torch.tensor([[2, 3, -1]]), 4)
    assert ids.tolist() == [[2, -1, -1, -1]]
    assert similarity.tolist() == [[0.5, inf, inf, inf]]


def test_ivf_keeps_to_39_rows_per_list_and_16_probes():
    index = FaissIndex(vectors(1000), "ivf", n_probe=2, n_lists=500)
    assert index.n_lists == 1000 // 39
    assert index._index.nprobe == 16
    assert FaissIndex(vectors(30), "ivf").n_lists == 1


def test_recall_counts_what_is_missing():
    class Half(BruteForceIndex):
        def search(self, queries, k, excluded=None):
            similarity, ids = super().search(queries, k, excluded)
            return similarity, ids.masked_fill(torch.arange(k) % 2 == 1, MISSING)

    keys = vectors(100)
    assert recall(Half(keys), BruteForceIndex(keys), keys[:10], 4) == 0.5


def test_auto_is_exact_up_to_a_size_and_ivf_above(monkeypatch):
    monkeypatch.setattr(build, "EXACT_ROWS", 100)
    up_to_it = build_index(vectors(100), "auto")
    assert isinstance(up_to_it, BruteForceIndex)
    above = build_index(vectors(101), "auto")
    assert isinstance(above, FaissIndex) and above.kind == "ivf"


def test_an_unknown_kind_is_named():
    with pytest.raises(UserError, match="index: 'flat' is none of auto, brute_force, exact"):
        build_index(vectors(5), "flat")


def test_missing_faiss_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without_faiss(name, *args, **kwargs):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    assert build_index(vectors(5), "brute_force").n_rows == 5
    with pytest.raises(UserError, match="pip install faiss-cpu"):
        build_index(vectors(5), "exact")


def test_k_below_one_is_refused():
    for kind in EXACT:
        with pytest.raises(ValueError, match="at least 1"):
            build_index(vectors(5), kind).search(vectors(1), 0)


def test_faiss_uses_torchs_number_of_threads(monkeypatch):
    faiss = pytest.importorskip("faiss")
    given = []  # not really set: torch may share the runtime, and with it all tests behind this one
    monkeypatch.setattr(faiss, "omp_set_num_threads", given.append)
    FaissIndex(vectors(10), "exact")
    assert given == [torch.get_num_threads()]


@pytest.mark.parametrize(("n_rows", "n"), [(30_000_000, 1000), (7, 7), (7, 20), (10, 1), (10, 4)])
def test_evenly_spaced_places_are_rows(n_rows, n):
    places = evenly_spaced(n_rows, n)
    exact = [i * (n_rows - 1) // max(1, n - 1) for i in range(n)] if n < n_rows else range(n_rows)
    assert places.tolist() == list(exact)
    assert places[0] == 0 and (places[-1] == n_rows - 1 or n == 1)


@pytest.mark.parametrize("kind", ["exact", "ivf"])  # a graph links by what is there already
def test_an_index_made_in_parts_is_the_one_made_at_once(kind, monkeypatch):
    keys, queries = vectors(3000), vectors(50, seed=1)
    whole = build_index(keys, kind).search(queries, 10)
    monkeypatch.setattr(faiss_index, "ADD_ROWS", 256)
    parts = build_index(keys, kind).search(queries, 10)
    assert torch.equal(whole[1], parts[1]) and torch.equal(whole[0], parts[0])
