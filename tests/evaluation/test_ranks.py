"""Ranks of positives: against numpy, in blocks, with ties, and against RecBole's own metrics."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_ext.evaluation import ranks
from recbole_ext.evaluation.ranks import RankRecorder, ranks_of
from recbole_ext.quick_start import run
from recbole_ext.types import UserError


def reference(scores: np.ndarray, row: int, item: int) -> int:
    """The place of an item after sorting; among equals, the middle of their places."""
    descending = np.sort(scores[row])[::-1]
    places = [place for place, score in enumerate(descending, 1) if score == scores[row, item]]
    return (places[0] + places[-1]) // 2


@pytest.mark.parametrize("cells", [1, 50, 1 << 25, 0], ids="by-row two-rows at-once sorted".split())
@pytest.mark.parametrize("ties", [False, True])
def test_ranks_are_those_of_sorting(
    ties: bool, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "_MAX_CELLS", cells)
    monkeypatch.setattr(ranks, "_SORT_FROM", 100 if cells else 0)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 25)).astype(np.float32)
    if ties:
        scores = scores.round(0)
    rows = rng.integers(0, 6, size=17)
    items = rng.integers(1, 25, size=17)
    found = ranks_of(torch.from_numpy(scores), torch.from_numpy(rows), torch.from_numpy(items))
    expected = [reference(scores, row, item) for row, item in zip(rows, items, strict=True)]
    assert found.tolist() == expected


def test_one_score_for_all_ranks_nothing_first() -> None:
    scores = torch.zeros(1, 100)
    assert ranks_of(scores, torch.tensor([0]), torch.tensor([7])).tolist() == [50]


def test_masked_items_take_no_place() -> None:
    scores = torch.tensor([[-torch.inf, 5.0, -torch.inf, 3.0, 4.0]])
    assert ranks_of(scores, torch.tensor([0]), torch.tensor([3])).tolist() == [3]


@pytest.mark.parametrize("label", [1, 51])
def test_scores_that_are_no_numbers_are_refused(label: int) -> None:
    """Be it the label's own or the others': nothing ranks above a NaN, so a label were first."""
    scores = torch.zeros(2, 52)
    scores[0, 1:51], scores[:, 0] = float("nan"), -torch.inf
    with pytest.raises(UserError, match="NaN.* 1 of 2 test rows.*lower learning_rate"):
        ranks_of(scores, torch.tensor([0, 1]), torch.tensor([label, label]))
    assert ranks_of(scores, torch.tensor([1]), torch.tensor([label])).tolist() == [26]


def test_the_file_has_tokens_and_every_positive(tmp_path: Path) -> None:
    tokens = {"user_id": np.array(["[PAD]", "anna", "ben"]), "item_id": np.array(["[PAD]", *"abc"])}
    dataset = SimpleNamespace(uid_field="user_id", iid_field="item_id", field2id_token=tokens)
    recorder = RankRecorder()
    assert len(recorder) == 0
    first = torch.tensor([[-torch.inf, 0.1, 0.3, 0.2]])
    recorder.add(first, torch.tensor([2]), torch.tensor([0, 0]), torch.tensor([1, 2]))
    second = torch.tensor([[-torch.inf, 9.0, 7.0, 7.0]])  # b and c share the places 2 and 3
    recorder.add(second, torch.tensor([1]), torch.tensor([0]), torch.tensor([3]))
    assert len(recorder) == 3
    recorder.write(tmp_path / "per_user.parquet", dataset)
    table = pd.read_parquet(tmp_path / "per_user.parquet")
    rows = [("ben", "a", 3, 0), ("ben", "b", 1, 0), ("anna", "c", 2, 1)]
    assert [tuple(row) for row in table.itertuples(index=False)] == rows
    assert [path.name for path in tmp_path.iterdir()] == ["per_user.parquet"]


@pytest.mark.parametrize(
    ("model", "mode", "more"),
    [
        ("SASRec", "full", {"hidden_size": 8, "inner_size": 8, "n_layers": 1}),
        ("SASRec", "uni7", {"hidden_size": 8, "inner_size": 8, "n_layers": 1}),
        ("BPR", "full", {"embedding_size": 8}),
        ("BPR", "uni7", {"embedding_size": 8}),
    ],
)
def test_recboles_metrics_follow_from_the_ranks(
    model: str, mode: str, more: dict[str, Any], tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**tiny_settings, **more, "epochs": 1, "output_dir": str(tmp_path / "run")}
    settings.update(
        metrics=["Hit", "Recall", "MRR"],
        topk=[3, 10],
        valid_metric="MRR@10",
        metric_decimal_place=9,
    )
    settings["eval_args"] = {"mode": mode}
    if model == "BPR":
        settings["eval_args"].update(split={"RS": [0.5, 0.2, 0.3]}, order="RO")
        settings.pop("train_neg_sample_args")
    run(model, "tiny", config_dict=settings)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["n_epochs"] == 1
    if model == "BPR":
        assert result["n_parameters"] == (31 + 41) * 8  # users and items, padding too
    test = result["test"]
    users = pd.read_parquet(tmp_path / "run" / "per_user.parquet").groupby("user_id")["rank"]
    assert users.ngroups == 30 and users.size().max() > (model == "BPR")
    for k in (3, 10):
        hit = users.agg(lambda r, k=k: float((r <= k).any())).mean()
        recall = users.agg(lambda r, k=k: (r <= k).mean()).mean()
        mrr = users.agg(lambda r, k=k: 1 / r.min() if r.min() <= k else 0.0).mean()
        expected = {f"hit@{k}": hit, f"recall@{k}": recall, f"mrr@{k}": mrr}
        assert {name: test[name] for name in expected} == pytest.approx(expected, abs=1e-8)
