"""B1, B2, B10 to B12, B14: packages that RecBole imports and that are not there."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from compat_help import INTER, SIX, config, dataset, run, write

from recbole_ext._standins import absent, dgl, torch_scatter

KG = [
    "head_id:token\trelation_id:token\ttail_id:token",
    *("e1\tr1\te5", "e2\tr1\te5", "e3\tr2\te6", "e4\tr2\te6"),
]
LINK = ["item_id:token\tentity_id:token", "i1\te1", "i2\te2", "i3\te3", "i4\te4"]


def test_b1_b2_quick_start_does_without_ray() -> None:
    from recbole.quick_start import quick_start

    quick_start.tune.report(recall=0.1)  # RecBole's only use of it
    assert "ray" not in sys.modules and "ray.tune" not in sys.modules


def test_b1_a_ray_in_use_is_the_one_that_recbole_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole.quick_start import quick_start

    ray, tune = ModuleType("ray"), ModuleType("ray.tune")
    ray.tune = tune  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.tune", tune)
    monkeypatch.setattr(quick_start, "tune", None)  # to be put back at the end
    assert importlib.reload(quick_start).tune is tune


def knowledge(folder: Path, model: str, **settings: Any) -> tuple[Any, Any]:
    """Return Config and training data of the hand-written dataset with four triples."""
    write(folder, inter=[INTER, *SIX], kg=KG, link=LINK)
    settings["eval_args"] = {"split": {"RS": [1, 0, 0]}}
    settings["load_col"] = {
        "inter": ["user_id", "item_id"],
        "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
    }
    return config(folder, model, **settings), dataset(folder, model, **settings).build()[0]


@pytest.mark.skipif(importlib.util.find_spec("dgl") is not None, reason="the real dgl is installed")
def test_b10_kgat_builds_one_row_normalised_matrix_per_relation(tmp_path: Path) -> None:
    from recbole.model.knowledge_aware_recommender import KGAT

    settings, data = knowledge(tmp_path, "KGAT")
    got = KGAT(settings, data).A_in.to_dense().numpy()
    assert "dgl" not in sys.modules

    users = data.num("user_id")
    size = users + data.num("entity_id")
    edges: list[tuple[int, int, str]] = []
    for line in SIX:
        user, item, _ = line.split("\t")
        u, i = int(data.token2id("user_id", user)), users + int(data.token2id("item_id", item))
        edges += [(u, i, "interaction"), (i, u, "interaction")]
    for line in KG[1:]:
        head, relation, tail = line.split("\t")
        h, t = (users + int(data.token2id("entity_id", token)) for token in (head, tail))
        edges.append((h, t, relation))
    expected = np.zeros((size, size))
    for relation in ("r1", "r2", "interaction"):
        matrix = np.zeros((size, size))
        for source, target, name in edges:
            matrix[source, target] += name == relation
        expected += matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_b10_the_stand_in_graph_selects_edges_and_keeps_all_nodes() -> None:
    graph = dgl.graph((torch.tensor([0, 1, 1, 3]), torch.tensor([1, 0, 0, 2])))
    graph.edata["kind"] = torch.tensor([7, 8, 8, 7])
    part = dgl.edge_subgraph(graph, graph.filter_edges(lambda e: e.data["kind"] == 8), True)
    expected = np.zeros((4, 4))
    expected[1, 0] = 2
    assert (part.adjacency_matrix(transpose=False).toarray() == expected).all()
    assert (part.adjacency_matrix(transpose=True).toarray() == expected.T).all()
    assert part.edata["kind"].tolist() == [8, 8]


def naive_groups(index: torch.Tensor) -> Iterator[tuple[int, list[int]]]:
    for group in sorted(set(index.tolist())):
        yield group, [row for row, other in enumerate(index.tolist()) if other == group]


INDEX = torch.tensor([2, 0, 2, 2, 5])


def test_b11_scatter_mean_is_the_mean_of_each_group() -> None:
    src = torch.randn(5, 3, dtype=torch.float64)
    expected = torch.zeros(7, 3, dtype=torch.float64)
    for group, rows in naive_groups(INDEX):
        expected[group] = src[rows].mean(0)
    torch.testing.assert_close(torch_scatter.scatter_mean(src, INDEX, 0, 7), expected)
    torch.testing.assert_close(torch_scatter.scatter_mean(src, INDEX), expected[:6])


def test_b11_scatter_softmax_is_the_softmax_within_each_group_and_stays_finite() -> None:
    src = torch.randn(5, 3, dtype=torch.float64) * 500
    expected = torch.zeros_like(src)
    for _, rows in naive_groups(INDEX):
        expected[rows] = src[rows].softmax(0)
    torch.testing.assert_close(torch_scatter.scatter_softmax(src, INDEX), expected)


@pytest.mark.parametrize("function", [torch_scatter.scatter_mean, torch_scatter.scatter_softmax])
def test_b11_gradients_are_those_of_finite_differences(function: Any) -> None:
    src = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: function(x, INDEX), (src,))


@pytest.mark.skipif(
    importlib.util.find_spec("torch_scatter") is not None, reason="the real one is installed"
)
@pytest.mark.parametrize("name", ["KGIN", "MCCLK"])
def test_b11_kgin_and_mcclk_compute_a_loss_without_torch_scatter(tmp_path: Path, name: str) -> None:
    import recbole.model.knowledge_aware_recommender as models
    from recbole.data.interaction import Interaction

    settings, data = knowledge(tmp_path, name, embedding_size=4, n_factors=2, k=2)
    model = getattr(models, name)(settings, data)
    batch = Interaction({"user_id": [1, 2], "item_id": [1, 2], "neg_item_id": [4, 3]})
    loss = model.calculate_loss(batch)
    assert torch.isfinite(loss) and loss > 0
    loss.backward()
    assert "torch_scatter" not in sys.modules


def test_b10_b11_a_real_package_comes_before_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ModuleType("dgl")
    monkeypatch.setitem(sys.modules, "dgl", real)
    absent.importable.cache_clear()
    module = ModuleType("recbole.data.dataset.dataset")

    class Dataset:
        def _create_graph(self) -> ModuleType:
            import dgl

            return dgl

    module.Dataset = Dataset  # type: ignore[attr-defined]
    absent.in_presence_of("dgl", absent.DGL_CALLERS)(module)
    try:
        assert Dataset()._create_graph() is real
    finally:
        absent.importable.cache_clear()


def test_b12_hyperopt_is_imported_without_pkg_resources(tmp_path: Path) -> None:
    package = tmp_path / "hyperopt"
    package.mkdir()
    (package / "__init__.py").write_text("from . import atpe\n")
    (package / "atpe.py").write_text("import pkg_resources\n")
    code = f"""
        sys.path.insert(0, {str(tmp_path)!r})
        import recbole_ext, hyperopt.atpe
        print("pkg_resources" in sys.modules)
    """
    assert (
        run("import sys\n" + code.replace("\n        ", "\n"), without="pkg_resources") == "False"
    )


def test_b12_exhaustive_search_draws_the_same_numbers_by_both_names() -> None:
    from recbole.trainer import hyper_tuning

    expected = np.random.RandomState(3).randint(0, 100, 20).tolist()
    for name in ("randint", "integers"):  # hyperopt 0.2.5 and the later ones
        state = hyper_tuning.np.random.RandomState(3)
        assert getattr(state, name)(0, 100, 20).tolist() == expected
    assert hyper_tuning.np.prod([2, 3]) == 6


@pytest.mark.skipif(
    importlib.util.find_spec("hyperopt") is None, reason="hyperopt (extra tune) is absent"
)
@pytest.mark.parametrize("algorithm", ["exhaustive", "random", "bayes"])
def test_b12_hyper_tuning_finds_the_best_of_a_grid(algorithm: str) -> None:
    from recbole.trainer import HyperTuning

    tried = []

    def objective(settings: dict, files: Any) -> dict:
        tried.append((settings["a"], settings["b"]))
        score = settings["a"] * 10 + settings["b"]
        result = {"best_valid_score": score, "valid_score_bigger": True}
        return {"model": "BPR", **result, "best_valid_result": {}, "test_result": {}}

    grid = {"choice": {"a": [1, 2], "b": [3, 4, 5]}}
    tuning = HyperTuning(objective, params_dict=grid, algo=algorithm, max_evals=40, early_stop=40)
    tuning.run()
    assert tuning.best_params == {"a": 2, "b": 5}
    if algorithm == "exhaustive":
        assert sorted(tried) == [(a, b) for a in (1, 2) for b in (3, 4, 5)]


def test_b14_thop_is_imported_without_distutils() -> None:
    out = run(
        "import recbole_ext, thop.profile, sys; print('distutils' in sys.modules)",
        without="distutils",
    )
    assert out == "False"


@pytest.mark.parametrize(
    ("small", "large"),
    [("0.4.1", "1.0.0"), ("1.9.0", "1.10.0"), ("1.1", "1.1.1"), ("1.0", "2.13.0+cpu")],
)
def test_b14_the_stand_in_compares_versions_by_number(small: str, large: str) -> None:
    low, high = absent.LooseVersion(small), absent.LooseVersion(large)
    assert low < high and high >= low and not high < low and not low >= high
