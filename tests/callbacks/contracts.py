"""What every callback keeps to. A test file inherits it in three lines::

class TestContract(CallbackContract):
    name, arguments = "FaissRefresh", {"every": 2}
    neutral = {"every": 100, "before_valid": False}
"""

from __future__ import annotations

import datetime
import inspect
import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from callbacks.loop import Spy, assert_same, fit, load, new_state, new_toy, weights

from recbole_ext.callbacks.base import HOOKS, Callback
from recbole_ext.callbacks.build import build_callbacks, find_callback
from recbole_ext.quick_start import run
from recbole_ext.trainer.batch_hooks import BatchHooks
from recbole_ext.trainer.checkpoint import read_checkpoint
from recbole_ext.types import UserError

BROKEN_OFF_AT = 10
"""Optimizer step at which a run of the trainer is broken off: in the third of its epochs."""


class CallbackContract:
    """Inherit, and say which callback."""

    name: ClassVar[str]
    """Its name in YAML."""
    arguments: ClassVar[dict[str, Any]]
    """Arguments with which it acts on the toy of ``loop.py`` within four epochs."""
    neutral: ClassVar[dict[str, Any] | None] = None
    """Arguments with which it must change nothing, if there are such: an empty schedule."""

    def make(self, arguments: dict[str, Any] | None = None) -> Callback:
        chosen = self.arguments if arguments is None else arguments
        (callback,) = build_callbacks([{self.name: chosen}])
        return callback

    def test_an_unknown_argument_is_named_with_the_nearest(self) -> None:
        names = list(inspect.signature(find_callback(self.name)).parameters)
        for name in names:
            with pytest.raises(UserError, match=f"{self.name} has no argument '{name}x'") as error:
                self.make({**self.arguments, f"{name}x": 1})
            assert f"did you mean '{name}'" in str(error.value)
        with pytest.raises(UserError, match=f"{self.name} has no argument 'qqqq'"):
            self.make({**self.arguments, "qqqq": 1})

    def test_a_missing_argument_is_named(self) -> None:
        parameters = inspect.signature(find_callback(self.name)).parameters.values()
        for parameter in parameters:
            if parameter.default is parameter.empty:
                given = {k: v for k, v in self.arguments.items() if k != parameter.name}
                with pytest.raises(UserError, match=f"{self.name} needs .*'{parameter.name}'"):
                    self.make(given)

    def test_a_wrong_type_is_named_with_the_value(self) -> None:
        a_date = datetime.date(2020, 2, 29)  # YAML reads 2020-02-29 as this, and nobody takes one
        for name in inspect.signature(find_callback(self.name)).parameters:
            with pytest.raises(UserError, match=rf"{self.name}: {name} takes .*2020, 2, 29"):
                self.make({**self.arguments, name: a_date})

    def test_hooks_are_ones_that_the_trainer_calls(self) -> None:
        own = [name for name in vars(find_callback(self.name)) if name.startswith("on_")]
        assert own and set(own) <= set(HOOKS)

    def test_training_leaves_the_configuration_alone(self, tmp_path: Path) -> None:
        before = repr(self.arguments)
        fit([self.make()], folder=tmp_path, epochs=2)
        assert repr(self.arguments) == before

    def test_state_survives_a_file(self, tmp_path: Path) -> None:
        trained = self.make()
        fit([trained], folder=tmp_path)
        other = self.make()
        other.load_state_dict(_through_a_file(trained.state_dict()))
        assert_equal(other.state_dict(), trained.state_dict())

    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_a_resumed_run_ends_as_the_whole_one(self, tmp_path: Path, after: int) -> None:
        saved: dict[int, bytes] = {}
        whole = fit(
            [self.make()],
            folder=tmp_path,
            after_epoch=lambda state, data: saved.__setitem__(state.epoch, data),
        )
        if after + 1 >= len(saved):
            pytest.skip("the run ended by itself before")
        last: dict[int, bytes] = {}
        resumed = fit(
            [self.make()],
            folder=tmp_path,
            resume=saved[after],
            after_epoch=lambda state, data: last.__setitem__(state.epoch, data),
        )
        assert_same(weights(resumed.model), weights(whole.model))
        end = max(saved)
        assert max(last) == end and resumed.stop == whole.stop
        assert_equal(load(last[end]), load(saved[end]))  # the optimizer and the callback too

    def test_a_run_that_was_broken_off_ends_as_the_whole_one(
        self, tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same through the trainer, its ``last.pt`` and ``--resume``."""
        settings = {**tiny_settings, "callbacks": [{self.name: self.arguments}], "epochs": 4}

        def run_in(name: str) -> None:
            chosen = {**settings, "output_dir": str(tmp_path / name)}
            run("callbacks.toy_model:ToySeq", "tiny", config_dict=chosen)

        run_in("whole")
        step = BatchHooks._after_step

        def kill(trainer: BatchHooks, *arguments: Any) -> None:
            step(trainer, *arguments)
            if trainer.state.step == BROKEN_OFF_AT:
                raise KeyboardInterrupt

        monkeypatch.setattr(BatchHooks, "_after_step", kill)
        with pytest.raises(KeyboardInterrupt):
            run_in("broken")
        monkeypatch.setattr(BatchHooks, "_after_step", step)
        assert read_checkpoint(tmp_path / "broken" / "last.pt")["epoch"] == 1
        run(resume=tmp_path / "broken")
        for name in ("best.pt", "last.pt"):
            whole, resumed = (
                read_checkpoint(tmp_path / which / name) for which in ("whole", "broken")
            )
            for payload in (whole, resumed):
                payload.pop("settings")
                # the toy's count: the memory that is in no file is made once more after a resume
                payload.get("loose", {}).pop("n_refreshed", None)
            assert_equal(resumed, whole)

    def test_hooks_leave_the_random_generators_alone(self, tmp_path: Path) -> None:
        spy = Spy([self.make()])
        fit([], folder=tmp_path, lists=lambda _: spy)
        assert spy.ran and spy.moved == []

    def test_an_empty_schedule_changes_nothing(self, tmp_path: Path) -> None:
        if self.neutral is None:
            pytest.skip("this callback has no such setting")
        plain, with_it = fit([]), fit([self.make(self.neutral)], folder=tmp_path)
        assert_same(weights(with_it.model), weights(plain.model))

    def test_no_epoch_at_all(self, tmp_path: Path) -> None:
        state = fit([self.make()], folder=tmp_path, epochs=0)
        assert_same(weights(state.model), weights(new_toy()))

    def test_the_end_of_a_fit_that_never_began_changes_no_weight(self) -> None:
        state = new_state()
        self.make().on_fit_end(state)  # another callback's on_fit_start raised
        assert_same(weights(state.model), weights(new_toy()))

    def test_a_second_fit_is_as_the_first(self, tmp_path: Path) -> None:
        callback = self.make()
        first = fit([callback], folder=tmp_path)
        second = fit([callback], folder=tmp_path)
        assert_same(weights(second.model), weights(first.model))

    def test_the_model_is_left_trainable_as_it_was(self, tmp_path: Path) -> None:
        model = new_toy()
        model.aux_head.bias.requires_grad_(False)
        fit([self.make()], folder=tmp_path, model=model)
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        assert frozen == ["aux_head.bias"]
        assert_same({"": model.aux_head.bias.detach()}, {"": new_toy().aux_head.bias.detach()})


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


def assert_equal(one: Any, other: Any) -> None:
    """Equal through dicts and lists, tensors bit by bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other)
    else:
        assert one == other
