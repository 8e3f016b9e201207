"""RecBole's trainers with hooks, exact resume and a run folder; no loop of theirs is copied.

``BatchHooks`` stands between RecBole's Trainer and its special trainers, so that their
``super()._train_epoch`` passes through it; ``RunHooks`` stands in front of them all.
``build_trainer`` composes the class: for RecBole's KGTrainer, ``RunHooks -> KGTrainer -> BatchHooks
-> Trainer``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import recbole.trainer.trainer as host
import torch
from recbole.trainer import Trainer
from torch.utils.tensorboard import SummaryWriter

from recbole_ext.callbacks.base import CallbackList
from recbole_ext.registry import get_trainer
from recbole_ext.settings_values import metric_names
from recbole_ext.trainer import checkpoint, plan
from recbole_ext.trainer.batch_hooks import BatchHooks, named_losses
from recbole_ext.trainer.eval_hooks import EvalHooks
from recbole_ext.trainer.fast_step import for_step_of
from recbole_ext.trainer.loose_state import LooseState
from recbole_ext.trainer.processes import of_first
from recbole_ext.trainer.run_log import RunLog
from recbole_ext.types import StopTraining, TrainState, UserError


class RunHooks(EvalHooks):
    """The hooks around epochs, validation and the fit; checkpoints, resume, the run folder.

    Args:
        config: Config.
        model: The model, on its device.
        folder: Run folder, which exists.
        callbacks: Callbacks in order.
        vocabulary: Hashes of the user and item tokens, for the checkpoints.
    """

    def __init__(
        self,
        config: Any,
        model: Any,
        folder: Path,
        callbacks: CallbackList,
        vocabulary: dict[str, str],
    ) -> None:
        with _tensorboard_in(folder):
            super().__init__(config, model, vocabulary)
        self.folder = folder
        self.saved_model_file = str(folder / "best.pt")
        self.callbacks = callbacks
        self.run_log = RunLog(folder)
        self._resumed: dict[str, Any] | None = None
        # name -> sum over batches (a tensor, so that nothing waits for the device), batches
        self._loss_sums: dict[str, tuple[Any, int]] = {}
        self._record: dict[str, Any] = {}
        self._in_pretrain = False
        self.state = TrainState(
            model=model,
            optimizer=self.optimizer,
            total_epochs=self.epochs,
            steps_per_epoch=0,
            folder=folder,
            metric_names=tuple(
                name.lower() for name in metric_names(config["metrics"], config["topk"])
            ),
            log=self._log_scalar,
            save=self._save_snapshot,
        )
        self._phase: str | None = None

    # ---- fit

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable | None = None,
    ) -> tuple[float, dict | None]:
        """Train as RecBole does, with the hooks; see RecBole's ``Trainer.fit``."""
        state = self.state
        self._validates = bool(valid_data) and self.eval_step > 0
        state.train_data, state.valid_data = train_data, valid_data if self._validates else None
        state.steps_per_epoch = len(getattr(train_data, "general_dataloader", train_data))
        state.steps_of_epoch = partial(plan.steps_of_epoch, self, train_data)
        state.total_epochs, state.n_optimizers = self._last_epoch(), len(self._optimizers())
        state.epochs_to_all_losses = plan.epochs_to_all_losses(self)
        plan.check_hooks(self, self.callbacks)
        if "Progress" in self.callbacks.having("on_batch_end"):
            show_progress = False  # one bar is enough

        def after_valid(epoch: int, score: float) -> None:
            if callback_fn:
                callback_fn(epoch, score)
            self._close_epoch(epoch)

        self._loose = LooseState(self.model)
        try:
            self.callbacks.run("on_fit_start", state)
            if self._resumed is not None:
                self._restore(self._resumed)
            else:
                self.run_log.rewind(-1)  # records of a run that was killed before its first last.pt
            if not self._is_finished():
                super().fit(train_data, valid_data, verbose, saved, show_progress, after_valid)
            else:  # what RecBole's fit does for metrics beyond accuracy
                self.eval_collector.data_collect(train_data)
        except StopTraining as stop:
            self.logger.info("training stopped: %s", stop)
        except BaseException:
            with suppress(Exception):  # a full disk, say: what went wrong first is what is told
                self._end_fit()
            raise
        self._end_fit()
        best = self.folder / "best.pt"
        # a pre-training stage writes where RecBole looks for it, or nothing
        if self.config["local_rank"] == 0 and not best.exists():
            checkpoint.write_checkpoint(best, self._payload(state.epoch))
        self.saved_model_file = str(best)
        return self.best_valid_score, self.best_valid_result

    def _end_fit(self) -> None:
        self.callbacks.run("on_fit_end", self.state)
        self.run_log.draw(self.valid_metric)
        self.tensorboard.flush()

    def pretrain(self, train_data: Any, verbose: bool = True, show_progress: bool = False) -> Any:
        """Run the pre-training stage of S3Rec or RaCT, whose epochs have no validation."""
        self._in_pretrain = True
        return super().pretrain(train_data, verbose, show_progress)

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Write the pre-trained weights where RecBole's fine-tuning stage looks for them."""
        checkpoint.write_checkpoint(Path(saved_model_file), self._payload(epoch))
        self.saved_model_file = saved_model_file

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: Callable | None = None,
        show_progress: bool = False,
    ) -> Any:
        state = self.state
        state.epoch, self._loss_sums = epoch_idx, {}
        self.callbacks.run("on_epoch_start", state)
        self._begin_patience()
        began = time.perf_counter()
        total = super()._train_epoch(
            train_data, epoch_idx, loss_func=loss_func, show_progress=show_progress
        )
        losses = self._mean_losses(total)
        self._record = {
            "epoch": epoch_idx,
            "losses": losses,
            "train_seconds": time.perf_counter() - began,
            "valid_seconds": None,
            "valid": None,
        }
        for name, value in losses.items():
            self.tensorboard.add_scalar(f"Loss/{name}", value, epoch_idx)
        self.wandblogger.log_metrics({"epoch": epoch_idx, **losses}, head="loss")
        self.callbacks.run("on_epoch_end", state)
        self._agree_on_stop()
        if self._in_pretrain or (self._validates and (epoch_idx + 1) % self.eval_step != 0):
            self._close_epoch(epoch_idx)
        return total

    def _begin_patience(self) -> None:
        """Begin RecBole's early stopping anew where the phase is another, within an epoch too."""
        if self.state.phase != self._phase:
            self.cur_step, self._phase = 0, self.state.phase

    def _mean_losses(self, total: Any) -> dict[str, float]:
        """Return the mean of each named loss over the epoch's batches."""
        if self._loss_sums:
            return {name: float(value) / count for name, (value, count) in self._loss_sums.items()}
        values = total if isinstance(total, tuple) else (total,)
        n_batches = max(self.state.steps_per_epoch, 1)
        return {
            name: value / n_batches
            for name, value in named_losses(
                values if len(values) > 1 else values[0], "loss"
            ).items()
        }

    def _valid_epoch(
        self, valid_data: Any, show_progress: bool = False
    ) -> tuple[float, dict[str, float]]:
        began = time.perf_counter()
        self._begin_patience()
        self.callbacks.run("on_valid_start", self.state)
        score, result = super()._valid_epoch(valid_data, show_progress=show_progress)
        self.state.metrics = result
        self.callbacks.run("on_valid_end", self.state)
        self._agree_on_stop()
        self._record.update(valid_seconds=time.perf_counter() - began, valid=dict(result))
        return float(score), result

    def _agree_on_stop(self) -> None:
        """Let all processes stop or none: where one alone goes on, it waits for ever."""
        if not self.config["single_spec"]:
            self.state.stop = of_first(self.state.stop)

    def _close_epoch(self, epoch: int) -> None:
        """Make the epoch durable: its record, then ``last.pt``, which says that it is done."""
        state = self.state
        if self.config["local_rank"] == 0:
            self.run_log.write(self._record)
            checkpoint.write_checkpoint(self.folder / "last.pt", self._resumable(epoch))
        if state.stop:
            raise StopTraining(state.stop)

    def _resumable(self, epoch: int) -> dict[str, Any]:
        state = self.state
        payload = self._payload(epoch)
        payload.update(
            loose=self._loose.changed(),
            optimizers={name: value.state_dict() for name, value in self._optimizers().items()},
            callbacks=self.callbacks.state_dict(),
            rng=checkpoint.rng_state(),
            loaders={name: g.get_state() for name, g in self._generators().items()},
            early_stopping={
                "cur_step": self.cur_step,
                "best_valid_score": float(self.best_valid_score),
                "best_valid_result": self.best_valid_result,
                "stop": state.stop,
            },
            phase=state.phase,
            patience_phase=self._phase,
            metrics=state.metrics,
        )
        return payload

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return every optimizer once, by attribute.

        RecVAE's trainer has three, and ``optimizer`` is another name of the one in use.
        """
        found: dict[int, str] = {}
        for name, value in vars(self).items():
            if isinstance(value, torch.optim.Optimizer):
                found[id(value)] = name  # ``optimizer`` comes first, its other name later
        return {name: getattr(self, name) for name in found.values()}

    # ---- checkpoints

    def resume_from(self, path: Path) -> None:
        """Take the weights of a ``last.pt``; :meth:`fit` will continue from there.

        Raises:
            UserError: The file is damaged, or of another model, vocabulary or size.
        """
        payload = checkpoint.read_checkpoint(path)
        checkpoint.check_identity(payload, path, self.config["model"], self.vocabulary)
        checkpoint.load_weights(self.model, payload, path)
        self._resumed = payload

    def _restore(self, payload: dict[str, Any]) -> None:
        """Put back what :meth:`_resumable` gave; after ``on_fit_start``, which may have drawn."""
        self._resumed = None
        checkpoint.load_weights(self.model, payload, self.folder / "last.pt")
        self._loose.restore(payload["loose"])
        for name, saved in payload["optimizers"].items():
            optimizer = getattr(self, name)
            optimizer.load_state_dict(for_step_of(optimizer, saved))
        self.callbacks.load_state_dict(payload["callbacks"])
        stopping = payload["early_stopping"]
        self.cur_step, self.best_valid_score = stopping["cur_step"], stopping["best_valid_score"]
        self.best_valid_result, self.state.stop = stopping["best_valid_result"], stopping["stop"]
        self.start_epoch = payload["epoch"] + 1
        self.state.epoch, self.state.step = payload["epoch"], payload["step"]
        self.state.phase, self.state.metrics = payload["phase"], payload["metrics"]
        self._phase = payload["patience_phase"]
        self.run_log.rewind(payload["epoch"])
        for name, generator in self._generators().items():
            generator.set_state(payload["loaders"][name].cpu())
        checkpoint.set_rng_state(payload["rng"])  # last: nothing may draw after it
        self.logger.info("resumed after epoch %d, step %d", payload["epoch"], payload["step"])

    def _is_finished(self) -> bool:
        # RecBole would overwrite the best checkpoint when no epoch is left
        return (
            self.start_epoch >= self._last_epoch()
            or self.cur_step > self.stopping_step
            or bool(self.state.stop)
        )

    def _last_epoch(self) -> int:
        pretraining = str(getattr(self.model, "train_stage", "")).endswith("pretrain")
        return getattr(self, "pretrain_epochs", None) or self.epochs if pretraining else self.epochs

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        if self.config["local_rank"] == 0:
            checkpoint.write_checkpoint(
                Path(kwargs.get("saved_model_file", self.saved_model_file)), self._payload(epoch)
            )
        if not self._validates and self._record.get("epoch") == epoch:
            self._close_epoch(epoch)  # in every process: it may end the training

    def _save_snapshot(self, path: Path) -> None:
        if self.config["local_rank"] == 0:
            checkpoint.write_checkpoint(path, self._payload(self.state.epoch))

    def _payload(self, epoch: int) -> dict[str, Any]:
        return {
            "model": self.config["model"],
            "dataset": self.config["dataset"],
            "vocabulary": self.vocabulary,
            "epoch": epoch,
            "step": self.state.step,
            "settings": self.config.resolved,
            "state_dict": self.model.state_dict(),
            "other_parameter": checkpoint.other_parameters(self.model),
        }

    def _generators(self) -> dict[str, torch.Generator]:
        return checkpoint.loader_generators(self.state.train_data)

    # ---- what is shown

    def _generate_train_loss_output(
        self, epoch_idx: int, s_time: float, e_time: float, losses: Any
    ) -> str:
        shown = ", ".join(f"{name}: {value:.4f}" for name, value in self._record["losses"].items())
        return f"epoch {epoch_idx} training [time: {e_time - s_time:.2f}s, {shown}]"

    def _log_scalar(self, name: str, value: float, step: int) -> None:
        if self.config["local_rank"] == 0:
            self.tensorboard.add_scalar(name, value, step)
            self.wandblogger.log_metrics({name: value, "step": step}, head="callback")


def build_trainer(
    config: Any, model: Any, folder: Path, callbacks: CallbackList, vocabulary: dict[str, str]
) -> Any:
    """Compose RecBole's trainer class for the model with the hooks, and build it.

    Raises:
        UserError: The model trains outside torch (XGBoost, LightGBM) and callbacks are configured.
    """
    base = get_trainer(config["MODEL_TYPE"], config["model"])
    if not issubclass(base, Trainer):
        if callbacks.callbacks:
            raise UserError(
                f"{config['model']} is trained by its own library, which has no hooks; "
                "remove callbacks"
            )
        with _tensorboard_in(folder):
            return base(config, model)
    bases = (RunHooks, BatchHooks) if base is Trainer else (RunHooks, base, BatchHooks)
    return type(f"Hooked{base.__name__}", bases, {})(config, model, folder, callbacks, vocabulary)


@contextmanager
def _tensorboard_in(folder: Path) -> Iterator[None]:
    """Let RecBole's trainer write TensorBoard files into the run folder, not into ``log_*``."""
    original = host.get_tensorboard
    host.get_tensorboard = lambda logger: SummaryWriter(str(folder / "tensorboard"))
    try:
        yield
    finally:
        host.get_tensorboard = original
