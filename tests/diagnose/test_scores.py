"""Groups 1, 2, 7 and 9: what is wrong with scores is seen, by planting it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diagnose.conftest import checks_of, rescored, starting
from models.feature_help import item_feature

from recbole_ext.diagnose import baselines, calibration, coverage, geometry, predictions
from recbole_ext.diagnose.check import FAIL, OK, WARN
from recbole_ext.diagnose.evaluation import compared_by
from recbole_ext.diagnose.scorers import ByContent, click_rates


def mirrored(scores, interaction):
    return -scores


# ---- baselines


def test_a_model_worse_than_chance_fails(ranking):
    found = checks_of(baselines, rescored(ranking, mirrored))
    assert starting(found, "gain over random").severity == FAIL


def test_clicks_by_chance_fail_and_the_model_does_not(clicks):
    for name in ("constant", "random"):
        assert starting(checks_of(baselines, clicks), f"gain over {name}").severity == OK
    noise = torch.Generator().manual_seed(1)
    rescored(clicks, lambda scores, _: torch.rand(scores.shape, generator=noise))
    vars(clicks).pop("own")
    found = checks_of(baselines, clicks)
    assert starting(found, "gain over constant").severity == FAIL
    assert "learned nothing" in starting(found, "gain over random").advice
    assert starting(found, "gain over popularity").severity == FAIL


def test_popularity_is_evaluated_as_the_model_is(ranking):
    """By hand: each target's place among counts, places of one count shared."""
    counts = np.bincount(ranking.column("train", "item_id"), minlength=ranking.dataset.item_num)
    gains = []
    for item in ranking.column("test", "item_id"):
        others = np.delete(counts[1:], item - 1)
        rank = 1 + (others > counts[item]).sum() + (others == counts[item]).sum() // 2
        gains.append(1 / math.log2(rank + 1) if rank <= 10 else 0)
    name = f"gain over popularity ({np.mean(gains):.4f})"
    found = checks_of(baselines, ranking)[name]
    assert found.value == pytest.approx(ranking.own.value - np.mean(gains), abs=1e-6)


def test_a_category_match_is_found_in_the_item_file(ranking):
    found = starting(checks_of(baselines, ranking), "gain over category match")
    assert "by class" in found.name
    field, classes = baselines.categories(ranking)
    token = str(ranking.dataset.field2id_token["item_id"][7])
    assert classes[7] == [f"genre{int(token[1:]) % 4}"] and classes[0] == []


def test_content_scores_are_cosines_with_the_mean_of_what_was_taken():
    vectors = torch.tensor([[0.0, 0], [2, 0], [0, 3], [1, 1]])
    taken = torch.tensor([1, 1]), torch.tensor([1, 2])
    scorer = ByContent("u", "i", vectors, taken, 2)
    batch = {"u": torch.tensor([1, 1]), "i": torch.tensor([1, 3])}
    torch.testing.assert_close(scorer.predict(batch), torch.tensor([0.5**0.5, 1.0]))
    torch.testing.assert_close(scorer.full_sort_predict(batch)[:, 3], torch.ones(2))


def test_click_rates_of_few_rows_are_near_the_mean():
    items, labels = torch.tensor([1] * 100 + [2]), torch.tensor([1.0] * 50 + [0] * 50 + [1])
    rates = click_rates(items, labels, 4)
    mean = 51 / 101
    assert rates.tolist() == pytest.approx(
        [mean, (50 + 20 * mean) / 120, (1 + 20 * mean) / 21, mean], abs=1e-6
    )


def test_impressions_are_the_units_where_there_are_some():
    scores, labels = np.array([2.0, 1, 1, 2, 3, 1]), np.array([1.0, 0, 1, 0, 0, 0])
    name, value, gains = compared_by(scores, labels, np.array([1, 1, 2, 2, 3, 3]))
    assert name == "AUC by impression" and value == 0.5
    assert gains[:2].tolist() == [1, 0] and np.isnan(gains[2])
    assert compared_by(scores, labels + 1.5, None)[0] == "-squared error"


# ---- predictions


def test_scores_that_are_no_numbers_fail_and_nothing_else_is_asked(ranking):
    found = checks_of(predictions, rescored(ranking, lambda scores, _: scores * float("nan")))
    assert starting(found, "share of scores that are no numbers").severity == FAIL
    assert len(found) == 1
    (one,) = checks_of(baselines, ranking).values()
    assert one.severity == "SKIP" and "NaN" in one.advice


def test_one_score_for_all_fails(ranking, clicks):
    found = checks_of(predictions, rescored(ranking, lambda scores, _: 0 * scores.clamp(-1, 1)))
    assert starting(found, "share of users for whom all items score alike").value == 1
    assert starting(found, "share of users for whom all items score alike").severity == FAIL
    assert starting(found, "share of positives that tie").severity == FAIL
    found = checks_of(predictions, rescored(clicks, lambda scores, _: 0 * scores + 0.1))
    assert starting(found, "standard deviation over rows").severity == FAIL
    assert starting(found, "share of rows predicted as clicks").severity == WARN


