"""Looks at a dataset's files before RecBole does, and says in one sentence what is wrong.

Once they are read: at whether there are as many items as are to be ranked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole.evaluator.register import metric_information

from recbole_ext.registry import RECBOLE
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import UserError, suggest

FIELD_TYPES = ("token", "token_seq", "float", "float_seq")


def check_files(config: Any) -> None:
    """Check that the dataset's files are there and have the columns that the settings name.

    A folder that is missing is left to RecBole's download when the dataset is one of those it
    knows.

    Raises:
        UserError: Naming the file, the column and the remedy.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    if not check_folder(config):
        return
    for source in config["load_col"] or ():
        if source != "inter" and not (folder / f"{name}.{source}").is_file():
            raise UserError(
                f"load_col names columns of '{source}', but there is no file "
                f"{folder / f'{name}.{source}'}; leave '{source}' out of load_col"
            )
    parts = config["benchmark_filename"]
    for part in [""] if parts is None else [f".{part}" for part in parts]:
        path = folder / f"{name}{part}.inter"
        columns = _header(path, config)
        for key, kind in _needed(config).items():
            _check_column(path, columns, key, kind, config)


def check_folder(config: Any) -> bool:
    """Check that the dataset's folder is there, or that RecBole downloads it; say which.

    Raises:
        UserError: Naming the folder, near names and the remedy.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    if folder.is_dir():
        return True
    if folder.exists():
        raise UserError(f"dataset '{name}': {folder} is a file, and a folder is meant")
    downloadable = [*read_yaml(RECBOLE / "properties" / "dataset" / "url.yaml"), "ml-100k"]
    if name in downloadable:
        return False
    here = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
    raise UserError(
        f"dataset '{name}': there is no folder {folder}, and RecBole knows no download of "
        f"that name{suggest(name, [*here, *downloadable])} (the folder is data_path/dataset; "
        "--data_path names the first part, see dataset_configs/template.yaml)"
    )


def check_topk(config: Any, n_items: int) -> None:
    """Refuse lists that are longer than the catalogue.

    Args:
        config: The run's settings.
        n_items: Items of the dataset, the padding item not among them.

    Raises:
        UserError: Naming both numbers.
    """
    if max(config["topk"]) > n_items:
        raise UserError(
            f"topk {config['topk']} asks for more items than dataset '{config['dataset']}' has "
            f"({n_items})"
        )


def needs_impressions(config: Any) -> bool:
    """Say whether a metric of the run is of impressions."""
    needs = (metric_information[name.lower()] for name in config["metrics"])
    return any("data.impression" in need for need in needs)


def check_impressions(config: Any, dataset: Any) -> None:
    """Refuse metrics of impressions of rows that name none, or that are sampled.

    Args:
        config: The run's settings.
        dataset: RecBole dataset.

    Raises:
        UserError: Naming the field or the mode, and the remedy.
    """
    if not needs_impressions(config):
        return
    field, modes = config["IMPRESSION_FIELD"], {*config["eval_args"]["mode"].values()}
    if field not in dataset.inter_feat:
        raise UserError(
            f"metrics {config['metrics']} are of impressions, and dataset '{config['dataset']}' is "
            f"loaded without '{field}' (IMPRESSION_FIELD); add it to load_col of inter, or leave "
            "out the metrics that begin with Imp"
        )
    if modes != {"labeled"}:
        raise UserError(
            f"eval_args.mode: {', '.join(sorted(modes))} samples what an impression did not show; "
            "metrics of impressions take labeled"
        )


def check_labels(config: Any, dataset: Any) -> None:
    """Refuse a model that draws negatives on rows of which some were observed not to be taken.

    RecBole takes every row of such a model for a positive, whatever its label. A ``threshold``,
    with which labels are made of ratings, is RecBole's own way and stays.

    Raises:
        UserError: Naming the field, the model and the remedy.
    """
    field = config["LABEL_FIELD"]
    if config["threshold"] is not None or field not in dataset.inter_feat:
        return
    n_negative = int((dataset.inter_feat[field] <= 0).sum())
    if n_negative and (config["train_neg_sample_args"] or {}).get("distribution") != "none":
        raise UserError(
            f"dataset '{config['dataset']}' has {n_negative} rows that were not taken ({field}: "
            f"0), and {config['model']}, which draws its negatives, would learn them as positives; "
            "name a model of labels, as DeepFM, which draws none (train_neg_sample_args: ~), or "
            "files of positives alone"
        )


def _needed(config: Any) -> dict[str, str]:
    """Return the settings that name columns without which nothing goes, and the columns' types."""
    needed = {"USER_ID_FIELD": "token", "ITEM_ID_FIELD": "token"}
    by_time = (config["eval_args"] or {}).get("order") == "TO"
    return (
        {**needed, "TIME_FIELD": "float"}
        if by_time and not config["benchmark_filename"]
        else needed
    )


