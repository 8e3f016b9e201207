"""How FTRagRec's scores are mixed is chosen on validation."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from recbole_ext.models import ftragrec_calibration
from recbole_ext.modules import calibration
from recbole_ext.modules.mixing import MixSettings
from recbole_ext.types import UserError
from tests.models.ftragrec_help import FIXED, MIXES, first_batch, train
from tests.modules.test_calibration import by_the_rule


def ranks_by_scores(net: Any, valid_data: Any) -> np.ndarray:
    """Return the rank of each validation row's label by full scoring, ties in the middle."""
    rows = valid_data._dataset.inter_feat
    scores = net.full_sort_predict(rows)
    own = scores.gather(1, rows[net.POS_ITEM_ID][:, None])
    return (1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) // 2).numpy()


@pytest.mark.parametrize("mix", MIXES)
def test_calibration_takes_the_best_of_the_grid(make, mix):
    grid = {
        "calibrate_alpha": [0, 0.3, 0.8],
        "calibrate_top_k": [2, 20],
        "calibrate_temperature": [0.05, 1.0],
        "calibrate_smoothing": [0.01, 0.3],
    }
    net, loaders = make(mix=mix, top_k=20, calibrate_users=10_000, **grid)
    train(net, loaders[0])
    learned = float(net.retrieval.retriever.temperature)
    alphas = [net.retrieval.train_alpha] if mix == "gate" else grid["calibrate_alpha"]
    floors = grid["calibrate_smoothing"] if mix == "log_linear" else [0.01]
    choices, ranks = calibration.grid(alphas, [2, 20], [0.05, 1.0, learned], floors), []
    for choice in choices:
        net.retrieval.use(choice)
        ranks.append(ranks_by_scores(net, loaders[1]))
    net.retrieval.use(MixSettings(0.5, 7, 0.2, 0.1))  # what stands there before must not matter
    net.train()
    chosen = net.calibrate(loaders[1])
    assert net.training
    best = by_the_rule(np.stack(ranks), mix != "gate")
    gain = [np.where(r <= 10, 1 / np.log2(r + 1), 0).mean() for r in ranks]
    assert chosen["ndcg@10"] == pytest.approx(gain[best], abs=1e-6)
    assert chosen["recall@20"] == pytest.approx((ranks[best] <= 20).mean(), abs=1e-6)
    assert (ranks_by_scores(net.eval(), loaders[1]) == ranks[best]).all()
    assert max(gain) > min(gain)
    if mix != "gate":
        assert chosen["ndcg@10_alone"] == pytest.approx(gain[0], abs=1e-6)
        assert chosen["recall@20_alone"] == pytest.approx((ranks[0] <= 20).mean(), abs=1e-6)


def test_calibration_finds_the_planted_optimum(make):
    """One neighbour per query tells the label, the others all point elsewhere: k must be 1."""
    grid = {
        "calibrate_alpha": [0, 0.5],
        "calibrate_top_k": [1, 2, 10],
        "calibrate_temperature": [1.0],
    }
    net, loaders = make(mix="probability", top_k=10, **grid)
    rows = loaders[1]._dataset.inter_feat
    memory = net.keeper.scoring()
    targets = memory.targets
    label_of_user = dict(
        zip(rows[net.USER_ID].tolist(), rows[net.POS_ITEM_ID].tolist(), strict=True)
    )

    def planted(states, k, users, row_id=None):
        near = []
        for user in users.tolist():
            right = (targets == label_of_user[user]).nonzero().flatten()[:1].tolist()
            wrong = (targets != label_of_user[user]).nonzero().flatten()[: k - 1].tolist()
            near.append(right + wrong + [-1] * (k - len(right) - len(wrong)))
        near = torch.tensor(near)
        return torch.linspace(0.9, 0.8, k).expand(len(near), k), near

    memory.search = planted
    chosen = net.calibrate(loaders[1])
    assert (chosen["alpha"], chosen["top_k"]) == (0.5, 1)


def test_calibrated_settings_are_in_the_state_dict(make):
    grid = {"calibrate_top_k": [3], "calibrate_temperature": [0.123], "calibrate_smoothing": [0.2]}
    net, loaders = make(calibrate_alpha=[0.77], **grid)
    net.calibrate(loaders[1])
    other, _ = make(seed=5)
    other.load_state_dict(net.state_dict())
    assert other.retrieval.settings() == net.retrieval.settings()
    assert other.retrieval.settings()["top_k"] == 3
    assert other.retrieval.settings()["alpha"] == pytest.approx(0.77)
    assert other.retrieval.settings()["smoothing"] == pytest.approx(0.2)


def test_calibration_leaves_out_the_items_that_the_evaluation_does(make, monkeypatch):
    """The whole history, of which the model's own input is only the end."""
    net, loaders = make(mask_history=True, MAX_ITEM_LIST_LENGTH=3, top_k=5)
    batches = []
    monkeypatch.setattr(
        calibration,
        "mixture_ranks",
        lambda batch, choices, mix: (
            batches.append(batch) or torch.ones(len(choices), len(batch.labels))
        ),
    )
    net.calibrate(loaders[1])
    hidden = [set(row.tolist()) - {0} for batch in batches for row in batch.hidden]
    wanted = []
    for interaction, (rows, items), _, _ in loaders[1]:
        wanted += [set(items[rows == row].tolist()) for row in range(len(interaction))]
    assert hidden == wanted and max(map(len, wanted)) > 3


