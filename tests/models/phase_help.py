"""Runs of several phases, made short: which parameters moved when, and what a kill leaves."""

from __future__ import annotations

import math
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_ext.paths import data_folder
from recbole_ext.quick_start import run
from recbole_ext.settings_reading import read_yaml
from recbole_ext.trainer.batch_hooks import BatchHooks
from recbole_ext.trainer.checkpoint import read_checkpoint


def properties(name: str) -> dict[str, Any]:
    """Return what a file of ``properties/model`` says."""
    return dict(read_yaml(data_folder("properties") / "model" / f"{name}.yaml"))


def ends_of(callbacks: list[Any]) -> list[int]:
    """Return the epochs at which the phases of ``Alternate``, the first callback, end."""
    return list(accumulate(phase["epochs"] for phase in callbacks[0]["Alternate"]["phases"]))


def shortened(callbacks: list[Any], n: int) -> list[Any]:
    """Return callbacks with ``n`` epochs a phase, with what begins and ends within moved along.

    Turns of ``AdaptiveAlternate`` last a step or two, and ``Distill`` has no silent teacher.
    """
    ends = ends_of(callbacks)

    def moved(epoch: int) -> int:
        phase = sum(end <= epoch for end in ends)
        if phase == len(ends):
            return n * phase
        start = ([0, *ends])[phase]
        return n * phase + math.ceil((epoch - start) * n / (ends[phase] - start))

    def change(given: Any, key: str = "") -> Any:
        if isinstance(given, dict):
            return {name: change(value, name) for name, value in given.items()}
        if isinstance(given, list):
            return [change(value) for value in given]
        if key in ("begin", "until", "from_epoch", "until_epoch"):
            return moved(given)
        return {"epochs": n, "min_steps": 1, "max_steps": 2}.get(key, given)

    found = change(callbacks)
    for callback in found:
        if "Distill" in callback:
            callback["Distill"]["margin"] = -5.0
    return found


def moves(
    model: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, int, set[str]]]:
    """Train; return for each optimizer step the phase, the epoch, and the names that moved."""
    found: list[tuple[str, int, set[str]]] = []
    before: dict[str, torch.Tensor] = {}
    step = BatchHooks._after_step
    hooked = BatchHooks._hooked

    def start(trainer: BatchHooks, *arguments: Any) -> Any:
        before.update({n: p.detach().clone() for n, p in trainer.model.named_parameters()})
        return hooked(trainer, *arguments)

    def look(trainer: BatchHooks, *arguments: Any) -> None:
        step(trainer, *arguments)
        now = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        names = {n for n in now if not torch.equal(before[n], now[n])}
        found.append((trainer.state.phase or "", trainer.state.epoch, names))
        before.update(now)

    monkeypatch.setattr(BatchHooks, "_hooked", start)
    monkeypatch.setattr(BatchHooks, "_after_step", look)
    run(model, "tiny", config_dict=settings)
    return found


def broken_off(
    model: str, settings: dict[str, Any], epoch: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break a run off after two steps of an epoch, and resume it."""
    step = BatchHooks._after_step

    def kill(trainer: BatchHooks, *arguments: Any) -> None:
        step(trainer, *arguments)
        if trainer.state.epoch == epoch and trainer.state.step % trainer.state.steps_per_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BatchHooks, "_after_step", kill)
        with pytest.raises(KeyboardInterrupt):
            run(model, "tiny", config_dict={**settings, "output_dir": str(folder)})
    run(resume=folder)


def check_same_end(one: Path, other: Path) -> None:
    """Hold the weights and the callbacks at the end of two runs against each other, to the bit."""
    first, second = (read_checkpoint(folder / "last.pt") for folder in (one, other))
    for part in ("state_dict", "callbacks", "epoch", "step"):
        _check_same(first[part], second[part], part)


def _check_same(one: Any, other: Any, where: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _check_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where