def _check_column(path: Path, columns: dict[str, str], key: str, kind: str, config: Any) -> None:
    field = config[key]
    if field not in columns:
        raise UserError(
            f"{path} has no column '{field}'{suggest(field, columns)} (its columns are "
            f"{', '.join(columns)}); set {key} to the one that is meant"
        )
    if columns[field] != kind:
        raise UserError(
            f"{path}: column '{field}' ({key}) must be of type {kind}, not {columns[field]}; "
            f"write {field}:{kind} in the first line"
        )
    loaded = config["load_col"].get("inter", ()) if config["load_col"] else "*"
    if loaded != "*" and field not in loaded:
        raise UserError(
            f"load_col of inter leaves out '{field}', which {config['model']} on "
            f"{config['dataset']} needs ({key}); add it: "
            f"load_col: {{inter: [{', '.join([*loaded, field])}]}}"
        )
    if field in ((config["unload_col"] or {}).get("inter") or ()):
        raise UserError(
            f"unload_col of inter names '{field}', which {config['model']} on "
            f"{config['dataset']} needs ({key}); leave it in"
        )


def _header(path: Path, config: Any) -> dict[str, str]:
    """Return the columns of a file, name -> type."""
    if not path.is_file():
        hint = (
            "; leave out data_path to use the copy that RecBole bundles"
            if config["dataset"] == "ml-100k"
            else ""
        )
        raise UserError(
            f"the file {path} is missing; a dataset needs <name>.inter in its folder{hint}"
        )
    head, first = _two_lines(path, config["encoding"] or "utf-8")
    if not head:
        raise UserError(
            f"{path} is empty; its first line names the columns, as in "
            "user_id:token<TAB>item_id:token"
        )
    columns: dict[str, str] = {}
    for column in head.split(config["field_separator"]):
        field, colon, kind = column.partition(":")
        if not colon or kind not in FIELD_TYPES:
            raise UserError(
                f"{path}: column '{column}' of the first line is not name:type with type one of "
                f"{', '.join(FIELD_TYPES)}, separated by {config['field_separator']!r} "
                "(field_separator)"
            )
        if field in columns:
            raise UserError(f"{path}: the first line names the column '{field}' twice")
        columns[field] = kind
    if not first.strip():
        raise UserError(f"{path} has no interactions, only its first line")
    return columns


def _two_lines(path: Path, encoding: str) -> tuple[str, str]:
    try:
        with open(path, encoding=encoding) as stream:
            head, first = stream.readline().rstrip("\r\n"), stream.readline()
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is not {encoding} text; save it as UTF-8, or set encoding"
        ) from None
    except LookupError:
        raise UserError(f"encoding: there is no encoding '{encoding}'; leave it out") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if head.startswith("\ufeff"):
        raise UserError(f"{path} begins with a byte-order mark; set encoding: utf-8-sig")
    return head, first
