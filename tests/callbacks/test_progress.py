from __future__ import annotations

import functools
import io

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, fit, new_state
from tqdm import tqdm

from recbole_ext.callbacks import progress
from recbole_ext.callbacks.progress import Progress
from recbole_ext.types import TrainState


class TestContract(CallbackContract):
    name, arguments = "Progress", {}
    neutral: dict = {}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()  # not as sys.stderr, which pytest puts back after the fixture
    monkeypatch.setattr(progress, "tqdm", functools.partial(tqdm, file=stream))
    return stream


def test_one_bar_over_all_steps_of_all_epochs(terminal: Terminal) -> None:
    callback = Progress()
    at = Record(lambda state: (callback._bar.n, callback._bar.total), "on_epoch_end")  # type: ignore[union-attr]
    fit([at, callback], epochs=3)
    assert at.seen == [(4, 12), (8, 12), (12, 12)]
    assert "12/12" in terminal.getvalue()
    assert callback._bar is None and terminal.getvalue().endswith("\n")


def test_epochs_of_unlike_length_fill_one_bar(terminal: Terminal) -> None:
    """MKR's, say, where every third epoch trains on the knowledge graph too."""
    callback, state = Progress(), new_state(epochs=3, steps_of_epoch=lambda epoch: [5, 2, 2][epoch])
    at = []
    for state.epoch in range(3):
        callback.on_epoch_start(state)
        assert callback._bar is not None
        at.append((callback._bar.n, callback._bar.total))
    callback.on_fit_end(state)
    assert at == [(0, 9), (5, 9), (7, 9)]


def test_only_the_first_process_has_a_bar(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        callback = Progress()
        disabled = Record(lambda state: bool(callback._bar.disable), "on_epoch_end")  # type: ignore[union-attr] # noqa: B023
        fit([disabled, callback], epochs=1)
        assert disabled.seen == [rank == 1]


def test_the_bar_begins_where_a_resumed_run_does(terminal: Terminal) -> None:
    saved: list[bytes] = []
    fit([Progress()], after_epoch=lambda state, data: saved.append(data))
    callback = Progress()
    at = Record(lambda state: callback._bar.n, "on_batch_start")  # type: ignore[union-attr]
    fit([callback, at], resume=saved[1])
    assert at.seen == list(range(8, 16))


def test_a_line_says_epoch_loss_and_the_last_validation(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    said = Record(lambda state: dict(state.metrics), "on_epoch_start")
    losses = Record(lambda s: sum(v.item() for v in s.losses.values()), "on_batch_end")
    fit([Progress(), losses, said], epochs=2)
    text = terminal.getvalue()
    assert f"epoch 0, loss {losses.seen[0]:.4f}" in text
    recall = said.seen[1]["recall@10"]
    assert f"epoch 1, loss {losses.seen[-1]:.4f}, recall@10 {recall:.4f}" in text


def test_the_loss_is_read_twice_a_second_and_not_at_each_step(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(progress, "monotonic", lambda: 1000 + next(clock) / 10)  # 0.1 s per step
    reads: list[int] = []
    monkeypatch.setattr(progress, "describe", lambda state: reads.append(state.step) or "")
    fit([Progress()], epochs=4)
    gaps = [b - a for a, b in zip(reads, reads[1:], strict=False)]
    assert gaps and min(gaps) >= 2 and len(reads) <= 6


def test_no_bar_where_nobody_looks(capsys: pytest.CaptureFixture) -> None:
    fit([Progress()])
    assert capsys.readouterr().err == ""


def test_the_bar_is_closed_after_an_error_too(terminal: Terminal) -> None:
    class Fails(Record):
        def on_batch_end(self, state: TrainState) -> None:
            raise RuntimeError("no")

    callback = Progress()
    bars = Record(lambda state: callback._bar, "on_batch_start")
    with pytest.raises(RuntimeError, match="no"):
        fit([callback, bars, Fails(lambda state: None)])
    assert callback._bar is None and bars.seen[0].disable  # so tqdm says "closed"


def test_the_line_is_made_of_plain_numbers() -> None:
    losses = {"a": torch.tensor(1.25), "b": torch.tensor(0.5, requires_grad=True)}
    state = TrainState(torch.nn.Linear(1, 1), None, 1, 1, losses=losses)  # type: ignore[arg-type]
    state.metrics = {"ndcg@10": 0.12345}
    assert progress.describe(state) == "epoch 0, loss 1.7500, ndcg@10 0.1235"


def test_steps_that_the_scaler_skipped_count_when_the_epoch_is_over(terminal: Terminal) -> None:
    callback, state = Progress(), new_state(epochs=2)
    callback.on_epoch_start(state)
    for _ in range(3):  # of four batches
        callback.on_batch_end(state)
    state.epoch = 1
    callback.on_epoch_start(state)
    assert callback._bar is not None and callback._bar.n == 4
    callback.on_fit_end(state)