def test_one_list_for_all_fails(ranking):
    assert starting(checks_of(predictions, ranking), "share of different top 10").severity == OK
    rescored(ranking, lambda scores, _: torch.arange(scores.shape[1]).repeat(len(scores), 1) * 1.0)
    vars(ranking).pop("probed"), vars(ranking).pop("own")
    found = checks_of(predictions, ranking)
    assert starting(found, "share of different top 10 lists").severity == FAIL
    assert starting(found, "largest difference from result.json").severity == FAIL


# ---- geometry


def bare_cosine(scores, interaction):
    """A sigmoid of what lies between 0 and 1: never below .5."""
    return torch.sigmoid(scores)


def test_a_range_that_cannot_reach_the_prior_fails(clicks):
    assert starting(checks_of(geometry, clicks), "range of the log-odds").severity == OK
    vars(clicks).pop("own")
    found = checks_of(geometry, rescored(clicks, bare_cosine))
    one = starting(found, "range of the log-odds")
    assert one.severity == FAIL and "logit(prior)" in one.advice
    assert starting(found, "mean of the log-odds").severity in (WARN, FAIL)


def test_saturated_probabilities_fail(clicks):
    found = checks_of(geometry, rescored(clicks, lambda scores, _: (scores > 0.2).float()))
    assert starting(found, "share of log-odds beyond").severity == FAIL


def test_a_softmax_of_one_item_is_told(ranking):
    found = checks_of(geometry, ranking)
    assert starting(found, "share of users whose softmax").severity == OK
    assert starting(found, "mean score of positives above").severity == OK
    assert starting(found, "mean cosine with the positive").value > 0
    vars(ranking).pop("probed")
    found = checks_of(geometry, rescored(ranking, lambda scores, _: 1000 * scores))
    assert starting(found, "share of users whose softmax").severity == WARN
    assert starting(found, "cosines of positives").severity == "SKIP"


# ---- calibration


def test_the_calibration_error_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    scores = rng.random(1000)
    labels = (rng.random(1000) < scores**2).astype(float)
    order = np.argsort(scores)
    wanted = 0.0
    for begin in range(0, 1000, 100):
        part = order[begin : begin + 100]
        wanted += abs(scores[part].mean() - labels[part].mean()) * 100 / 1000
    assert calibration.calibration_error(scores, labels, 10) == pytest.approx(wanted, abs=1e-12)


def test_probabilities_that_are_too_high_fail(clicks):
    found = checks_of(calibration, clicks)
    assert {one.severity for one in found.values()} <= {OK, WARN}
    vars(clicks).pop("own")
    found = checks_of(calibration, rescored(clicks, lambda scores, _: 0.5 + scores / 2))
    assert {one.severity for one in found.values()} == {FAIL}
    vars(clicks).pop("own")
    (one,) = checks_of(calibration, rescored(clicks, lambda scores, _: scores + 5)).values()
    assert one.severity == "SKIP" and "not between 0 and 1" in one.advice


def test_drawn_negatives_have_no_prior_to_meet(clicks, monkeypatch):
    monkeypatch.setattr(type(clicks), "are_sampled", True)
    (one,) = checks_of(calibration, clicks).values()
    assert one.severity == "SKIP" and "are drawn" in one.advice
    assert not [name for name in checks_of(geometry, clicks) if "log-odds" in name]


def test_ratings_are_compared_by_their_error_alone(clicks):
    ratings = clicks.own.labels + 1.5
    found = compared_by(clicks.own.scores, ratings, None)
    own = vars(clicks.own) | dict(zip(("name", "value", "gains"), found, strict=True))
    clicks.own = type(clicks.own)(**{**own, "labels": ratings})
    assert found[1] == pytest.approx(-np.mean((clicks.own.scores - ratings) ** 2))
    found = checks_of(baselines, clicks)
    assert starting(found, "gain over random and content").severity == "SKIP"
    assert starting(checks_of(calibration, clicks), "all").severity == "SKIP"


def test_vectors_of_three_items_in_a_hundred_under_a_sigmoid_of_ten_cosines(clicks, tmp_path):
    """A news recommender that failed so: each cause is named, with what to do about it."""
    clicks.config.resolved["text_feature"] = item_feature(tmp_path, "title", missing=range(3, 40))
    drawn = torch.randn(61, 101, generator=torch.Generator().manual_seed(0))
    cosine = torch.nn.functional.normalize(drawn.relu(), dim=1)  # [U, N]

    def ten_cosines(scores, rows):
        return torch.sigmoid(10 * cosine[rows["user_id"], rows["item_id"]])

    rescored(clicks, ten_cosines)
    found = starting(checks_of(coverage, clicks), "title: share of items")
    assert found.severity == FAIL and found.value == 0.03 and "Encode the missing" in found.advice
    found = starting(checks_of(geometry, clicks), "range of the log-odds")
    assert found.severity == FAIL and "no activation before the cosine" in found.advice
    found = checks_of(calibration, clicks)
    assert starting(found, "mean prediction").severity == FAIL
    assert starting(found, "log loss saved").severity == FAIL
    found = checks_of(baselines, clicks)
    assert starting(found, "gain over popularity").severity == FAIL
    assert starting(found, "gain over cosine of title").value is not None
