"""A run from settings to result: config -> data -> model -> trainer -> run folder."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole.utils import init_seed

from recbole_ext import run_folder
from recbole_ext.atomic import remove_leftovers
from recbole_ext.callbacks.base import Callback, CallbackList
from recbole_ext.callbacks.build import build_callbacks
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.check import check_files, check_topk
from recbole_ext.data.vocabulary import vocabulary_of
from recbole_ext.distributed import spawn_run
from recbole_ext.evaluation.ranks import RankRecorder
from recbole_ext.locks import lock, sole_use
from recbole_ext.malloc import keep_freed_memory
from recbole_ext.models.accelerate import accelerated
from recbole_ext.models.item_init import check_item_init, with_item_init
from recbole_ext.pretraining import check_start, warm_start_of
from recbole_ext.resume import check_features, resumed_config, write_features, write_settings
from recbole_ext.run_folder import Phases
from recbole_ext.settings_check import bad_settings_of
from recbole_ext.trainer.checkpoint import check_identity, load_weights, read_checkpoint
from recbole_ext.trainer.hooked_trainer import RunHooks, build_trainer
from recbole_ext.types import UserError


def run(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    resume: str | Path | None = None,
    made: Callable[..., Run] | None = None,
) -> dict[str, Any]:
    """Train and test a model, and keep everything in a run folder.

    Args:
        model: Model name, ``module:Class``, or class.
        dataset: Dataset name.
        config_file_list: YAML settings files, later ones stronger.
        config_dict: Settings by key; ``output_dir`` names the run folder.
        overrides: ``--key=value`` arguments, strongest.
        resume: A run folder to continue; everything else comes from its ``config.yaml``.
        made: Makes the run of config, folder and whether it resumes; :class:`Run` by default. For
            a run in one process.

    Returns:
        What ``result.json`` holds, and ``folder``.

    Raises:
        UserError: Bad input, named in one sentence.
    """
    if resume is not None:
        folder = Path(resume)
        config = resumed_config(folder, overrides)
    else:
        config = Config(model, dataset, config_file_list, config_dict, overrides)
        check_files(config)  # before there is a folder that another attempt would find in its way
        build_callbacks(config["callbacks"])
        _check_settings(config)
        folder = run_folder.make_folder(config["output_dir"], config["model"], config["dataset"])
    if config["nproc"] > 1:
        try:
            return spawn_run(config, folder, _go)
        except KeyboardInterrupt as interrupt:
            interrupt.args = ("a run in several processes is not continued, but started anew",)
            raise
    return _go(config, folder, resume is not None, made)


def _check_settings(config: Config) -> None:
    """Refuse what can be refused before the data are read, which takes minutes."""
    check_item_init(config["item_init"])
    if ":" not in config.model_path:  # a model of a user's own may want the data
        getattr(config.model_class, "check_settings", lambda *_: None)(config, None)


def _go(
    config: Config, folder: Path, resuming: bool = False, made: Callable[..., Run] | None = None
) -> dict[str, Any]:
    there = {path.name for path in folder.iterdir()}  # a user's own, in a folder that was there
    with sole_use(folder, config["local_rank"]):
        if config["local_rank"] == 0:  # another would delete what this one is writing
            remove_leftovers(folder)
        if config["local_rank"] == 0 and not resuming:
            write_settings(folder, config)
        try:
            return (made or Run)(config, folder, resuming).go()
        except Exception:
            if not resuming and config["local_rank"] == 0:
                run_folder.stop_logging()
                run_folder.clear_unused(folder, there)  # so that the next attempt may have the name
            raise
        except KeyboardInterrupt as interrupt:
            interrupt.args = (f"continue with --resume={folder}",)
            raise
        finally:
            run_folder.stop_logging()  # whatever this process does next is no part of the run


class Run:
    """One run, built in RecBole's order and with RecBole's seeds: its numbers are RecBole's.

    Args:
        config: Config.
        folder: Run folder, which exists.
        resuming: Whether ``last.pt`` of the folder is to be continued.
        log: Whether the run writes to ``train.log`` and the terminal.
    """

    def __init__(
        self, config: Config, folder: Path, resuming: bool = False, log: bool = True
    ) -> None:
        self.config, self.folder, self.resuming = config, folder, resuming
        config["checkpoint_dir"] = str(folder)  # RecBole's trainers write here, and nowhere else
        self.phases = Phases()
        self.warm_start: str | None = None  # what the model started from, for the result
        self.logger = (
            run_folder.start_logging(folder, config["state"])
            if log and config["local_rank"] == 0
            else logging.getLogger()
        )

    def go(self) -> dict[str, Any]:
        """Run everything, write ``result.json`` and return it."""
        config = self.config
        self.logger.info(
            "%s on %s, device %s, run folder %s",
            config["model"],
            config["dataset"],
            config["device"],
            self.folder,
        )
        named = build_callbacks(config["callbacks"])  # a slip shows at once
        self.callbacks = CallbackList([*named, *self.own_callbacks()])
        if config["log_wandb"] and importlib.util.find_spec("wandb") is None:
            raise UserError("log_wandb needs wandb; run: pip install 'recbole-ext[wandb]'")
        self.load_data()
        # before a warm start takes its hours; RecBole's models have no such check
        check = getattr(config.model_class, "check_settings", lambda *_: None)
        check(config, self.train_data._dataset)
        self._find_warm_start()
        trainer = self.build()
        with self.phases("train"):
            trainer.fit(
                self.train_data, self.valid_data, saved=True, show_progress=config["show_progress"]
            )
        with self.phases("test"):
            test = self._test(trainer)
        result = self._result(trainer, test)
        if config["local_rank"] == 0:
            run_folder.write_result(self.folder, result)
        self.logger.info("test result: %s", {name: round(value, 4) for name, value in test.items()})
        return {**result, "folder": str(self.folder)}

    def own_callbacks(self) -> list[Callback]:
        """Return callbacks that are of what the run is for, and stand in no settings."""
        return []

    def load_data(self) -> None:
        """Load, filter and split the dataset."""
        config = self.config
        init_seed(config["seed"], config["reproducibility"])
        with self.phases("data"):
            self.dataset = create_dataset(config)
            self.logger.info("%s", self.dataset)
            self.vocabulary = vocabulary_of(self.dataset)
            with bad_settings_of(config):
                loaders = create_loaders(config, self.dataset)
            self.train_data, self.valid_data, self.test_data = loaders
        check_topk(config, self.dataset.item_num - 1)

    def build(self) -> Any:
        """Build model and trainer, and arm the resume where there is one."""
        config = self.config
        init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
        if config["malloc_tuning"] and config["device"].type == "cpu":
            keep_freed_memory()
        with self.phases("model"), bad_settings_of(config):
            model = config.model_class(config, self.train_data._dataset)
            is_trained = self.resuming and (self.folder / "last.pt").is_file()
            data = self.train_data._dataset
            model = with_item_init(model, config, data, is_trained).to(config["device"])
            self.model = accelerated(model, config)
            trainer = build_trainer(
                config, self.model, self.folder, self.callbacks, self.vocabulary
            )
        self.logger.info("%s", self.model)
        self._keep_features()
        if self.resuming:
            if (self.folder / "last.pt").is_file():
                trainer.resume_from(self.folder / "last.pt")
            # only now: what a refused resume changed must not stay
            write_settings(self.folder, config)
        return trainer

    def _keep_features(self) -> None:
        """Write which versions of its features the run is made with; refuse to go on with others.

        Raises:
            UserError: A feature was built anew since.
        """
        used = getattr(self.train_data._dataset, "features_used", {})
        check_features(self.folder, used)
        if self.config["local_rank"] == 0:
            write_features(self.folder, used)

    def _find_warm_start(self) -> None:
        """Train the model that this one starts from, or find it trained; set its path.

        Where ``last.pt`` is continued every weight comes from there, and nothing else is needed.
        """
        config = self.config
        wanted = getattr(config.model_class, "warm_start", None)
        self.warm_start = config["pretrained_path"]
        check_start(config)
        if self.resuming and (self.folder / "last.pt").is_file():
            config["pretrain"], config["pretrained_path"] = "none", None
        elif wanted and not config["pretrained_path"] and config["pretrain"] == "auto":
            with self.phases("pretrain"):
                found = str(pretrained(config, wanted, self.dataset.fingerprint).resolve())
            self.logger = run_folder.start_logging(self.folder, config["state"])
            self.warm_start = config["pretrained_path"] = config.resolved["pretrained_path"] = found
            write_settings(self.folder, config)

    def _test(self, trainer: Any) -> dict[str, float]:
        if self.config["memory_include_valid"]:
            self.model.extend_memory(self.valid_data)
        if isinstance(trainer, RunHooks):
            trainer.ranks = RankRecorder()
        test = trainer.evaluate(
            self.test_data, load_best_model=True, show_progress=self.config["show_progress"]
        )
        is_first = self.config["local_rank"] == 0
        if isinstance(trainer, RunHooks) and trainer.ranks and is_first:
            trainer.ranks.write(self.folder / "per_user.parquet", self.dataset)
        return {name: float(value) for name, value in (test or {}).items()}

    def _result(self, trainer: Any, test: dict[str, float]) -> dict[str, Any]:
        config = self.config
        best = {name: float(value) for name, value in (trainer.best_valid_result or {}).items()}
        extra: dict[str, Any] = getattr(self.model, "result_extra", dict)()
        epochs: list[dict[str, Any]] = []
        if isinstance(trainer, RunHooks):  # all epochs, those before a resume too
            epochs = trainer.run_log.read()
            spent = sum(e["train_seconds"] + (e["valid_seconds"] or 0.0) for e in epochs)
            self.phases.seconds["train"] = max(self.phases.seconds["train"], spent)
        return {
            "model": config["model"],
            "dataset": config["dataset"],
            "seed": config["seed"],
            "best_valid": best,
            "test": test,
            "mask_history": config["mask_history"],
            "seconds": self.phases.seconds,
            "peak_memory_gib": self.phases.peak_memory_gib,
            "n_epochs": len(epochs),
            "n_parameters": _n_parameters(self.model),
            "warm_start": self.warm_start,
            **extra,
            "versions": run_folder.versions(),
            "revision": run_folder.revision(),
            "dataset_fingerprint": self.dataset.fingerprint,
            "vocabulary": self.vocabulary,
        }


def _n_parameters(model: Any) -> int | None:
    """Return the number of a model's weights, frozen ones too; ``None`` where it has none."""
    parameters = getattr(model, "parameters", None)
    return sum(weight.numel() for weight in parameters()) if parameters else None


