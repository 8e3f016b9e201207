"""Our collector against RecBole's: every ranking metric that RecBole has, on the same scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recbole.evaluator import Collector, Evaluator
from recbole.evaluator.register import metric_types, metrics_dict
from recbole.utils import EvaluatorType

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.modules.hits import hits_of
from recbole_ext.trainer.collector import FastCollector

METRICS = [
    metric.__name__
    for name, metric in metrics_dict.items()
    if metric_types[name] == EvaluatorType.RANKING
]


@pytest.fixture
def config(tiny_settings: dict[str, Any]) -> Config:
    settings = {k: v for k, v in tiny_settings.items() if k != "train_neg_sample_args"}
    settings.update(metrics=METRICS, topk=[1, 3, 10], valid_metric="MRR@10")
    return Config("BPR", "tiny", config_dict={**settings, "metric_decimal_place": 12})


def batches(positives: str, ties: bool, masked: bool, n_items: int) -> list[tuple[Any, ...]]:
    """Return (scores, row of each positive, its item) of batches of unlike sizes."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for n_rows in (7, 1, 12):
        scores = torch.randn(n_rows, n_items, generator=generator)
        scores = scores.round() if ties else scores
        scores[:, 0] = -torch.inf
        if positives == "one":
            rows = torch.arange(n_rows)
        elif positives == "one, in another order":
            rows = torch.arange(n_rows).flip(0)
        else:  # each row has one, and some more; with pairs that are given twice
            more = torch.randint(n_rows, (3 * n_rows,), generator=generator)
            rows = torch.cat([torch.arange(n_rows), more])
        items = torch.randint(1, n_items, (len(rows),), generator=generator)
        if positives == "several, some twice":
            rows, items = torch.cat([rows, rows[:5]]), torch.cat([items, items[:5]])
        if masked:  # as in sampled evaluation: most items are no candidates
            away = torch.rand(n_rows, n_items, generator=generator) < 0.6
            away[rows, items] = False
            scores[away] = -torch.inf
        found.append((scores, rows, items))
    return found


@pytest.mark.parametrize("masked", [False, True], ids=["full", "sampled"])
@pytest.mark.parametrize("ties", [False, True], ids=["", "ties"])
@pytest.mark.parametrize(
    "positives", ["one", "one, in another order", "several", "several, some twice"]
)
def test_metrics_are_those_of_recboles_collector(
    positives: str, ties: bool, masked: bool, config: Config
) -> None:
    assert len(METRICS) == 12 and {"NDCG", "GAUC", "TailPercentage"} <= set(METRICS)
    train, _, _ = create_loaders(config, create_dataset(config))
    results, structs = [], []
    for collector in (FastCollector(config), Collector(config)):
        collector.data_collect(train)
        for _ in range(2):  # an evaluation leaves nothing behind for the next one
            for scores, rows, items in batches(positives, ties, masked, train._dataset.item_num):
                collector.eval_batch_collect(scores, None, rows, items)
            structs.append(collector.get_data_struct())
            results.append(Evaluator(config).evaluate(structs[-1]))
    assert results[0] and all(result == pytest.approx(results[2], abs=1e-6) for result in results)
    assert torch.equal(structs[0].get("rec.topk"), structs[2].get("rec.topk"))
    assert torch.equal(structs[0].get("rec.items"), structs[2].get("rec.items"))
    assert structs[0].get("rec.topk").dtype == structs[2].get("rec.topk").dtype


def test_hits_are_the_positives_among_the_first_items() -> None:
    top = torch.tensor([[4, 1, 2], [3, 2, 1]])
    rows, items = torch.tensor([0, 0, 1, 0]), torch.tensor([1, 3, 3, 1])
    assert hits_of(top, rows, items, 5).tolist() == [[0, 1, 0, 2], [1, 0, 0, 1]]
