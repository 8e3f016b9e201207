"""A model of clicks within impressions, whose histories stand in the users' file."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diagnose.conftest import STEPS, checks_of, starting, subject_of
from models.news_contract import SMALL
from recbole.data.interaction import Interaction

from recbole_ext.diagnose import interactions, learning
from recbole_ext.diagnose.check import OK
from recbole_ext.quick_start import run


@pytest.fixture(scope="module")
def news(news_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("news") / "run"
    data, vectors = news_data("text")
    more = {"use_gpu": False, "show_progress": False, "state": "ERROR", "epochs": 15}
    settings = {**SMALL, **more, "data_path": data, "text_feature": vectors}
    metrics = {"metrics": ["ImpAUC"], "valid_metric": "ImpAUC", "output_dir": str(folder)}
    run("NRMSDocVec", "tiny", config_dict={**settings, **metrics})
    return subject_of(folder)


def test_who_has_no_history_is_told_by_the_users_file(news):
    """Users 0 and 1 of 24 have none, and two of 30 impressions each, one without a click."""
    found = checks_of(interactions, news)
    assert starting(found, "share of test rows without a history").value == pytest.approx(
        (2 * 4 + 2 * 6) / (28 * 6 + 2 * 4)
    )


def test_a_click_that_is_any_of_what_was_shown_teaches_nothing(news):
    assert STEPS == news.steps
    found = checks_of(learning, news)
    shuffled = next(check for name, check in found.items() if "trained on shuffled labels" in name)
    assert shuffled.severity == OK


def test_the_click_becomes_any_one_of_those_shown():
    subject = SimpleNamespace(config={"NEG_PREFIX": "neg_"}, iid="item_id", label="label")
    item, others = torch.arange(400), torch.arange(400, 1600).view(400, 3)
    batch = Interaction({"item_id": item, "neg_item_id": others, "label": torch.ones(400)})
    found = learning.with_wrong_targets(subject, batch, torch.Generator().manual_seed(0))
    before = torch.cat([item[:, None], others], 1).sort(1).values
    after = torch.cat([found["item_id"][:, None], found["neg_item_id"]], 1).sort(1).values
    assert torch.equal(before, after)
    assert (found["item_id"] == item).float().mean().item() == pytest.approx(1 / 4, abs=0.06)
    assert torch.equal(batch["item_id"], item)
