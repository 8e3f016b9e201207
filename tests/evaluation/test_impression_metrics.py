"""MIND's metrics in RecBole's evaluation, beside its own, and the calibration error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.evaluation.impression_metrics import calibration_error
from recbole_ext.quick_start import load_run, run
from recbole_ext.types import UserError
from tests.models.news_help import SETTINGS, write_news

METRICS = ["ImpAUC", "ImpMRR", "ImpMRR1", "ImpNDCG", "ECE", "AUC", "LogLoss"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("news")
    write_news(folder, "tiny")
    return {
        **SETTINGS,
        "data_path": str(folder),
        "LABEL_FIELD": "label",
        "eval_args": {"mode": "labeled"},
        "train_neg_sample_args": None,
        "metrics": METRICS,
        "topk": [2, 5],
        "valid_metric": "ImpAUC",
        "metric_decimal_place": 12,
        "epochs": 1,
        "use_gpu": False,
        "show_progress": False,
    }


def test_a_context_model_is_measured_by_impression(settings, tmp_path):
    """Each metric against the definition, from scores of all rows of the test."""
    folder = tmp_path / "run"
    found = run("FM", "tiny", config_dict={**settings, "output_dir": str(folder)})["test"]
    again = load_run(folder)
    rows = again.dataset.inter_feat
    n_test = 30 * 6 - 2 * 2
    assert len(rows) == 150 * 6 + n_test and len(again.test_data._dataset) == n_test
    scores, labels, impressions = [], [], []
    for batch, *_ in again.test_data:
        scores += again.model.predict(batch).tolist()
        labels += batch["label"].tolist()
        impressions += batch["impression_id"].tolist()
    assert len(scores) == n_test
    table = pd.DataFrame({"s": scores, "y": labels, "i": impressions})
    auc, mrr1, ndcg = [], [], []
    for _, one in table.groupby("i"):
        ordered = one.sort_values("s", ascending=False)["y"].to_numpy()
        places = np.flatnonzero(ordered) + 1
        if not len(places):
            continue
        others = np.flatnonzero(ordered == 0) + 1
        auc.append((places[:, None] < others).mean())
        mrr1.append(1 / places[0])
        gain = 1 / np.log2(places + 1)
        ndcg.append(gain[places <= 2].sum() / (1 + 1 / np.log2(3)))
    assert len(auc) == 28
    assert found["impauc"] == pytest.approx(np.mean(auc), abs=1e-9)
    assert found["impmrr1"] == pytest.approx(np.mean(mrr1), abs=1e-9)
    assert found["impndcg@2"] == pytest.approx(np.mean(ndcg), abs=1e-9)
    assert {*found} == {
        *("impauc", "impmrr", "impmrr1", "impndcg@2", "impndcg@5", "ece", "auc", "logloss")
    }
    assert {"impauc", "impndcg@5"} <= {*json.loads((folder / "result.json").read_text())["test"]}
    assert "metrics of 28 impressions; 2 of one class" in (folder / "train.log").read_text()


def test_no_model_learns_from_the_name_of_an_impression(settings):
    config = Config("FM", "tiny", config_dict=settings)
    train = create_loaders(config, create_dataset(config))[0]
    model = config.model_class(config, train.dataset)
    n_tokens = sum(train.dataset.num(field) for field in ("hist_id", "item_id", "category"))
    assert model.token_embedding_table.embedding.num_embeddings == n_tokens
    assert "impression_id" in next(iter(train))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"IMPRESSION_FIELD": "session"}, r"loaded without 'session' \(IMPRESSION_FIELD\)"),
        ({"eval_args": {"mode": "uni5"}}, "uni5 samples what an impression did not show"),
        ({"metrics": ["ImpAuk"]}, "there is no metric 'ImpAuk'; did you mean 'impauc'"),
        ({"valid_metric": "ImpNDCG"}, "valid_metric 'ImpNDCG' is not computed.*ImpNDCG@2"),
    ],
)
def test_what_cannot_be_measured_is_said_before_training(settings, changed, sentence):
    with pytest.raises(UserError, match=sentence):
        create_dataset(Config("FM", "tiny", config_dict={**settings, **changed}))


def test_a_smaller_calibration_error_is_better(settings):
    config = Config("FM", "tiny", config_dict={**settings, "valid_metric": "ECE"})
    assert config["valid_metric_bigger"] is False


def test_the_calibration_error_of_bins_by_hand():
    """Two bins of three rows: shares 1/3 and 2/3 of clicks, mean scores .2 and .8."""
    scores = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    labels = np.array([0, 1, 0, 1, 1, 0.0])
    wanted = (abs(0.2 - 1 / 3) + abs(0.8 - 2 / 3)) / 2
    assert calibration_error(scores, labels, 2) == pytest.approx(wanted, abs=1e-12)
    mixed = [3, 0, 5, 1, 4, 2]
    assert calibration_error(scores[mixed], labels[mixed], 2) == pytest.approx(wanted, abs=1e-12)


def test_a_constant_that_is_the_share_of_clicks_is_calibrated():
    labels = np.repeat([1.0, 0.0], [4, 96])  # in an order from which bins of rows would suffer
    assert calibration_error(np.full(100, 0.04), labels) == pytest.approx(0, abs=1e-12)
    assert calibration_error(np.full(100, 0.24), labels) == pytest.approx(0.2, abs=1e-12)
