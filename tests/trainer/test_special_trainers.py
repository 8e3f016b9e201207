"""RecBole's special trainers: hooks reach their batches, and what they keep is resumed exactly."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest
import recbole.trainer
import torch
from recbole.trainer import Trainer

from recbole_ext.callbacks.alternate import Alternate
from recbole_ext.callbacks.base import Callback, CallbackList
from recbole_ext.callbacks.checkpoint import Checkpoint
from recbole_ext.callbacks.log_losses import LogLosses
from recbole_ext.callbacks.loss_curriculum import LossCurriculum
from recbole_ext.callbacks.lr_schedule import LrSchedule
from recbole_ext.callbacks.uncertainty_weights import UncertaintyWeights
from recbole_ext.trainer.batch_hooks import BatchHooks
from recbole_ext.trainer.checkpoint import read_checkpoint
from recbole_ext.trainer.hooked_trainer import RunHooks, build_trainer
from recbole_ext.trainer.plan import OWN_LOOPS
from recbole_ext.types import TrainState, UserError
from tests.trainer.training import prepare, records, write_knowledge

TRAINERS = [
    cls
    for _, cls in inspect.getmembers(recbole.trainer, inspect.isclass)
    if issubclass(cls, Trainer) and cls is not Trainer
]
KNOWLEDGE = {
    "load_col": {
        "inter": ["user_id", "item_id", "timestamp"],
        "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
    }
}
FEATURES = {
    "load_col": {
        "inter": ["user_id", "item_id", "timestamp"],
        "item": ["item_id", "class", "release_year"],
    },
    "selected_features": ["class", "release_year"],
    "pooling_mode": "sum",
}
MODELS: dict[str, dict[str, Any]] = {
    "SASRec": {},
    "KGCN": {**KNOWLEDGE, "embedding_size": 8, "neighbor_sample_size": 2},
    "MKR": {**KNOWLEDGE, "embedding_size": 8, "kg_embedding_size": 8},
    "CKE": {**KNOWLEDGE, "embedding_size": 8, "kg_embedding_size": 8},
    "RippleNet": {**KNOWLEDGE, "embedding_size": 8, "n_memory": 4},
    "KGAT": {**KNOWLEDGE, "embedding_size": 8, "kg_embedding_size": 8, "layers": [8]},
    "RecVAE": {"hidden_dimension": 8, "latent_dimension": 4},
    "LightGCN": {"embedding_size": 8},
    "MultiVAE": {"mlp_hidden_size": [16], "latent_dimension": 8},
    "MacridVAE": {"encoder_hidden_size": [16], "embedding_size": 8, "kfac": 2},
    "LINE": {"embedding_size": 8},
    "DiffRec": {"dims_dnn": [16], "embedding_size": 4, "steps": 2, "history_num_per_term": 2},
    "LDiffRec": {"n_cate": 1},
    "SASRecF": {**FEATURES, "hidden_size": 8, "inner_size": 8, "n_layers": 1},
    "Pop": {},
    "ItemKNN": {},
}
"""A model of each special trainer, and those that keep something beside their weights."""


class Kill(Callback):
    """Ends the process at the start of an epoch."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.kill_at = kill_at
        self.epochs = 0

    def on_epoch_start(self, state: TrainState) -> None:
        self.epochs += 1
        if state.epoch == self.kill_at:
            raise KeyboardInterrupt


class Count(Kill):
    """Counts the calls of the batch hooks."""

    def __init__(self, kill_at: int | None = None) -> None:
        super().__init__(kill_at)
        self.batches = self.steps = 0

    def on_batch_start(self, state: TrainState) -> None:
        self.batches += 1

    def on_batch_end(self, state: TrainState) -> None:
        self.steps += 1


@pytest.fixture
def settings(tiny_settings: dict[str, Any], tiny_data_path: Path, tmp_path: Path) -> dict[str, Any]:
    shutil.copytree(tiny_data_path / "tiny", tmp_path / "data" / "tiny")
    write_knowledge(tmp_path / "data")
    more = {"metrics": ["NDCG"], "train_batch_size": 200, "data_path": str(tmp_path / "data")}
    return {**tiny_settings, **more}


@pytest.mark.parametrize("base", TRAINERS, ids=lambda cls: cls.__name__)
def test_hooks_stand_around_every_trainer_and_inside_it(base: type) -> None:
    order = type("Hooked", (RunHooks, base, BatchHooks), {}).__mro__
    assert order.index(RunHooks) < order.index(base) < order.index(BatchHooks)
    assert order.index(BatchHooks) + 1 == order.index(Trainer)


