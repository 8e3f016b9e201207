"""Config: RecBole's, with plain precedence, YAML values, checked keys, devices left alone.

Precedence, weakest first: RecBole's defaults and ``properties/base.yaml`` < family < model <
dataset < family on that dataset < the files beside the data (``<dataset>.yaml`` in the dataset's
folder, then ``<family>_on_<dataset>.yaml``) < the user's files < ``config_dict`` < command line. A
dotted key (``eval_args.mode``) sets one entry of a mapping. ``eval_args`` is merged entry by
entry; every other mapping is replaced whole, as in RecBole.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from recbole.config import Config as RecBoleConfig
from recbole.utils import (
    ModelType,
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_ext import paths
from recbole_ext.registry import (
    RECBOLE,
    add_metrics,
    builtin_models,
    check_model,
    extension_models,
    family_of,
    get_model,
    is_accelerated,
)
from recbole_ext.settings_check import check_keys, check_types, typed_comments
from recbole_ext.settings_reading import Loader, lay_over, parse_overrides, read_yaml
from recbole_ext.settings_values import check_metrics, check_values
from recbole_ext.types import UserError

_FAMILY_FILE = {
    ModelType.CONTEXT: "context-aware",
    ModelType.DECISIONTREE: "context-aware",
    ModelType.SEQUENTIAL: "sequential",
    ModelType.KNOWLEDGE: "knowledge_base",
}


class Config(RecBoleConfig):
    """RecBole's Config over our files; it never reads ``sys.argv``.

    Args:
        model: Model name, class, or ``None`` when the settings name it.
        dataset: Dataset name, or ``None``.
        config_file_list: The user's YAML files, later ones stronger.
        config_dict: Settings by key.
        overrides: ``--key=value`` arguments, strongest.

    Attributes:
        resolved: Every setting after merging, before RecBole derives its own; what a run folder's
            ``config.yaml`` holds.

    Raises:
        UserError: For every setting that cannot be meant.
    """

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str | Path] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        add_metrics()
        self._overrides = parse_overrides(overrides)
        self.resolved: dict[str, Any] = {}
        try:
            super().__init__(model, dataset, config_file_list, dict(config_dict or {}))
        except (ValueError, NotImplementedError) as error:
            hint = ""
            if "input_type" in str(error):  # RecBole's words for a model without settings
                hint = "; a model outside the package names its family: family = 'sequential'"
            raise UserError(f"settings: {error}{hint}") from error

    def compatibility_settings(self) -> None:
        """Leave numpy alone: ``compat`` has put in place what RecBole needs."""

    def _init_parameters_category(self) -> None:
        # copies: RecBole appends to its own global lists
        self.parameters = {
            "General": list(general_arguments),
            "Training": list(training_arguments),
            "Evaluation": list(evaluation_arguments),
            "Dataset": list(dataset_arguments),
        }

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return Loader

    def _load_config_files(self, file_list: Sequence[str | Path] | None) -> list[dict[str, Any]]:
        return [read_yaml(path) for path in file_list or ()]

    def _load_variable_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return {k: _plain(v) for k, v in config_dict.items()}

    def _load_cmd_line(self) -> dict[str, Any]:
        return self._overrides

    def _merge_external_config_dict(self) -> None:
        self._sources = [*self.file_config_dict, self.variable_config_dict, self.cmd_config_dict]
        self.external_config_dict = {
            key: value for source in self._sources for key, value in source.items()
        }

    def _get_model_and_dataset(
        self, model: str | type | None, dataset: str | None
    ) -> tuple[str, type, str]:
        model = model or self.external_config_dict.get("model")
        dataset = dataset or self.external_config_dict.get("dataset")
        if not model:
            raise UserError(
                "no model is named; give --model=SASRec, or 'model: SASRec' in a settings file"
            )
        if not dataset:
            raise UserError(
                "no dataset is named; give --dataset=ml-100k, "
                "or 'dataset: ml-100k' in a settings file"
            )
        if isinstance(model, str):
            model_class = get_model(model)
        else:
            model_class = check_model(model, getattr(model, "__name__", str(model)))
        # an outside model is named by its path, so that config.yaml finds it again
        self.model_path = (
            model
            if isinstance(model, str)
            else f"{model_class.__module__}:{model_class.__qualname__}"
        )
        return model_class.__name__, model_class, str(dataset)

    def _load_internal_config_dict(self, model: str, model_class: Any, dataset: str) -> None:
        self.layers = _layers(model, model_class, dataset)
        self.internal_config_dict = {"MODEL_TYPE": model_class.type}
        for path in self.layers:
            lay_over(self.internal_config_dict, read_yaml(path))
        beside = self._settings_beside(dataset, family_of(model_class))
        self._sources.insert(0, beside)
        self.external_config_dict = {**beside, **self.external_config_dict}

    def _settings_beside(self, dataset: str, family: str | None) -> dict[str, Any]:
        """Return the settings in the dataset's folder, as ``convert`` writes them.

        Over those of the dataset lie those of a family of ours on it.
        """
        default = self.internal_config_dict["data_path"]
        data_path = self.external_config_dict.get("data_path", default)
        is_bundled = dataset == "ml-100k" and data_path == default
        if is_bundled or not isinstance(data_path, str):  # which is refused where types are
            return {}
        folder, found = Path(data_path) / dataset, dict[str, Any]()
        for name in (dataset, f"{family}_on_{dataset}"):
            if (folder / f"{name}.yaml").is_file():
                lay_over(found, read_yaml(folder / f"{name}.yaml"))
        return found

    def _get_final_config_dict(self) -> dict[str, Any]:
        known = {key for path in self.layers for key in read_yaml(path)}
        tops = {key.split(".")[0]: None for key in self.external_config_dict}
        tops["allow_keys"] = self.external_config_dict.get("allow_keys")
        check_keys(tops, known, self.model, self.model_class, _keys_of_models)
        merged = copy.deepcopy(self.internal_config_dict)
        for source in self._sources:
            lay_over(merged, copy.deepcopy(source))
        if (
            self.model_class.type == ModelType.SEQUENTIAL
            and merged.get("loss_type") == "CE"
            and "train_neg_sample_args" not in tops
        ):
            merged["train_neg_sample_args"] = None  # RecBole's default would be refused by RecBole
        if merged["train_neg_sample_args"] == "None":  # as RecBole's own examples write it
            merged["train_neg_sample_args"] = None
        ids = merged["gpu_id"]  # 0, "0,1" or [0, 1]
        ids = ids if isinstance(ids, (list, tuple)) else [] if ids is None else [ids]
        merged["gpu_id"] = ",".join(map(str, ids)).strip("()[] ")
        if isinstance(merged["topk"], int) and not isinstance(merged["topk"], bool):
            merged["topk"] = [merged["topk"]]  # 10, as RecBole takes it; readers have a list
        check_types(merged, typed_comments(self.layers), self.internal_config_dict)
        check_values(merged)
        check_metrics(merged)
        is_accelerated(merged, self.model_class)  # refuses the others
        if merged.get("mask_history") is None:
            # RecBole's way: history is masked but for sequential models; said here, and recorded
            merged["mask_history"] = self.model_class.type != ModelType.SEQUENTIAL
        # `data_path` keeps the user's spelling; RecBole appends the dataset's name to it below
        self.resolved = {
            key: copy.deepcopy(value) for key, value in merged.items() if key != "MODEL_TYPE"
        }
        self.resolved.update(model=self.model_path, dataset=self.dataset)
        return merged

    def _set_default_parameters(self) -> None:
        data_path = self.final_config_dict["data_path"]
        super()._set_default_parameters()
        # RecBole puts its bundled copy in any case; we do unless the user names another place
        if self.dataset == "ml-100k" and data_path != self.internal_config_dict["data_path"]:
            self.final_config_dict["data_path"] = str(Path(data_path) / self.dataset)
        if self.final_config_dict["show_progress"] == "auto":
            self.final_config_dict["show_progress"] = sys.stderr.isatty()

    def _init_device(self) -> None:
        settings = self.final_config_dict
        rank = settings.get("local_rank", 0)
        settings["single_spec"] = "local_rank" not in settings
        settings["local_rank"] = rank
        settings["device"] = device_of(settings["use_gpu"], settings["gpu_id"], rank)
        if not settings["single_spec"]:
            _join_process_group(settings)
            if rank != 0:
                settings.update(state="error", show_progress=False, verbose=False)


def _plain(value: Any) -> Any:
    """Return a value given in Python as YAML has it, for ``config.yaml``."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def device_of(use_gpu: bool, gpu_id: str, rank: int) -> torch.device:
    """Return the device of one process of this machine.

    Args:
        use_gpu: Whether a GPU is wanted.
        gpu_id: Numbers with commas among the visible devices, which stay as they are.
        rank: Number of the process on this machine; each takes a GPU of its own.

    Raises:
        UserError: There is no such GPU, or too few are named for the processes.
    """
    ids = [part.strip() for part in gpu_id.split(",") if part.strip()]
    if not use_gpu or not ids or not torch.cuda.is_available():
        return torch.device("cpu")
    if rank >= len(ids) or ids[rank] in ids[:rank]:
        raise UserError(
            f"gpu_id {gpu_id!r} has no GPU of its own for process {rank + 1} of nproc; name one "
            "for each, as in --gpu_id=0,1, lower nproc, or take the CPU with --use_gpu=False"
        )
    chosen = ids[rank]
    if not chosen.isdigit() or int(chosen) >= torch.cuda.device_count():
        raise UserError(
            f"gpu_id {gpu_id!r}: this machine shows {torch.cuda.device_count()} GPU(s), "
            "numbered from 0"
        )
    return torch.device("cuda", int(chosen))


