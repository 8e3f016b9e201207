from __future__ import annotations

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, assert_same, fit, new_toy, weights
from torch import nn

from recbole_ext.callbacks.faiss_refresh import FaissRefresh
from recbole_ext.types import TrainState, UserError


class TestContract(CallbackContract):
    name, arguments = "FaissRefresh", {"every": 2, "before_valid": True}


class TestContractEachEpoch(CallbackContract):
    name, arguments = "FaissRefresh", {"every": 1, "before_valid": False}


def test_a_memory_is_refreshed_at_the_epochs_that_are_due() -> None:
    counts = Record(lambda state: state.model.n_refreshed, "on_batch_start")
    fit([FaissRefresh(every=2, before_valid=False), counts], epochs=5)
    assert counts.seen[::4] == [1, 1, 2, 2, 3]  # epochs 0, 2, 4; four batches each


@pytest.mark.parametrize(
    ("interval", "wanted"), [(1, [1, 2, 3, 4, 5]), (10, [1] * 5), (None, [1, 2, 3, 4, 5])]
)
def test_without_every_the_model_says_how_often(interval: int | None, wanted: list[int]) -> None:
    model = new_toy()
    if interval is not None:
        model.refresh_interval = interval
    counts = Record(lambda state: state.model.n_refreshed, "on_batch_start")
    fit([FaissRefresh(before_valid=False), counts], model=model, epochs=5)
    assert counts.seen[::4] == wanted


def test_every_is_stronger_than_the_models_interval() -> None:
    model = new_toy()
    model.refresh_interval = 10
    assert fit([FaissRefresh(every=1, before_valid=False)], model=model).model.n_refreshed == 4


def test_validation_sees_the_memory_of_the_weights_as_they_are() -> None:
    def is_fresh(state: TrainState) -> bool:
        return torch.equal(state.model.memory, state.model.encoder[0].weight.sum(dim=1))

    refreshed, stale = Record(is_fresh, "on_valid_start"), Record(is_fresh, "on_valid_start")
    fit([FaissRefresh(every=1, before_valid=True), refreshed])
    fit([FaissRefresh(every=1, before_valid=False), stale])
    assert refreshed.seen == [True] * 4
    assert stale.seen == [False] * 4


def test_a_memory_that_is_fresh_is_not_made_again() -> None:
    # At the start, and before each of 4 validations; the epochs between begin with that memory.
    assert fit([FaissRefresh(every=1, before_valid=True)]).model.n_refreshed == 1 + 4


def test_a_memory_of_the_saved_weights_is_there_after_a_resume() -> None:
    """Also where the next epoch is not due: an index is not in the checkpoint."""
    saved: list[bytes] = []
    whole = fit([FaissRefresh(every=3)], after_epoch=lambda state, data: saved.append(data))
    resumed = fit([FaissRefresh(every=3)], resume=saved[0])  # goes on with epoch 1
    assert_same(weights(resumed.model), weights(whole.model))


def test_an_older_memory_is_left_to_the_model() -> None:
    """Its weights are gone; a refresh here would not be what the whole run had."""
    saved: list[bytes] = []
    make = lambda: FaissRefresh(every=3, before_valid=False)  # noqa: E731
    fit([make()], after_epoch=lambda state, data: saved.append(data))
    counts = Record(lambda state: state.model.n_refreshed, "on_batch_start")
    fit([make(), counts], resume=saved[0], epochs=2)
    assert counts.seen == [0] * 4


def test_a_model_without_memory_is_named() -> None:
    class Plain(nn.Linear):
        pass

    with pytest.raises(UserError, match="FaissRefresh: Plain has no memory"):
        fit([FaissRefresh()], model=Plain(1, 1))


def test_without_the_callback_nothing_is_refreshed() -> None:
    model = new_toy()
    fit([], model=model)
    assert model.n_refreshed == 0