def test_there_are_special_trainers() -> None:
    names = {"KGTrainer", "MKRTrainer", "RecVAETrainer", "S3RecTrainer", "TraditionalTrainer"}
    assert names <= {cls.__name__ for cls in TRAINERS}


@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_was_cut_off_ends_as_the_whole_one(
    model: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**settings, **MODELS[model], "epochs": 3, "stopping_step": 10}
    whole = prepare(model, settings, tmp_path / "whole", [counted := Count()])
    whole.fit()
    assert counted.steps == counted.batches == whole.trainer.state.step
    assert counted.steps > 0 or model in ("Pop", "ItemKNN")
    traditional = whole.trainer.epochs == 1
    cut = prepare(model, settings, tmp_path / "cut", [Count(None if traditional else 1)])
    if traditional:
        cut.fit()
    else:
        with pytest.raises(KeyboardInterrupt):
            cut.fit()
    assert_ends_alike(whole, prepare(model, settings, tmp_path / "cut", [Count()]), tmp_path)


def test_a_resumed_ncl_has_its_cluster_centres(settings: dict[str, Any], tmp_path: Path) -> None:
    """Its loop has no batch hooks, and it clusters anew only every third epoch."""
    pytest.importorskip("faiss")
    more = {"embedding_size": 8, "n_layers": 1, "num_clusters": 4, "m_step": 3, "warm_up_step": 1}
    settings = {**settings, **more, "epochs": 5, "stopping_step": 10}
    whole = prepare("NCL", settings, tmp_path / "whole", [Kill()])
    whole.fit()
    cut = prepare("NCL", settings, tmp_path / "cut", [Kill(4)])
    with pytest.raises(KeyboardInterrupt):
        cut.fit()
    assert_ends_alike(whole, prepare("NCL", settings, tmp_path / "cut", [Kill()]), tmp_path)


def assert_ends_alike(whole: Any, again: Any, tmp_path: Path) -> None:
    """Resume the run in ``cut`` and compare it with ``whole``, bit by bit."""
    again.trainer.resume_from(tmp_path / "cut" / "last.pt")
    again.fit()
    for name in ("best.pt", "last.pt"):
        ours, theirs = (read_checkpoint(tmp_path / run / name) for run in ("cut", "whole"))
        assert (ours["epoch"], ours["step"]) == (theirs["epoch"], theirs["step"])
        assert ours["state_dict"].keys() == theirs["state_dict"].keys()
        for key, value in theirs["state_dict"].items():
            assert torch.equal(ours["state_dict"][key], value), (name, key)
    lines = [
        [{k: v for k, v in line.items() if "seconds" not in k} for line in records(tmp_path / run)]
        for run in ("cut", "whole")
    ]
    assert lines[0] == lines[1] and len(lines[0]) == whole.trainer.epochs
    tested = again.trainer.evaluate(again.test)
    assert tested == whole.trainer.evaluate(whole.test)


