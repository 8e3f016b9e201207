from __future__ import annotations

import math
from typing import Any

import pytest
from callbacks.contracts import CallbackContract
from callbacks.loop import STEPS, Record, fit

from recbole_ext.callbacks.lr_schedule import LrSchedule
from recbole_ext.callbacks.uncertainty_weights import UncertaintyWeights
from recbole_ext.types import UserError


class TestContract(CallbackContract):
    name, arguments = "LrSchedule", {"kind": "cosine", "warmup_steps": 3, "min_lr_ratio": 0.1}
    neutral = {"kind": "constant"}


class TestContractRatio(CallbackContract):
    name, arguments = "LrSchedule", {"kind": "linear", "warmup_ratio": 0.25}
    neutral = {"kind": "cosine", "min_lr_ratio": 1.0}


def rates(epochs: int = 3, callbacks: tuple = (), **rule: Any) -> list[list[float]]:
    """Return the rates that each step was taken with, by parameter group."""
    seen = Record(lambda s: [group["lr"] for group in s.optimizer.param_groups], "on_batch_end")
    fit([*callbacks, LrSchedule(**rule), seen], epochs=epochs)
    return [list(group) for group in zip(*seen.seen, strict=True)]


TOTAL = 3 * STEPS
SHAPES = {
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("least", [0.0, 0.2])
def test_the_rate_is_the_closed_form_at_every_step(kind: str, warmup: int, least: float) -> None:
    (found,) = rates(kind=kind, warmup_steps=warmup, min_lr_ratio=least)
    expected = []
    for step in range(TOTAL):
        if step < warmup:
            factor = (step + 1) / warmup
        else:
            factor = SHAPES[kind]((step - warmup) / (TOTAL - warmup))
            factor = factor if kind == "constant" else least + (1 - least) * factor
        expected.append(0.01 * factor)  # 0.01: the toy's rate
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_ratio_is_of_all_steps() -> None:
    assert rates(warmup_ratio=0.5) == rates(warmup_steps=TOTAL // 2)
    assert rates(warmup_ratio=0.0) == rates()


def test_every_group_goes_from_its_own_rate() -> None:
    class Slower(UncertaintyWeights):
        def on_fit_start(self, state: Any) -> None:
            super().on_fit_start(state)
            state.optimizer.param_groups[1]["lr"] = 0.0005

    first, second = rates(callbacks=(Slower(["rec"]),), kind="linear", warmup_steps=2)
    assert second == pytest.approx([lr / 20 for lr in first])


def test_a_run_of_one_step_is_at_the_full_rate() -> None:
    from callbacks.loop import new_state

    state = new_state(epochs=1)
    state.steps_per_epoch = 1
    callback = LrSchedule()
    callback.on_fit_start(state)
    callback.on_batch_start(state)
    assert state.optimizer.param_groups[0]["lr"] == 0.01


def test_a_warm_up_that_does_not_end_is_said(caplog: pytest.LogCaptureFixture) -> None:
    (found,) = rates(warmup_steps=2 * TOTAL)
    assert found[-1] == pytest.approx(0.005)
    assert "the warm-up takes 24 steps, the run has 12" in caplog.text


def test_the_rate_is_logged_by_epoch() -> None:
    logged: list[tuple[str, float, int]] = []
    fit([LrSchedule("linear")], epochs=2, log=lambda *row: logged.append(row))
    assert [row[::2] for row in logged] == [("learning_rate", 4), ("learning_rate", 8)]
    assert [row[1] for row in logged] == pytest.approx([0.01 * 5 / 8, 0.01 * 1 / 8])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, "warmup_steps or warmup_ratio, not both"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"warmup_ratio": 1.5}, "at most 1"),
        ({"min_lr_ratio": 2.0}, "at most 1"),
        ({"min_lr_ratio": -0.1}, "min_lr_ratio must be at least 0"),
    ],
)
def test_a_wrong_number_is_named(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        LrSchedule(**rule)
