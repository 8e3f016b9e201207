from __future__ import annotations

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, fit, toy_data
from torch import nn

from recbole_ext.callbacks.calibrate import Calibrate
from recbole_ext.types import UserError


class TestContract(CallbackContract):
    name, arguments = "Calibrate", {"every": 2}


class TestContractEach(CallbackContract):
    name, arguments = "Calibrate", {"every": 1}


def test_the_model_is_calibrated_before_the_validations_that_are_due() -> None:
    counts = Record(lambda state: state.model.n_calibrated, "on_valid_end")
    fit([Calibrate(every=2), counts], epochs=5)
    assert counts.seen == [1, 1, 2, 2, 3]


def test_the_settings_are_logged_and_kept() -> None:
    logged: list[tuple[str, float, int]] = []
    callback = Calibrate()
    state = fit([callback], epochs=2, log=lambda *row: logged.append(row))
    assert [(name, step) for name, _, step in logged] == [
        ("calibrate/mix", 4),
        ("calibrate/mix", 8),
    ]
    expected = float(state.model.head.weight.detach().abs().mean())
    assert logged[-1][1] == expected
    assert callback.settings == {"mix": expected}
    assert callback.state_dict()["settings"] == {"mix": expected}


def test_the_model_gets_the_validation_data() -> None:
    seen: list[torch.Tensor] = []

    class Toy(nn.Linear):
        def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"rec": self(batch[:, :1]).square().mean(), "aux": self.weight.sum()}

        def calibrate(self, valid_data: torch.Tensor) -> dict[str, float]:
            seen.append(valid_data)
            return {}

    valid = toy_data(seed=3)
    fit([Calibrate()], model=Toy(1, 1), epochs=1, valid_data=valid)
    assert len(seen) == 1 and seen[0] is valid


def test_a_run_without_validation_data_is_refused() -> None:
    with pytest.raises(UserError, match="Calibrate needs validation data"):
        fit([Calibrate()], valid_data=None)


def test_a_model_with_nothing_to_calibrate_is_named() -> None:
    with pytest.raises(UserError, match="Calibrate: Linear has nothing to calibrate"):
        fit([Calibrate()], model=nn.Linear(1, 1))
