"""MIND's metrics and the calibration error, under RecBole's names of metrics: beside AUC, LogLoss.

They read scores and labels of rows, as RecBole's value metrics do (``eval_args.mode: labeled``),
and the impression of each row, which our collector keeps. They stand in RecBole's own registry.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from recbole.evaluator import register
from recbole.evaluator.base_metric import AbstractMetric
from recbole.utils import EvaluatorType

from recbole_ext.evaluation.impressions import per_impression
from recbole_ext.types import UserError

N_BINS = 15
"""Of ECE: bins of about as many rows each."""


class ImpressionMetric(AbstractMetric):
    """A mean over the impressions that have both a click and a candidate without one."""

    metric_type = EvaluatorType.VALUE
    metric_need: ClassVar[list[str]] = ["rec.score", "data.label", "data.impression"]
    column: ClassVar[str]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.topk = config["topk"]

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Return name -> mean over impressions."""
        mean = self._table(dataobject)[self.column].mean()
        return {type(self).__name__.lower(): round(float(mean), self.decimal_place)}

    def _table(self, dataobject: Any) -> pd.DataFrame:
        """Return the metrics of the impressions that count, reckoned once for all metrics."""
        if "impressions" not in dataobject:
            impression, scores, labels = (
                dataobject.get(key).numpy()
                for key in ("data.impression", "rec.score", "data.label")
            )
            table = per_impression(impression, scores, labels, self.topk)
            counted = table.dropna(subset=["auc"])
            if not len(counted):
                raise UserError(
                    f"none of {len(table)} impressions has both a click and a candidate without "
                    "one, and the metrics of impressions are of such; see LABEL_FIELD and "
                    "IMPRESSION_FIELD, or leave the metrics that begin with Imp out"
                )
            logging.getLogger().info(
                "metrics of %d impressions; %d of one class, all clicked or none, have none",
                len(counted),
                len(table) - len(counted),
            )
            dataobject.set("impressions", counted)
        return dataobject.get("impressions")


class ImpAUC(ImpressionMetric):
    """Share of pairs (clicked, not clicked) of an impression in the right order."""

    column = "auc"


class ImpMRR(ImpressionMetric):
    """MIND's MRR: the mean of 1/place over all clicks of an impression."""

    column = "mrr"


class ImpMRR1(ImpressionMetric):
    """1/place of an impression's first click."""

    column = "mrr1"


class ImpNDCG(ImpressionMetric):
    """nDCG of an impression at each of ``topk``."""

    metric_need: ClassVar[list[str]] = [*ImpressionMetric.metric_need, "topk"]

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Return ``impndcg@<k>`` -> mean over impressions."""
        means = self._table(dataobject).mean()
        return {f"impndcg@{k}": round(means[f"ndcg@{k}"], self.decimal_place) for k in self.topk}


class ECE(AbstractMetric):
    """Expected calibration error: how far the scores are from shares of clicks, on average.

    The bins hold about as many rows each (Nguyen and O'Connor, EMNLP 2015): where 4 % are clicked,
    bins of the same width would put nearly all rows into the first. Rows of the same score share a
    bin.
    """

    smaller = True
    metric_type = EvaluatorType.VALUE
    metric_need: ClassVar[list[str]] = ["rec.score", "data.label"]

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Return ``ece`` -> the mean over rows of |mean score - share of clicks| of their bin."""
        scores, labels = (
            dataobject.get(key).double().numpy() for key in ("rec.score", "data.label")
        )
        return {"ece": round(calibration_error(scores, labels), self.decimal_place)}


def calibration_error(scores: np.ndarray, labels: np.ndarray, n_bins: int = N_BINS) -> float:
    """Return the expected calibration error of probabilities [P] of labels [P]."""
    edges = np.quantile(scores, np.arange(1, n_bins) / n_bins, method="inverted_cdf")
    bins = np.searchsorted(np.unique(edges), scores, side="left")  # [P]
    return float(np.abs(np.bincount(bins, scores - labels)).sum() / len(scores))


METRICS = (ImpAUC, ImpMRR, ImpMRR1, ImpNDCG, ECE)


def add() -> None:
    """Put the metrics into RecBole's registry; once or several times."""
    for metric in METRICS:
        name = metric.__name__.lower()
        register.metrics_dict[name] = metric
        register.metric_information[name] = metric.metric_need
        register.metric_types[name] = metric.metric_type
        if metric.smaller and name not in register.smaller_metrics:
            register.smaller_metrics.append(name)
