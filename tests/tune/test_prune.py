"""The callback that reports to a study: what it says, when it stops, and what a resume knows."""

from __future__ import annotations

import torch

from recbole_ext.tune.prune import Prune
from recbole_ext.types import TrainState


class Behind:
    """A trial that is behind as soon as a value is below 0.5."""

    def __init__(self) -> None:
        self.reported: list[tuple[float, int]] = []

    def report(self, value: float, step: int) -> None:
        self.reported.append((value, step))

    def should_prune(self) -> bool:
        return self.reported[-1][0] < 0.5


def state_at(epoch: int, value: float) -> TrainState:
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    metrics = {"ndcg@10": value, "recall@10": 9.0}
    return TrainState(model, optimizer, 5, 1, epoch=epoch, metrics=metrics)


def test_every_validation_is_reported_and_the_one_that_is_behind_ends_the_training():
    trial = Behind()
    prune = Prune(trial, "ndcg@10")
    good, bad = state_at(0, 0.7), state_at(1, 0.25)
    prune.on_valid_end(good)
    assert (good.stop, prune.pruned) == (None, False)
    prune.on_valid_end(bad)
    assert prune.pruned and bad.stop == "pruned: ndcg@10 0.2500 after epoch 1"
    assert trial.reported == [(0.7, 0), (0.25, 1)]


def test_the_verdict_survives_a_kill_right_after_it():
    before, after = Prune(Behind(), "ndcg@10"), Prune(Behind(), "ndcg@10")
    before.on_valid_end(state_at(1, 0.1))
    after.load_state_dict(before.state_dict())
    assert after.pruned


def test_a_trial_that_has_ended_is_told_nothing():
    state = state_at(1, 0.1)
    Prune(None, "ndcg@10").on_valid_end(state)
    assert state.stop is None
