"""An evaluation gives RecBole's numbers, with less work: against its own ``Trainer.evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_ext.callbacks.base import CallbackList
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.scoring import GENERAL, SEQUENTIAL, scores_all
from recbole_ext.evaluation.ranks import RankRecorder
from recbole_ext.trainer.hooked_trainer import build_trainer

METRICS = """Hit MRR MAP Recall NDCG Precision GAUC ItemCoverage AveragePopularity GiniIndex
ShannonEntropy TailPercentage""".split()
PAIRS = {"distribution": "uniform", "sample_num": 1}
ITEM_FEATURES = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]},
    "selected_features": ["class"],
}
NEEDS: dict[str, dict[str, Any]] = {
    **{name: ITEM_FEATURES for name in ("SASRecF", "GRU4RecF", "FDSA")},
    **{name: {"train_neg_sample_args": PAIRS} for name in ("FPMC", "TransRec")},
    "FEARec": {"n_layers": 2},
    "NCL": {"num_clusters": 10},
}
"""What a model needs beside the tiny settings."""


def build(settings: dict[str, Any], model: str, folder: Path, mode: str, **more: Any) -> Any:
    """Return config, model and loaders."""
    base = {"train_neg_sample_args": None} if model in SEQUENTIAL else {}
    chosen = {k: v for k, v in settings.items() if k != "train_neg_sample_args"}
    eval_args = {"mode": mode, "order": "TO", "split": {"LS": "valid_and_test"}}
    chosen.update(metrics=METRICS, topk=[1, 3, 10], valid_metric="MRR@10")
    chosen.update({"metric_decimal_place": 9, "eval_args": eval_args, **base})
    chosen.update({**NEEDS.get(model, {}), **more})
    config = Config(model, "tiny", config_dict=chosen)
    loaders = create_loaders(config, create_dataset(config))
    init_seed(1, True)
    net = config.model_class(config, loaders[0]._dataset)
    with torch.no_grad():  # RecBole's initial scores lie close together
        for parameter in net.parameters():
            parameter.mul_(3.0)
    return config, net.eval(), loaders


@pytest.mark.parametrize("mode", ["full", "uni100", "pop5"])
@pytest.mark.parametrize("several", [False, True], ids=["one positive", "several"])
@pytest.mark.parametrize("model", ["SASRec", "BPR", "LightGCN", "CORE", "NeuMF"])
def test_metrics_are_those_of_recboles_evaluation(
    model: str,
    several: bool,
    mode: str,
    tiny_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if (model, mode) == ("CORE", "uni100"):
        mode = "uni20"  # every history is encoded for every candidate
    monkeypatch.chdir(tmp_path)  # RecBole's trainer writes TensorBoard files where it stands
    order = "TO" if model in ("SASRec", "CORE") else "RO"
    ratio = {"eval_args": {"mode": mode, "order": order, "split": {"RS": [0.6, 0.2, 0.2]}}}
    more: dict[str, Any] = ratio if several else {}
    more.update({"train_neg_sample_args": None} if model == "CORE" else {})
    config, net, (train, _, test) = build(tiny_settings, model, tmp_path, mode, **more)
    theirs = Trainer(config, net)
    theirs.eval_collector.data_collect(train)
    expected = theirs.evaluate(test, load_best_model=False)

    few = {**more, "eval_memory_mib": 7 * 4 * 41 / 2**20}  # 7 users at a time
    for memory in (more, few):
        config, net, (train, _, test) = build(tiny_settings, model, tmp_path, mode, **memory)
        ours = build_trainer(config, net, tmp_path, CallbackList(), {})
        ours.eval_collector.data_collect(train)
        for _ in range(2):  # the negatives are the same
            found = ours.evaluate(test, load_best_model=False)
            assert found == pytest.approx(dict(expected), abs=1e-6)
        if not isinstance(test, FullSortEvalDataLoader):
            assert test.can_be_compact == (model not in ("CORE", "NeuMF")) and not test.compact


def test_ranks_of_a_sampled_evaluation_are_those_of_predict(
    tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """With several rows of a user, each a history of its own."""
    eval_args = {"mode": "uni5", "order": "TO", "split": {"RS": [0.6, 0.2, 0.2]}}
    config, net, (_, _, test) = build(
        tiny_settings, "SASRec", tmp_path, "uni5", eval_args=eval_args
    )
    found = []
    for compact in (True, False):
        trainer = build_trainer(config, net, tmp_path, CallbackList(), {})
        trainer.tot_item_num, trainer.ranks = test._dataset.item_num, RankRecorder()
        test.compact = compact
        with torch.no_grad():
            for batch in test:
                trainer._neg_sample_batch_eval(batch)
        found.append([torch.cat(part) for part in zip(*trainer.ranks._parts, strict=True)])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
    assert len(found[0][0]) > len(found[0][0].unique())


@pytest.mark.parametrize("model", sorted(SEQUENTIAL | GENERAL))
@torch.no_grad()
def test_a_model_of_the_list_scores_all_items_as_it_scores_pairs(
    model: str, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    if model == "NCL":
        pytest.importorskip("faiss")
    config, net, loaders = build(tiny_settings, model, tmp_path, "full")
    assert scores_all(config)
    batch = next(iter(loaders[2]))[0]
    scores = net.full_sort_predict(batch).view(len(batch), -1).clone()  # [B, N]
    assert scores.shape[1] == net.n_items
    alone = torch.zeros_like(scores)
    for item in range(1, net.n_items):
        batch[net.ITEM_ID] = torch.full((len(batch),), item)
        alone[:, item] = net.predict(batch).view(-1)  # [B]
    rounding = 3e-6 * float(scores[:, 1:].abs().max())
    torch.testing.assert_close(alone[:, 1:], scores[:, 1:], rtol=0, atol=rounding)
