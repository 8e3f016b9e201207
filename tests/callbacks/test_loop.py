"""The loop in which the callbacks are tested calls the hooks when and as the trainer does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from callbacks import recorder
from callbacks.loop import STEPS, fit
from callbacks.recorder import Recorder

from recbole_ext.quick_start import run

RULES: dict[str, dict[str, int]] = {
    "to the end": {},
    "two phases": {"phase_at": 2},
    "a reason to stop": {"phase_at": 1, "stop_at": 1},
    "stopped at once": {"raise_at": 2},
}


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    recorder.seen.clear()


def taken() -> list[tuple[Any, ...]]:
    """Return what was noted since the last time."""
    seen = list(recorder.seen)
    recorder.seen.clear()
    return seen


def in_the_loop(
    rule: dict[str, int], epochs: int, resume: bytes | None = None
) -> tuple[list[tuple[Any, ...]], bytes | None]:
    """Return what is noted in the loop, and what the last checkpoint holds."""
    saved: list[bytes] = []
    fit(
        [Recorder(**rule)],
        epochs=epochs,
        resume=resume,
        after_epoch=lambda state, data: saved.append(data),
    )
    return taken(), saved[-1] if saved else None


def in_the_trainer(
    rule: dict[str, int], epochs: int, settings: dict[str, Any], folder: Path
) -> list[tuple[Any, ...]]:
    """Return what is noted in a run in ``folder``, which is continued if there is one."""
    if folder.is_dir():
        run(resume=folder, overrides=[f"--epochs={epochs}"])
    else:
        chosen = {"epochs": epochs, "output_dir": str(folder)}
        callbacks = [{"callbacks.recorder:Recorder": rule}]
        run(
            "callbacks.toy_model:ToySeq",
            "tiny",
            config_dict={**settings, **chosen, "callbacks": callbacks},
        )
    return taken()


@pytest.mark.parametrize("name", RULES)
def test_hooks_see_the_same_in_the_loop_and_in_the_trainer(
    name: str, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    rule = RULES[name]
    loop, _ = in_the_loop(rule, epochs=4)
    assert loop == in_the_trainer(rule, 4, tiny_settings, tmp_path / "run")
    # and this is what it is, so that the two cannot be empty or wrong together
    last = {"a reason to stop": 1, "stopped at once": 2}.get(name, 3)
    hook, epoch, step, _, stop, *_ = loop[-1]
    assert (hook, epoch, step) == ("on_fit_end", last, (last + 1) * STEPS)
    assert stop == ("enough" if name == "a reason to stop" else None)


@pytest.mark.parametrize("name", RULES)
def test_hooks_see_the_same_after_a_resume(
    name: str, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """A run of two epochs is continued to four; one that a callback had stopped stays so."""
    rule = RULES[name]
    begun, saved = in_the_loop(rule, epochs=2)
    assert begun == in_the_trainer(rule, 2, tiny_settings, tmp_path / "run")
    resumed, _ = in_the_loop(rule, epochs=4, resume=saved)
    assert resumed == in_the_trainer(rule, 4, tiny_settings, tmp_path / "run")
    hooks = [note[0] for note in resumed]
    if name == "a reason to stop":
        assert hooks == ["on_fit_start", "on_fit_end"]
    else:
        assert resumed[1][:3] == ("on_epoch_start", 2, 2 * STEPS)
