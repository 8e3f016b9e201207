from __future__ import annotations

import logging
from statistics import fmean

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, count_reads, fit

from recbole_ext.callbacks.log_losses import LogLosses
from recbole_ext.callbacks.loss_curriculum import LossCurriculum
from recbole_ext.types import TrainState

Row = tuple[str, float, int]


class TestContract(CallbackContract):
    name, arguments = "LogLosses", {"every": 3}
    neutral = {"every": 1}


class TestContractLong(CallbackContract):
    name, arguments = "LogLosses", {"every": 100}
    neutral = {"every": 100}


def losses_of(name: str) -> Record:
    return Record(lambda state: state.losses[name].item(), "on_batch_end")


def test_a_line_is_the_mean_of_its_steps() -> None:
    rows: list[Row] = []
    seen = {name: losses_of(name) for name in ("rec", "aux")}
    fit([*seen.values(), LogLosses(every=3)], epochs=2, log=lambda *row: rows.append(row))
    for name, record in seen.items():
        found = [(step, value) for logged, value, step in rows if logged == f"loss/{name}"]
        assert [step for step, _ in found] == [3, 6, 8]  # the last line is what was left
        means = [fmean(record.seen[a:b]) for a, b in ((0, 3), (3, 6), (6, 8))]
        assert [value for _, value in found] == pytest.approx(means, rel=1e-12)


def test_the_losses_are_those_that_were_trained_on() -> None:
    rows: list[Row] = []
    seen = losses_of("aux")
    fit(
        [LogLosses(every=4), LossCurriculum({"aux": 0.5}), seen],
        epochs=1,
        log=lambda *r: rows.append(r),
    )
    assert dict((row[0], row[1]) for row in rows)["loss/aux"] == pytest.approx(fmean(seen.seen))


def test_a_line_goes_to_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Row] = []
    with caplog.at_level(logging.INFO):
        fit([LogLosses(every=4)], epochs=1, log=lambda *row: rows.append(row))
    (rec, aux) = (row[1] for row in rows)
    assert f"step 4: rec {rec:.4f}, aux {aux:.4f}" in caplog.text


def test_nothing_is_read_between_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_reads(monkeypatch)
    callback = LogLosses(every=10)
    state = TrainState(torch.nn.Linear(1, 1), None, 1, 40)  # type: ignore[arg-type]
    at = []
    for state.step in range(1, 41):
        state.losses = {"rec": torch.tensor(1.0), "aux": torch.tensor(2.0)}
        callback.on_batch_end(state)
        at.append(len(reads))
    assert [step for step in range(1, 41) if at[step - 1] > (at[step - 2] if step > 1 else 0)] == [
        10,
        20,
        30,
        40,
    ]
    assert len(reads) == 4


def test_a_resumed_run_logs_the_lines_of_the_whole_one() -> None:
    whole: list[Row] = []
    saved: list[bytes] = []
    fit(
        [LogLosses(every=3)],
        log=lambda *row: whole.append(row),
        after_epoch=lambda state, data: saved.append(data),
    )
    resumed: list[Row] = []
    fit([LogLosses(every=3)], log=lambda *row: resumed.append(row), resume=saved[1])
    assert resumed == [row for row in whole if row[2] > 8]