def test_calibration_can_be_off(make):
    net, loaders = make(**FIXED)
    before = net.retrieval.settings()
    assert net.calibrate(loaders[1]) == before == net.retrieval.settings()


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("alphas", [[0], [0.6]])
def test_calibration_leaves_training_alone(make, mix, alphas):
    """Temperature and number of neighbours that rank well are not those to learn with."""
    grid = {"calibrate_alpha": alphas, "calibrate_top_k": [2], "calibrate_temperature": [0.1]}
    net, loaders = make(mix=mix, top_k=20, retriever_temperature=0.17, **grid)
    batch = first_batch(loaders[0])
    before, wanted = copy.deepcopy(net.retrieval.retriever.state_dict()), net.losses(batch)
    chosen = net.calibrate(loaders[1])
    assert chosen["top_k"] == 2 or alphas == [0]
    after = net.retrieval.retriever.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert net.losses(batch) == wanted


def spied_rows(net: Any, monkeypatch: Any) -> list[list[int]]:
    """Return the users of each batch that calibration ranks, filled when it runs."""
    parts: list[list[int]] = []
    ranks = ftragrec_calibration._ranks
    monkeypatch.setattr(
        ftragrec_calibration,
        "_ranks",
        lambda model, batch, *more: (
            parts.append(batch[net.USER_ID].tolist()) or ranks(model, batch, *more)
        ),
    )
    return parts


@pytest.mark.parametrize(
    ("mix", "n_given", "n_wanted"),
    [("log_linear", 7, 7), ("vector", 7, 7), ("gate", 1, 1), ("probability", 99, 30)],
)
def test_calibration_looks_at_evenly_spaced_rows(make, monkeypatch, mix, n_given, n_wanted):
    net, loaders = make(mix=mix, top_k=5, calibrate_users=n_given)
    parts = spied_rows(net, monkeypatch)
    net.calibrate(loaders[1])
    users = loaders[1]._dataset.inter_feat[net.USER_ID].numpy()
    wanted = users[np.linspace(0, len(users) - 1, n_wanted).astype(int)]
    assert [user for part in parts for user in part] == wanted.tolist()


def test_calibration_takes_a_tenth_where_every_choice_scores_all_items(make, monkeypatch):
    net, loaders = make(mix="vector", top_k=5, calibrate_users=300)
    monkeypatch.setattr(ftragrec_calibration, "FEWEST_ROWS", 10)
    parts = spied_rows(net, monkeypatch)
    net.calibrate(loaders[1])
    assert sum(map(len, parts)) == 30
    net.calibrate_users, parts[:] = 150, []
    net.calibrate(loaders[1])
    assert sum(map(len, parts)) == 15


def test_calibration_holds_few_scores_at_a_time(make, monkeypatch):
    net, loaders = make(top_k=5)
    wanted = net.calibrate(loaders[1])
    monkeypatch.setattr(ftragrec_calibration, "CELLS", 4 * net.n_items)
    parts = spied_rows(net, monkeypatch)
    again = net.calibrate(loaders[1])
    assert max(map(len, parts)) == 4
    assert again["ndcg@10_alone"] == pytest.approx(wanted["ndcg@10_alone"])


@pytest.mark.parametrize("part", ["logits", "retriever"])
def test_calibration_refuses_scores_that_are_no_numbers(make, monkeypatch, part):
    net, loaders = make(top_k=5)
    if part == "logits":
        logits = ftragrec_calibration.item_logits
        monkeypatch.setattr(
            ftragrec_calibration, "item_logits", lambda *given: logits(*given) * np.nan
        )
    else:
        with torch.no_grad():
            next(net.retrieval.retriever.blocks.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="NaN.*lower learning_rate"):
        net.calibrate(loaders[1])


def test_the_result_says_calibrated_only_when_it_was(make):
    net, loaders = make(top_k=5)
    assert net.result_extra()["retrieval"]["is_calibrated"] is False
    net.calibrate(loaders[1])
    other, _ = make(top_k=5)
    for model in (net, other):
        model.load_other_parameter(net.other_parameter())  # as a resume does
        assert model.result_extra()["retrieval"]["is_calibrated"] is True
    off, _ = make(top_k=5, **FIXED)
    off.calibrate(loaders[1])
    assert off.result_extra()["retrieval"]["is_calibrated"] is False


def test_training_goes_on_where_calibration_chose_not_to_mix(make):
    net, loaders = make(calibrate_alpha=[0], top_k=20)
    assert net.calibrate(loaders[1])["alpha"] == 0
    assert not net.retrieval.is_active()
    net.losses(first_batch(loaders[0]))["enhanced"].backward()
    assert (net.retrieval.retriever.blocks[0].dense_2.weight.grad != 0).any()
