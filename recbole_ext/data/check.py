"""Looks at a dataset's files before RecBole does, and says in one sentence what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_ext.config import read_yaml
from recbole_ext.registry import RECBOLE
from recbole_ext.types import UserError, suggest

FIELD_TYPES = ("token", "token_seq", "float", "float_seq")


def check_files(config: Any) -> None:
    """Check that the dataset's folder and files are there and have the columns that the settings name.

    A folder that is missing is left to RecBole's download when the dataset is one of those it knows.

    Raises:
        UserError: Naming the file, the column and the remedy.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    if not folder.exists():
        downloadable = [*read_yaml(RECBOLE / "properties" / "dataset" / "url.yaml"), "ml-100k"]
        if name in downloadable:
            return
        here = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        raise UserError(f"dataset '{name}': there is no folder {folder}, and RecBole knows no download of that name"
                        f"{suggest(name, [*here, *downloadable])}; the folder is data_path/dataset, "
                        "see dataset_configs/template.yaml")
    if config["benchmark_filename"] is None:
        files = [folder / f"{name}.inter"]
    else:
        files = [folder / f"{name}.{part}.inter" for part in config["benchmark_filename"]]
    for path in files:
        columns = _header(path, config)
        needed = {config["USER_ID_FIELD"]: "USER_ID_FIELD", config["ITEM_ID_FIELD"]: "ITEM_ID_FIELD"}
        if (config["eval_args"] or {}).get("order") == "TO" and config["benchmark_filename"] is None:
            needed[config["TIME_FIELD"]] = "TIME_FIELD"
        for field, key in needed.items():
            if field not in columns:
                raise UserError(f"{path} has no column '{field}'{suggest(field, columns)}; its columns are "
                                f"{', '.join(columns)}: set {key} to the one that is meant")
            loaded = (config["load_col"] or {}).get("inter", "*") if config["load_col"] else "*"
            if loaded != "*" and field not in loaded:
                raise UserError(f"load_col of inter leaves out '{field}', which this model needs; add it: "
                                f"load_col: {{inter: [{', '.join([*loaded, field])}]}}")


def _header(path: Path, config: Any) -> list[str]:
    if not path.is_file():
        hint = "; leave out data_path to use the copy that RecBole bundles" if config["dataset"] == "ml-100k" else ""
        raise UserError(f"the file {path} is missing; a dataset needs <name>.inter in its folder{hint}")
    try:
        with open(path, encoding=config["encoding"] or "utf-8") as stream:
            head, first = stream.readline().rstrip("\r\n"), stream.readline()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8, or set encoding") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if not head:
        raise UserError(f"{path} is empty; its first line names the columns, as in user_id:token<TAB>item_id:token")
    columns = []
    for column in head.split(config["field_separator"]):
        field, colon, kind = column.partition(":")
        if not colon or kind not in FIELD_TYPES:
            raise UserError(f"{path}: column '{column}' of the first line is not name:type with type one of "
                            f"{', '.join(FIELD_TYPES)}, separated by {config['field_separator']!r} (field_separator)")
        columns.append(field)
    if not first.strip():
        raise UserError(f"{path} has no interactions, only its first line")
    return columns