def pretrained(config: Config, model: str, fingerprint: str) -> Path:
    """Return the run folder of a finished warm start: found, resumed, or trained now.

    Args:
        config: Settings of the run that needs it.
        model: The model to train first.
        fingerprint: Fingerprint of the filtered dataset.
    """
    folder, settings = warm_start_of(config, model, fingerprint)
    with lock(folder):
        if (folder / "result.json").is_file() and (folder / "best.pt").is_file():
            logging.getLogger().info("warm start: %s is trained already", folder)
        elif (folder / "config.yaml").is_file():
            logging.getLogger().info("warm start: %s is continued", folder)
            run(resume=folder)
        else:
            logging.getLogger().info("warm start: training %s into %s", model, folder)
            run(model, config["dataset"], config_dict={**settings, "output_dir": str(folder)})
    return folder


def load_run(folder: str | Path, config_dict: Mapping[str, Any] | None = None) -> Run:
    """Return a finished run with its data and its model, the weights of ``best.pt`` loaded.

    Args:
        folder: Run folder.
        config_dict: Settings that lie over the run's own: of how it is evaluated, say.

    Raises:
        UserError: The folder holds no run, or no usable ``best.pt``.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder} holds no run (no config.yaml); a run folder is meant, "
            "as runs/FTRagRec-ml-100k-..."
        )
    path = folder / "best.pt"
    payload = read_checkpoint(path)
    # best.pt has every weight: no warm start is needed, and none may fail here
    quiet = {"state": "WARNING", "callbacks": None, "pretrain": "none", "pretrained_path": None}
    loaded = Run(
        Config(
            config_file_list=[folder / "config.yaml"], config_dict={**quiet, **(config_dict or {})}
        ),
        folder,
        log=False,
    )
    loaded.load_data()
    check_identity(payload, path, loaded.config["model"], loaded.vocabulary)
    train = loaded.train_data._dataset
    model = loaded.config.model_class(loaded.config, train)
    loaded.model = with_item_init(model, loaded.config, train, is_trained=True)
    check_features(folder, getattr(train, "features_used", {}))
    load_weights(loaded.model, payload, path)
    loaded.model.to(loaded.config["device"]).eval()
    if loaded.config["memory_include_valid"]:  # what the test retrieved from
        loaded.model.extend_memory(loaded.valid_data)
    return loaded
