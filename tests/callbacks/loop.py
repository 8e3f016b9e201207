"""A toy regression and the shortest loop that calls the hooks where the trainer calls them."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recbole_ext.callbacks.base import HOOKS, Callback, CallbackList
from recbole_ext.trainer.checkpoint import write_checkpoint
from recbole_ext.types import StopTraining, TrainState

N_ROWS, BATCH, STEPS = 32, 8, 4
"""Rows of the toy data, rows of a batch, batches of an epoch."""


class Toy(nn.Module):
    """An encoder with dropout and batch norm, two heads, a memory, and a setting to calibrate."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 8)
        )
        self.head = nn.Linear(8, 1)
        self.aux_head = nn.Linear(8, 1)
        # Not saved, as an index is not: a resumed run has it from refresh_memory or not at all.
        self.register_buffer("memory", torch.zeros(8), persistent=False)
        self.register_buffer("mix", torch.tensor(0.0))
        self.n_refreshed = 0
        self.n_calibrated = 0

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        hidden = self.encoder(batch[:, :4]) - 0.1 * self.memory  # [B, 8]
        rec = (self.head(hidden).squeeze(1) - batch[:, 4]).square().mean()
        aux = (self.aux_head(hidden).squeeze(1) - batch[:, 5]).square().mean()
        self.score_sets = toy_scores(self, hidden, batch[:, 4])
        return {"rec": rec * (1 + self.mix), "aux": aux}

    @torch.no_grad()
    def refresh_memory(self) -> None:
        self.n_refreshed += 1
        self.memory.copy_(self.encoder[0].weight.sum(dim=1))  # [8]

    @torch.no_grad()
    def calibrate(self, valid_data: Tensor) -> dict[str, float]:
        self.n_calibrated += 1
        self.mix.fill_(float(self.head.weight.abs().mean()))
        return {"mix": float(self.mix)}


def toy_scores(toy: Any, hidden: Tensor, value: Tensor) -> dict[str, Tensor]:
    """Return how well each head's number fits the true one, its negative, and 0: [B, 3] each."""
    candidates = torch.stack([value, -value, 0 * value], dim=1)  # [B, 3]
    heads = {"rec": toy.head, "aux": toy.aux_head}
    return {name: -(head(hidden) - candidates).square() for name, head in heads.items()}


class Spy(CallbackList):
    """Notes which hooks ran, and which of them moved a random generator."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        super().__init__(callbacks)
        self.ran: list[str] = []
        self.moved: list[str] = []

    def run(self, hook: str, state: TrainState) -> None:
        for callback in self._by_hook[hook]:
            before = rng_state()
            getattr(callback, hook)(state)
            self.ran.append(f"{type(callback).__name__}.{hook}")
            if not _equal(before, rng_state()):
                self.moved.append(self.ran[-1])


def toy_data(seed: int = 0) -> Tensor:
    """Return rows of four features and two targets, [32, 6]."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(N_ROWS, 4, generator=generator)  # [32, 4]
    targets = features @ torch.randn(4, 2, generator=generator)  # [32, 2]
    return torch.cat([features, targets], dim=1)


def new_toy() -> Toy:
    torch.manual_seed(1)
    return Toy()


def new_state(model: nn.Module | None = None, epochs: int = 4, **more: Any) -> TrainState:
    """Return the state of a fit that has not begun."""
    model = model or new_toy()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    more.setdefault("valid_data", toy_data(seed=1))
    state = TrainState(model, optimizer, total_epochs=epochs, steps_per_epoch=STEPS, **more)
    state.save = lambda path: write_checkpoint(
        path,
        {
            "model": type(state.model).__name__,
            "epoch": state.epoch,
            "step": state.step,
            "state_dict": state.model.state_dict(),
        },
    )
    return state