def test_the_two_tasks_of_a_knowledge_model_are_named(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = prepare("MKR", {**settings, **MODELS["MKR"], "epochs": 1}, tmp_path / "run")
    run.fit()
    (record,) = records(tmp_path / "run")
    assert set(record["losses"]) == {"rs_loss", "kg_loss"}


def test_a_loop_of_its_own_has_no_batch_hooks_and_says_so(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """NCL's trainer copies RecBole's loop."""
    settings = {**settings, "embedding_size": 8, "num_clusters": 3, "n_layers": 2, "epochs": 1}
    run = prepare("NCL", settings, tmp_path / "plain")
    run.fit()
    assert len(records(tmp_path / "plain")) == 1
    assert run.trainer.evaluate(run.test)
    hooked = prepare("NCL", settings, tmp_path / "hooked", [count := Count()])
    with pytest.raises(UserError, match="NCLTrainer has a training loop of its own.* remove Count"):
        hooked.fit()
    assert count.epochs == 0, "it is refused before the first epoch"
    prepare("NCL", settings, tmp_path / "epochs", [Checkpoint()]).fit()
    assert (tmp_path / "epochs" / "epoch-0.pt").is_file()


@pytest.mark.parametrize("base", TRAINERS, ids=lambda cls: cls.__name__)
def test_the_trainers_with_a_loop_of_their_own_are_those_we_know(base: type) -> None:
    """The others come to our hooks by ``super()``."""
    source = inspect.getsource(base._train_epoch)  # type: ignore[attr-defined]
    is_own = base._train_epoch is not Trainer._train_epoch and "super()._train_epoch" not in source  # type: ignore[attr-defined]
    assert issubclass(base, OWN_LOOPS) == is_own


def test_a_pre_training_stage_has_its_records_and_its_weights(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {
        **settings,
        **{key: FEATURES[key] for key in ("load_col",)},
        **{"hidden_size": 8, "inner_size": 8, "n_layers": 1, "item_attribute": "class"},
        **{"train_stage": "pretrain", "pretrain_epochs": 2, "save_step": 2, "epochs": 5},
    }
    hooks = [LrSchedule("linear"), counted := Count(), seen := Rates()]
    run = prepare("S3Rec", settings, tmp_path / "pre", hooks)
    assert run.trainer.epochs != 2
    run.fit()
    total = len(seen.rates)
    rate = run.config["learning_rate"]
    assert seen.rates == pytest.approx([rate * (1 - step / total) for step in range(total)])
    assert counted.steps == run.trainer.state.step == 2 * len(run.train)
    assert [line["valid"] for line in records(tmp_path / "pre")] == [None, None]
    kept = tmp_path / "pre" / "S3Rec-tiny-2.pth"
    assert read_checkpoint(kept)["model"] == "S3Rec"
    assert read_checkpoint(tmp_path / "pre" / "best.pt")["model"] == "S3Rec"
    fine = {**settings, "train_stage": "finetune", "pre_model_path": str(kept), "epochs": 1}
    tuned = prepare("S3Rec", fine, tmp_path / "fine")
    start = tuned.model.item_embedding.weight.detach().clone()
    assert torch.equal(start, read_checkpoint(kept)["state_dict"]["item_embedding.weight"])
    tuned.fit()
    assert records(tmp_path / "fine")[0]["valid"]


# ---- clocks


class Rates(Callback):
    """Notes the rate and the optimizer of each step, and whose parameters moved with it."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.optimizers: list[Any] = []

    def on_batch_end(self, state: TrainState) -> None:
        self.rates.append(state.optimizer.param_groups[0]["lr"])
        self.optimizers.append(state.optimizer)


KGAT = {**KNOWLEDGE, "embedding_size": 8, "kg_embedding_size": 8}
KTUP = {**KNOWLEDGE, "embedding_size": 8, "train_rec_step": 2, "train_kg_step": 1}
CLOCKS: dict[str, tuple[str, dict[str, Any]]] = {
    "two optimizers by turns": ("RecVAE", {**MODELS["RecVAE"], "n_enc_epochs": 2}),
    "two tasks an epoch": ("KGAT", KGAT),
    "two tasks every other epoch": ("MKR", {**MODELS["MKR"], "kge_interval": 2}),
    "epochs of one task": ("KTUP", KTUP),
    "two tasks in one batch": ("CKE", MODELS["CKE"]),
}


@pytest.mark.parametrize("case", CLOCKS)
def test_a_schedule_ends_with_the_last_step(
    case: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    model, more = CLOCKS[case]
    settings = {**settings, **more, "epochs": 4, "stopping_step": 10, "learning_rate": 0.01}
    hooks = [LrSchedule("linear"), seen := Rates()]
    run = prepare(model, settings, tmp_path / "run", hooks)
    run.fit()
    total = len(seen.rates)
    assert total == run.trainer.state.step and total > 4
    assert seen.rates == pytest.approx([0.01 * (1 - step / total) for step in range(total)])
    moved = {id(one) for one in seen.optimizers}
    halves = ("optimizer_encoder", "optimizer_decoder") if model == "RecVAE" else ("optimizer",)
    assert moved == {id(getattr(run.trainer, name)) for name in halves}


def test_a_resumed_schedule_of_two_optimizers_goes_on(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**settings, **MODELS["RecVAE"], "epochs": 3, "stopping_step": 10}
    prepare("RecVAE", settings, tmp_path / "whole", [LrSchedule(), whole := Rates()]).fit()
    cut = prepare("RecVAE", settings, tmp_path / "cut", [LrSchedule(), Rates(), Count(kill_at=1)])
    with pytest.raises(KeyboardInterrupt):
        cut.fit()
    hooks = [LrSchedule(), again := Rates(), Count()]
    resumed = prepare("RecVAE", settings, tmp_path / "cut", hooks)
    resumed.trainer.resume_from(tmp_path / "cut" / "last.pt")
    resumed.fit()
    assert again.rates == whole.rates[-len(again.rates) :] and len(set(again.rates)) > 1


def test_weights_in_one_of_several_optimizers_are_refused(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    hooks = [UncertaintyWeights(["loss"])]
    run = prepare("RecVAE", {**settings, **MODELS["RecVAE"]}, tmp_path / "run", hooks)
    with pytest.raises(UserError, match="the trainer of RecVAE has 3 optimizers.*; remove Unc"):
        run.fit()
    assert run.trainer.state.step == 0


# ---- two tasks


def mkr(settings: dict[str, Any], folder: Path, *callbacks: Callback, **more: Any) -> Any:
    settings = {**settings, **MODELS["MKR"], "kge_interval": 1, "epochs": 2, **more}
    return prepare("MKR", settings, folder, callbacks)


def test_the_mean_of_a_loss_is_over_the_batches_that_have_it(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = mkr(settings, tmp_path / "run", LogLosses(every=1000), epochs=1)
    logged: dict[str, float] = {}
    run.trainer.state.log = lambda name, value, step: logged.update({name: value})
    run.fit()
    (record,) = records(tmp_path / "run")
    assert logged == {f"loss/{name}": pytest.approx(v) for name, v in record["losses"].items()}
    assert len(logged) == 2


@pytest.mark.parametrize("name", ["rs_loss", "kg_loss"])
def test_a_loss_of_one_task_is_weighed_in_its_batches(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    mkr(settings, tmp_path / "run", LossCurriculum({name: 0.0})).fit()
    for record in records(tmp_path / "run"):
        assert [loss for loss, value in record["losses"].items() if value == 0] == [name]


def test_uncertainty_weights_are_learned_each_in_its_batches(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    weights = UncertaintyWeights(["loss", "kg_loss"])
    settings = {**settings, **KGAT}
    prepare("KGAT", settings, tmp_path / "run", [weights]).fit()
    assert all(s.item() != 0 for s in weights.log_variances.values())


@pytest.mark.parametrize("name", ["loss", "kg_loss"])
def test_a_task_that_is_put_aside_moves_nothing(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """A batch of it is gone over, and neither Adam's momentum nor weight decay acts in it."""
    seen: list[tuple[bool, bool]] = []

    class Look(Callback):
        def on_batch_start(self, state: TrainState) -> None:
            self.before = [p.detach().clone() for p in state.model.parameters()]

        def on_batch_end(self, state: TrainState) -> None:
            pairs = zip(self.before, state.model.parameters(), strict=True)
            seen.append((name in state.losses, any(not torch.equal(a, b) for a, b in pairs)))

    phases = [{"name": "both", "epochs": 1}, {"name": "one", "losses": [name]}]
    weights = UncertaintyWeights(["loss", "kg_loss"])
    hooks = [Alternate(phases), weights, Look()]
    settings = {**settings, **KGAT, "weight_decay": 0.1, "clip_grad_norm": {"max_norm": 5}}
    prepare("KGAT", settings, tmp_path / "run", hooks).fit()
    half = len(seen) // 2
    assert all(moved for _, moved in seen[:half])
    assert all(moved == counts for counts, moved in seen[half:])
    assert {counts for counts, _ in seen[half:]} == {True, False}


@pytest.mark.parametrize(
    "callback",
    [
        LossCurriculum({"kg_los": 1.0}),
        UncertaintyWeights(["kg_los"]),
        Alternate([{"name": "one", "losses": ["kg_los"]}]),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_a_name_of_neither_task_is_refused_after_the_first_epoch(
    callback: Callback, settings: dict[str, Any], tmp_path: Path
) -> None:
    run = mkr(settings, tmp_path / "run", callback)
    message = "no loss 'kg_los'; did you mean 'kg_loss'.*it has rs_loss, kg_loss"
    with pytest.raises(UserError, match=message):
        run.fit()
    assert run.trainer.state.epoch == 0 and not (tmp_path / "run" / "last.pt").exists()


def test_a_loss_that_comes_epochs_later_is_known(settings: dict[str, Any], tmp_path: Path) -> None:
    """KTUP trains on interactions for two epochs, then one on the knowledge graph."""
    settings = {**settings, **KTUP, "epochs": 3, "stopping_step": 10}
    prepare("KTUP", settings, tmp_path / "run", [LossCurriculum({"kg_loss1": 0.0})]).fit()
    losses = [record["losses"] for record in records(tmp_path / "run")]
    assert ["kg_loss1" in one for one in losses] == [False, False, True]
    assert losses[2]["kg_loss1"] == 0
    wrong = prepare("KTUP", settings, tmp_path / "wrong", [LossCurriculum({"kg_los": 0.0})])
    with pytest.raises(UserError, match="no loss 'kg_los'; did you mean 'kg_loss2' or 'kg_loss1'"):
        wrong.fit()
    assert wrong.trainer.state.epoch == 2


def test_a_library_that_trains_by_itself_takes_no_callbacks(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole_ext.trainer import hooked_trainer

    monkeypatch.setattr(hooked_trainer, "get_trainer", lambda *_: recbole.trainer.XGBoostTrainer)
    config = {"MODEL_TYPE": None, "model": "XGBoost"}
    with pytest.raises(UserError, match="XGBoost is trained by its own library.*remove callbacks"):
        build_trainer(config, None, tmp_path, CallbackList([Count()]), {})
