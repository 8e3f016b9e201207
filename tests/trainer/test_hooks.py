"""The hooks in a real run: their order, what they see and can change, and how training ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recbole.trainer.trainer as host
import torch
from callbacks.toy_model import ToySeq
from recbole.model.general_recommender.bpr import BPR
from torch.nn.utils import clip_grad_norm_

from recbole_ext.callbacks.base import HOOKS, Callback
from recbole_ext.trainer.checkpoint import read_checkpoint
from recbole_ext.types import StopTraining, TrainState, UserError
from tests.trainer.training import prepare, records


class Recorder(Callback):
    """Writes down the name of every hook that is called, for two such to be told apart."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events


for hook in HOOKS:

    def note(self: Recorder, state: TrainState, hook: str = hook) -> None:
        self.events.append(f"{hook}:{self.name}")

    setattr(Recorder, hook, note)


class Do(Callback):
    """Does something at one hook."""

    def __init__(self, hook: str, action: Callable[[TrainState], None]) -> None:
        self.action = action
        self.__class__ = type("Do", (Do,), {hook: lambda self, state: self.action(state)})


@pytest.fixture
def settings(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return {**tiny_settings, "train_batch_size": 128, "epochs": 2}


# ---- order


def test_hooks_come_in_the_documented_order(settings: dict[str, Any], tmp_path: Path) -> None:
    events: list[str] = []
    recorders = [Recorder("a", events), Recorder("b", events)]
    run = prepare("SASRec", settings, tmp_path / "run", recorders)
    n_batches = len(run.train)
    assert n_batches > 1
    run.fit()
    batch = ["batch_start", "loss", "batch_end"]
    epoch = ["epoch_start", *batch * n_batches, "epoch_end", "valid_start", "valid_end"]
    expected = []
    for name in ["fit_start", *epoch * 2, "fit_end"]:
        both = "ba" if name.endswith("_end") else "ab"  # pairs nest like context managers
        expected += [f"on_{name}:{one}" for one in both]
    assert events == expected


def test_what_the_hooks_see(settings: dict[str, Any], tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    class Look(Callback):
        def on_epoch_start(self, state: TrainState) -> None:
            state.model.eval()  # RecBole switches to training after this hook

        def on_batch_start(self, state: TrainState) -> None:
            grads = [p.grad for p in state.model.parameters()]
            assert state.model.training and all(grad is None for grad in grads)
            assert len(state.batch["user_id"]) > 0

        def on_loss(self, state: TrainState) -> None:
            (loss,) = state.losses.values()
            assert list(state.losses) == ["loss"] and loss.requires_grad and loss.dim() == 0
            self.weights = [p.detach().clone() for p in state.model.parameters()]

        def on_batch_end(self, state: TrainState) -> None:
            pairs = zip(self.weights, state.model.parameters(), strict=True)
            assert any(not torch.equal(old, new) for old, new in pairs), "the step is done"
            seen.append((state.epoch, state.step, len(state.metrics)))

        def on_valid_end(self, state: TrainState) -> None:
            assert {type(value) for value in state.metrics.values()} == {float}
            assert "ndcg@10" in state.metrics

    run = prepare("SASRec", settings, tmp_path / "run", [Look()])
    run.fit()
    n_batches = len(run.train)
    steps = [(epoch, step) for epoch, step, _ in seen]
    assert steps == [(step // n_batches, step + 1) for step in range(2 * n_batches)]
    assert seen[0][2] == 0 and seen[-1][2] > 0  # the metrics of the last validation
    state = run.trainer.state
    assert (state.total_epochs, state.steps_per_epoch) == (2, n_batches)
    assert state.folder == tmp_path / "run" and state.valid_data is run.valid


# ---- losses


def test_reweighted_losses_are_what_is_trained_on(settings: dict[str, Any], tmp_path: Path) -> None:
    def weighted(name: str, weight: float) -> dict[str, torch.Tensor]:
        def act(state: TrainState) -> None:
            state.losses = {key: weight * loss for key, loss in state.losses.items()}

        sgd = {**settings, "learner": "sgd", "learning_rate": 0.5, "epochs": 1}
        start: dict[str, torch.Tensor] = {}
        run = prepare(
            "BPR",
            {**sgd, "train_batch_size": 4096},
            tmp_path / name,
            [Do("on_loss", act)],
            lambda net: start.update({k: v.clone() for k, v in net.state_dict().items()}),
        )
        run.fit()
        assert len(run.train) == 1
        return {key: value - start[key] for key, value in run.model.state_dict().items()}

    once, twice, never = weighted("one", 1.0), weighted("two", 2.0), weighted("none", 0.0)
    for name, moved in once.items():
        assert moved.abs().max() > 0 and never[name].abs().max() == 0
        torch.testing.assert_close(twice[name], 2 * moved, rtol=1e-3, atol=1e-7)


def test_an_added_loss_is_trained_on_and_logged(settings: dict[str, Any], tmp_path: Path) -> None:
    def act(state: TrainState) -> None:
        weight = state.model.item_embedding.weight
        state.losses["pull"] = 100 * (weight - 1).square().mean()

    settings = {**settings, "epochs": 5, "learning_rate": 0.1}
    run = prepare("BPR", settings, tmp_path / "run", [Do("on_loss", act)])
    run.fit()
    losses = [record["losses"] for record in records(tmp_path / "run")]
    assert [set(each) for each in losses] == [{"loss", "pull"}] * 5
    assert losses[-1]["pull"] < 0.5 * losses[0]["pull"]


class OwnLoss(ToySeq):
    """Overrides what the parent's named losses would be summed to."""

    def calculate_loss(self, interaction: Any) -> Any:
        return 2 * super().calculate_loss(interaction)


def test_a_subclass_that_writes_its_own_loss_is_trained_on_it(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    losses = {}
    for model in (ToySeq, OwnLoss):
        run = prepare(model, {**settings, "epochs": 1}, tmp_path / model.__name__)
        run.fit()
        losses[model] = records(tmp_path / model.__name__)[0]["losses"]
    assert set(losses[ToySeq]) == {"rec", "aux"} and set(losses[OwnLoss]) == {"loss"}
    assert losses[OwnLoss]["loss"] > 1.5 * sum(losses[ToySeq].values())


class TwoLosses(BPR):
    """A model whose loss is a tuple, as RecBole's models with parts give it."""

    def calculate_loss(self, interaction: Any) -> tuple[torch.Tensor, torch.Tensor]:
        loss = super().calculate_loss(interaction)
        return loss, 0.25 * loss


def test_the_parts_of_a_tuple_are_logged_by_number(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = prepare(TwoLosses, {**settings, "embedding_size": 8}, tmp_path / "run")
    run.fit()
    for record in records(tmp_path / "run"):
        assert list(record["losses"]) == ["loss1", "loss2"]
        assert record["losses"]["loss2"] == pytest.approx(0.25 * record["losses"]["loss1"])


def test_logged_losses_are_means_over_the_batches(settings: dict[str, Any], tmp_path: Path) -> None:
    seen: list[float] = []
    look = Do("on_loss", lambda state: seen.append(state.losses["loss"].item()))
    run = prepare("SASRec", {**settings, "epochs": 1}, tmp_path / "run", [look])
    run.fit()
    (record,) = records(tmp_path / "run")
    assert record["losses"]["loss"] == pytest.approx(sum(seen) / len(seen), rel=1e-6)


def test_nothing_left_to_train_is_said(settings: dict[str, Any], tmp_path: Path) -> None:
    run = prepare("BPR", settings, tmp_path / "run", (), lambda net: net.requires_grad_(False))
    with pytest.raises(UserError, match="nothing is left to train"):
        run.fit()


# ---- how training ends


def test_a_callback_may_stop_training(settings: dict[str, Any], tmp_path: Path) -> None:
    def stop(state: TrainState) -> None:
        if state.epoch == 1:
            raise StopTraining("enough")

    events: list[str] = []
    hooks = [Do("on_epoch_end", stop), Recorder("a", events)]
    run = prepare("SASRec", {**settings, "epochs": 4}, tmp_path / "run", hooks)
    score, result = run.fit()
    assert [record["epoch"] for record in records(tmp_path / "run")] == [0]
    assert events[-1] == "on_fit_end:a" and events.count("on_fit_end:a") == 1
    assert result is not None and score == result["ndcg@10"]
    assert read_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == 0


def test_a_reason_to_stop_ends_training_after_the_epoch(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    def stop(state: TrainState) -> None:
        state.stop = "enough" if state.epoch == 1 else None

    run = prepare("SASRec", {**settings, "epochs": 4}, tmp_path / "run", [Do("on_valid_end", stop)])
    run.fit()
    assert [record["epoch"] for record in records(tmp_path / "run")] == [0, 1]
    assert read_checkpoint(tmp_path / "run" / "last.pt")["epoch"] == 1
    # whoever resumes it finds it at its end
    hooks = [Do("on_valid_end", stop)]
    again = prepare("SASRec", {**settings, "epochs": 4}, tmp_path / "run", hooks)
    again.trainer.resume_from(tmp_path / "run" / "last.pt")
    again.fit()
    assert [record["epoch"] for record in records(tmp_path / "run")] == [0, 1]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_passes_through_and_the_end_is_still_called(
    error: type[BaseException], settings: dict[str, Any], tmp_path: Path
) -> None:
    def fail(state: TrainState) -> None:
        if state.epoch == 1:
            raise error

    events: list[str] = []
    hooks = [Recorder("a", events), Do("on_batch_end", fail)]
    run = prepare("SASRec", settings, tmp_path / "run", hooks)
    with pytest.raises(error):
        run.fit()
    assert events[-1] == "on_fit_end:a"
    assert read_checkpoint(tmp_path / "run" / "last.pt")["epoch"] == 0
    assert (tmp_path / "run" / "curves.png").is_file()


def test_a_loss_that_is_no_number_says_where_and_what_to_do(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    def act(state: TrainState) -> None:
        if state.epoch == 1:
            state.losses["loss"] = state.losses["loss"] * math.nan

    run = prepare("SASRec", settings, tmp_path / "run", [Do("on_loss", act)])
    n_batches = len(run.train)
    with pytest.raises(UserError, match=f"not a number in epoch 1, step {n_batches}; lower learn"):
        run.fit()
    assert read_checkpoint(tmp_path / "run" / "last.pt")["epoch"] == 0


def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every validation be worse than the one before."""
    values = iter(range(100, 0, -1))
    monkeypatch.setattr(host.Trainer, "evaluate", lambda *_, **__: {"ndcg@10": float(next(values))})


@pytest.mark.parametrize("hook", ["on_epoch_start", "on_batch_end"])
@pytest.mark.parametrize(("change", "epochs"), [(None, 3), (2, 4), (1, 3)])
def test_a_new_phase_has_its_patience_whole(
    hook: str,
    change: int | None,
    epochs: int,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Patience 1: worse epochs 1 and 2 end it; a change of phase in 2 gives one more."""
    falling(monkeypatch)

    def act(state: TrainState) -> None:
        state.phase = "two" if change is not None and state.epoch >= change else "one"

    settings = {**settings, "epochs": 9, "stopping_step": 1}
    run = prepare("BPR", settings, tmp_path / "run", [Do(hook, act)])
    run.fit()
    assert len(records(tmp_path / "run")) == epochs


# ---- the optimizer's step


class Scaler:
    """A gradient scaler that scales by 1000 and, as a real one after an overflow, may skip."""

    skips: tuple[int, ...] = ()

    def __init__(self, enabled: bool = True) -> None:
        self.calls = 0

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return 1000 * loss

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self.calls += 1
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= 1000
        if self.calls not in self.skips:
            optimizer.step()

    def update(self) -> None:
        pass


def test_a_skipped_step_is_not_counted(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.amp, "GradScaler", type("Skipping", (Scaler,), {"skips": (2,)}))
    ends: list[int] = []
    hooks = [Do("on_batch_end", lambda state: ends.append(state.step))]
    run = prepare("SASRec", {**settings, "train_batch_size": 64}, tmp_path / "run", hooks)
    n_batches = len(run.train)
    assert n_batches > 2
    run.fit()
    assert ends == list(range(1, 2 * (n_batches - 1) + 1))
    assert read_checkpoint(tmp_path / "run" / "last.pt")["step"] == 2 * (n_batches - 1)


def test_gradients_are_clipped_after_they_are_unscaled(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RecBole clips the scaled gradients: what is left after unscaling is 1000 times too small."""

    def norms(name: str, scaled: bool) -> list[float]:
        found: list[float] = []

        def look(state: TrainState) -> None:
            grads = [p.grad for p in state.model.parameters() if p.grad is not None]
            found.append(float(torch.cat([grad.flatten() for grad in grads]).norm()))

        more = {"clip_grad_norm": {"max_norm": 0.01}, "epochs": 1}
        run = prepare("SASRec", {**settings, **more}, tmp_path / name, [Do("on_batch_end", look)])
        with monkeypatch.context() as patch:
            if scaled:
                patch.setattr(host.amp, "GradScaler", Scaler)
                run.trainer.enable_scaler = True
            run.fit()
        assert run.trainer.clip_grad_norm == {"max_norm": 0.01}
        return found

    plain = norms("plain", scaled=False)
    assert plain == pytest.approx([0.01] * len(plain), rel=1e-3)
    assert norms("scaled", scaled=True) == pytest.approx(plain, rel=1e-3)
    assert clip_grad_norm_ is host.clip_grad_norm_