def _join_process_group(settings: dict[str, Any]) -> None:
    device = settings["device"]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        rank=settings["local_rank"] + settings["offset"],
        world_size=settings["world_size"],
        init_method=f"tcp://{settings['ip']}:{settings['port']}",
    )


def _layers(model: str, model_class: Any, dataset: str) -> list[Path]:
    """Return the YAML files under the user's, weakest first.

    Base < family < model < dataset < ``properties/family/<family>_on_<dataset>.yaml``.
    """
    theirs = RECBOLE / "properties"
    quick = theirs / "quick_start_config"
    ours_base = paths.data_folder("properties") / "base.yaml"
    files: list[Path | None] = [
        theirs / "overall.yaml",
        theirs / "dataset" / "sample.yaml",
        ours_base,
    ]
    family = family_of(model_class)
    on_dataset: list[Path | None] = []
    if family is not None:
        files += [paths.family_yaml(family), paths.model_yaml(model)]
        # a dataset's own file holds for RecBole's models too, and must leave their numbers alone
        on_dataset = [paths.family_yaml(f"{family}_on_{dataset}")]
    else:
        name = _FAMILY_FILE.get(model_class.type)
        if model in ("DIN", "DIEN"):
            name, on_dataset = "sequential_DIN", [quick / f"sequential_DIN_on_{dataset}.yaml"]
        elif model in ("GRU4RecKG", "KSR"):
            name, on_dataset = None, [quick / "sequential_embedding_model.yaml"]
        elif model in ("GRU4RecF", "SASRecF", "FDSA", "S3Rec"):
            on_dataset = [quick / f"special_sequential_on_{dataset}.yaml"]
        elif name == "context-aware":
            on_dataset = [quick / f"context-aware_{dataset}.yaml"]
        elif (
            name == "knowledge_base"
        ):  # it names the files to load, which a dataset's YAML does too
            name, on_dataset = None, [quick / "knowledge_base.yaml"]
        files.append(quick / f"{name}.yaml" if name else None)
        yaml_name = {"XGBoost": "xgboost", "LightGBM": "lightgbm"}.get(
            model, model
        )  # RecBole's file names
        files += [theirs / "model" / f"{yaml_name}.yaml", paths.model_yaml(model)]
    files += [theirs / "dataset" / f"{dataset}.yaml", paths.dataset_yaml(dataset), *on_dataset]
    return [path for path in files if path is not None and path.is_file()]


def _keys_of_models() -> dict[str, str]:
    """Return key -> a model that has it, to tell a key of another model from a misspelt one."""
    keys: dict[str, str] = {}
    for name in [*builtin_models(), *extension_models()]:
        for path in (RECBOLE / "properties" / "model" / f"{name}.yaml", paths.model_yaml(name)):
            if path is not None and path.is_file():
                for key in read_yaml(path):
                    keys.setdefault(key, name)
    return keys
