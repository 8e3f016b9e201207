from __future__ import annotations

from typing import Any

import pytest
from callbacks.contracts import CallbackContract
from callbacks.loop import fit, new_state

from recbole_ext.callbacks.early_stop import EarlyStop
from recbole_ext.types import UserError


class TestContract(CallbackContract):
    name, arguments = "EarlyStop", {"metric": "recall@10", "patience": 2, "mode": "min"}
    neutral = {"metric": "recall@10", "patience": 2, "mode": "min", "start_epoch": 99}


class TestContractThatNeverStops(CallbackContract):
    name, arguments = "EarlyStop", {"metric": "recall@10", "patience": 9}
    neutral = {"metric": "recall@10", "patience": 9}


def stopped_at(values: list[float], phases: list[Any] | None = None, **rule: Any) -> int | None:
    """Return the epoch after which training stops."""
    callback, state = EarlyStop("m", **rule), new_state()
    callback.on_fit_start(state)
    for state.epoch, value in enumerate(values):
        state.phase = phases[state.epoch] if phases else None
        state.metrics = {"m": value}
        callback.on_valid_end(state)
        if state.stop:
            assert "EarlyStop: m has not improved" in state.stop
            return state.epoch
    return None


def test_it_stops_when_the_patience_is_at_its_end() -> None:
    values = [0.1, 0.3, 0.2, 0.3, 0.25, 0.9]
    assert stopped_at(values, patience=3) == 4
    assert stopped_at(values, patience=4) is None
    assert stopped_at(values, patience=1, mode="min") == 1
    assert stopped_at([0.10, 0.14, 0.16, 0.2], patience=2, min_delta=0.1) == 2


def test_validations_before_the_first_epoch_do_not_count() -> None:
    values = [0.9, 0.1, 0.2, 0.1, 0.1]
    assert stopped_at(values, patience=2) == 2
    assert stopped_at(values, patience=2, start_epoch=1) == 4


def test_a_new_phase_is_a_new_beginning() -> None:
    values = [0.5, 0.4, 0.3, 0.2, 0.1]
    assert stopped_at(values, patience=2) == 2
    assert stopped_at(values, ["a", "a", "b", "b", "b"], patience=2) == 4


def test_the_phase_is_kept_over_a_resume() -> None:
    """Else the first validation after it would take the phase for a new one."""
    first, state = EarlyStop("m", patience=2), new_state()
    first.on_fit_start(state)
    state.phase = "b"
    for value in (0.5, 0.4):
        state.metrics = {"m": value}
        first.on_valid_end(state)
    resumed = EarlyStop("m", patience=2)
    resumed.on_fit_start(state)
    resumed.load_state_dict(first.state_dict())
    state.metrics = {"m": 0.3}
    resumed.on_valid_end(state)
    assert state.stop


def test_training_ends_early() -> None:
    state = fit([EarlyStop("recall@10", patience=1, mode="min")], epochs=9)
    assert state.stop and state.step < 9 * 4


def test_an_unknown_metric_is_named_at_the_first_validation() -> None:
    with pytest.raises(UserError, match="no metric 'recal@10'; did you mean 'recall@10'"):
        fit([EarlyStop("recal@10")])


def test_a_run_without_validation_data_is_refused() -> None:
    with pytest.raises(UserError, match="EarlyStop needs validation data"):
        fit([EarlyStop("m")], valid_data=None)