def fit(
    callbacks: Iterable[Callback],
    epochs: int = 4,
    model: nn.Module | None = None,
    resume: bytes | None = None,
    after_epoch: Callable[[TrainState, bytes], None] = lambda state, saved: None,
    each_step: Callable[[TrainState], None] = lambda state: None,
    until: int | None = None,
    lists: Callable[[Iterable[Callback]], CallbackList] = CallbackList,
    **more: Any,
) -> TrainState:
    """Train the toy.

    Args:
        callbacks: The callbacks.
        epochs: Epochs the run is configured for.
        model: The model; a new toy by default.
        resume: What ``after_epoch`` was given, to go on from there.
        after_epoch: Called with what a checkpoint would hold, as bytes.
        each_step: Called after each optimizer step.
        until: Break off after so many epochs, as a kill would.
        lists: Makes what runs the hooks of the callbacks.
        **more: Fields of the state.
    """
    state = new_state(model, epochs, **more)
    hooks = lists(callbacks)
    torch.manual_seed(2)  # dropout

    def after_step(*_: Any) -> None:
        state.step += 1
        hooks.run("on_batch_end", state)
        each_step(state)

    state.optimizer.register_step_post_hook(after_step)
    try:
        with suppress(StopTraining):  # it leaves no reason in the state: the epoch is not done
            hooks.run("on_fit_start", state)
            first = 0 if resume is None else restore(state, hooks, resume)
            for state.epoch in range(first, epochs if until is None else until):
                _epoch(state, hooks)
                after_epoch(state, save(state, hooks))
                if state.stop:
                    break
    finally:
        hooks.run("on_fit_end", state)
    return state


def _epoch(state: TrainState, hooks: CallbackList) -> None:
    hooks.run("on_epoch_start", state)
    state.model.train()
    _train(state, hooks)
    hooks.run("on_epoch_end", state)
    if state.valid_data is not None:
        _validate(state, hooks)


def _train(state: TrainState, hooks: CallbackList) -> None:
    order = torch.randperm(N_ROWS, generator=torch.Generator().manual_seed(state.epoch))  # [32]
    for state.batch in toy_data()[order].split(BATCH):
        state.optimizer.zero_grad()
        hooks.run("on_batch_start", state)
        state.losses = dict(state.model.losses(state.batch))
        hooks.run("on_loss", state)
        sum(state.losses.values()).backward()
        state.optimizer.step()


def _validate(state: TrainState, hooks: CallbackList) -> None:
    hooks.run("on_valid_start", state)
    state.model.eval()
    with torch.no_grad():
        losses = state.model.losses(state.valid_data)
    state.metrics = {"recall@10": -float(losses["rec"]), "ndcg@10": -float(losses["aux"])}
    hooks.run("on_valid_end", state)


def save(state: TrainState, hooks: CallbackList) -> bytes:
    """Return what the trainer's last.pt holds, as bytes."""
    payload = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "callbacks": hooks.state_dict(),
        "torch": torch.get_rng_state(),
        "epoch": state.epoch,
        "step": state.step,
        "phase": state.phase,
        "metrics": state.metrics,
        "stop": state.stop,
    }
    stream = io.BytesIO()
    torch.save(payload, stream)
    return stream.getvalue()


def load(saved: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(saved), weights_only=True)


def restore(state: TrainState, hooks: CallbackList, saved: bytes) -> int:
    """Put everything back; return the epoch to go on with: beyond all where it had stopped."""
    payload = load(saved)
    state.model.load_state_dict(payload["model"])
    state.optimizer.load_state_dict(payload["optimizer"])
    hooks.load_state_dict(payload["callbacks"])
    state.epoch, state.step, state.phase = payload["epoch"], payload["step"], payload["phase"]
    state.metrics, state.stop = payload["metrics"], payload["stop"]
    torch.set_rng_state(payload["torch"])
    return state.total_epochs if state.stop else state.epoch + 1


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every parameter and buffer, those that are not saved too."""
    parts = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in parts}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit-identical, name by name."""
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"not bit-identical: {different}"


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is read from tensors from now on: each time the host waits for the device."""
    reads: list[str] = []
    for name in ("item", "tolist", "__float__", "__bool__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *args: object, _of=original, _as=name) -> object:
            reads.append(_as)
            return _of(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    return reads


def rng_state() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _equal(one: Any, other: Any) -> bool:
    return repr(one[:2]) == repr(other[:2]) and torch.equal(one[2], other[2])


class Record(Callback):
    """Writes down every hook with what ``read`` gives at that moment."""

    def __init__(self, read: Callable[[TrainState], Any], *hooks: str) -> None:
        self.seen: list[Any] = []
        for hook in hooks:
            assert hook in HOOKS
        self._read, self._at = read, hooks

    def _note(self, hook: str, state: TrainState) -> None:
        if hook in self._at:
            self.seen.append(self._read(state))


def _recorder(hook: str) -> Callable[[Record, TrainState], None]:
    return lambda self, state: self._note(hook, state)


for _hook in HOOKS:
    setattr(Record, _hook, _recorder(_hook))
