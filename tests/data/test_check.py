"""What is wrong with a dataset's files is said in one sentence, with file or key and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.check import check_files
from recbole_ext.types import UserError

HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"
ROWS = "".join(f"u{u}\ti{(u + step) % 9}\t{step}\n" for u in range(6) for step in range(5))
COLUMNS = {"inter": ["user_id", "item_id", "timestamp"]}


def config_of(path: Path, model: str = "SASRec", **settings: Any) -> Config:
    shop = {"data_path": str(path), "load_col": COLUMNS, "use_gpu": False}
    return Config(model, "shop", config_dict={**shop, **settings})


def shop(path: Path, content: str | bytes, name: str = "shop.inter") -> Path:
    (path / "shop").mkdir(exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    (path / "shop" / name).write_bytes(content)
    return path


def sentence_of(config: Config) -> str:
    with pytest.raises(UserError) as caught:
        create_loaders(config, create_dataset(config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_a_good_dataset_is_taken(model: str, tmp_path: Path) -> None:
    dataset = create_dataset(config_of(shop(tmp_path, HEADER + ROWS), model))
    assert len(dataset.inter_feat) == 30 and dataset.user_num == 7 and dataset.item_num == 10


def test_a_missing_folder_is_answered_with_a_near_one(tmp_path: Path) -> None:
    (tmp_path / "shops").mkdir()
    sentence = sentence_of(config_of(tmp_path))
    assert str(tmp_path / "shop") in sentence and "did you mean 'shops'" in sentence
    assert "data_path/dataset" in sentence and "template.yaml" in sentence
    assert "did you mean" not in sentence_of(config_of(tmp_path / "nowhere"))


def test_a_folder_that_recbole_downloads_may_be_missing(tmp_path: Path) -> None:
    check_files(Config("BPR", "ml-1m", config_dict={"data_path": str(tmp_path)}))


WRONG: dict[str, tuple[str | bytes, dict[str, Any], list[str]]] = {
    "empty": ("", {}, ["shop.inter is empty", "user_id:token<TAB>item_id:token"]),
    "without a header": (ROWS, {}, ["shop.inter: column 'u0'", "name:type", "token, token_seq"]),
    "header without types": (
        "user_id\titem_id\ttimestamp\n" + ROWS,
        {},
        ["column 'user_id'", "name:type"],
    ),
    "unknown type": (
        HEADER.replace("float", "int") + ROWS,
        {},
        ["column 'timestamp:int'", "token, token_seq, float, float_seq"],
    ),
    "other separator": (
        (HEADER + ROWS).replace("\t", ","),
        {},
        ["'user_id:token,item_id:token,timestamp:float'", r"separated by '\t' (field_separator)"],
    ),
    "missing column": (
        HEADER.replace("item_id", "item") + ROWS,
        {},
        ["no column 'item_id'; did you mean 'item'", "user_id, item, timestamp", "ITEM_ID_FIELD"],
    ),
    "missing time": (
        "user_id:token\titem_id:token\nu1\ti1\n",
        {},
        ["no column 'timestamp'", "set TIME_FIELD"],
    ),
    "column twice": (
        HEADER.replace("timestamp:float", "item_id:token") + ROWS,
        {},
        ["names the column 'item_id' twice"],
    ),
    "time as token": (
        HEADER.replace("timestamp:float", "timestamp:token") + ROWS,
        {},
        ["'timestamp' (TIME_FIELD) must be of type float", "write timestamp:float"],
    ),
    "user as number": (
        HEADER.replace("user_id:token", "user_id:float") + ROWS,
        {},
        ["'user_id' (USER_ID_FIELD) must be of type token", "write user_id:token"],
    ),
    "no interactions": (HEADER, {}, ["shop.inter has no interactions"]),
    "not UTF-8": ((HEADER + "é\ti1\t1\n").encode("latin1"), {}, ["not utf-8 text", "encoding"]),
    "not UTF-8, far down": (
        (HEADER + ROWS * 500 + "é\ti1\t1\n").encode("latin1"),
        {},
        ["dataset 'shop'", "not utf-8 text", "save it as UTF-8"],
    ),
    "byte-order mark": (
        (HEADER + ROWS).encode("utf-8-sig"),
        {},
        ["byte-order mark", "set encoding: utf-8-sig"],
    ),
    "unknown encoding": (HEADER + ROWS, {"encoding": "utf-88"}, ["no encoding 'utf-88'"]),
    "a word for a number": (
        HEADER + ROWS + "u1\ti1\tnoon\n",
        {},
        ["dataset 'shop'", "shop.inter, line 32: 'noon' in column timestamp:float", "correct it"],
    ),
    "load_col without the time": (
        HEADER + ROWS,
        {"load_col": {"inter": ["user_id", "item_id"]}},
        ["load_col of inter leaves out 'timestamp'", "{inter: [user_id, item_id, timestamp]}"],
    ),
    "load_col without inter": (
        HEADER + ROWS,
        {"load_col": {"item": ["item_id"]}},
        ["load_col names columns of 'item'", "shop.item", "leave 'item' out"],
    ),
    "unload_col of the time": (
        HEADER + ROWS,
        {"load_col": None, "unload_col": {"inter": ["timestamp"]}},
        ["unload_col of inter names 'timestamp'"],
    ),
    "no time in a cell": (
        HEADER + ROWS + "u1\ti1\t\nu2\ti2\n",
        {},
        ["dataset 'shop'", "2 interactions have no 'timestamp' (TIME_FIELD)", "fill it in"],
    ),
    "nothing left": (
        HEADER + ROWS,
        {"user_inter_num_interval": "[100,inf)"},
        ["dataset 'shop'", "empty", "filtering", "user_inter_num_interval"],
    ),
    "a filter on no column": (
        HEADER + ROWS,
        {"val_interval": {"rating": "[3,inf)"}},
        ["dataset 'shop'", "Field [rating] not defined"],
    ),
    "one interaction each": (
        HEADER + "u1\ti1\t1\nu2\ti2\t2\n",
        {},
        ["training split is empty", "at least 3 interactions", "eval_args"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_remedy(case: str, tmp_path: Path) -> None:
    content, settings, parts = WRONG[case]
    sentence = sentence_of(config_of(shop(tmp_path, content), **settings))
    for part in parts:
        assert part in sentence


def test_a_word_among_numbers_of_a_list_is_found_in_its_file(tmp_path: Path) -> None:
    shop(tmp_path, "item_id:token\tsize:float_seq\ni1\t1 2\ni2\t\ni3\t4 big 6\n", "shop.item")
    columns = {**COLUMNS, "item": ["item_id", "size"]}
    sentence = sentence_of(config_of(shop(tmp_path, HEADER + ROWS), load_col=columns))
    assert "shop.item, line 4: '4 big 6' in column size:float_seq is not a number" in sentence
    # and a column that is not loaded is not blamed for another's fault
    shop(
        tmp_path, "item_id:token\tsize:float\tweight:float\ni1\tbig\t1\ni2\t2\theavy\n", "shop.item"
    )
    columns = {**COLUMNS, "item": ["item_id", "weight"]}
    sentence = sentence_of(config_of(tmp_path, load_col=columns))
    assert "line 3: 'heavy' in column weight:float" in sentence


def test_load_col_without_inter_is_refused_even_with_its_file(tmp_path: Path) -> None:
    shop(tmp_path, "item_id:token\ni1\n", "shop.item")
    config = config_of(shop(tmp_path, HEADER + ROWS), load_col={"item": ["item_id"]})
    assert "load_col of inter leaves out 'user_id'" in sentence_of(config)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    sentence = sentence_of(config_of(tmp_path))
    assert str(tmp_path / "shop" / "shop.inter") in sentence and "is missing" in sentence
    (tmp_path / "ml-100k").mkdir()
    with pytest.raises(UserError, match="leave out data_path to use the copy that RecBole bundles"):
        check_files(Config("BPR", "ml-100k", config_dict={"data_path": str(tmp_path)}))


def test_a_file_for_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text(HEADER + ROWS)
    assert "is a file, and a folder is meant" in sentence_of(config_of(tmp_path))


def test_other_names_and_separators_are_taken(tmp_path: Path) -> None:
    content = (HEADER.replace("user_id", "customer") + ROWS).replace("\t", ",")
    config = config_of(
        shop(tmp_path, content),
        field_separator=",",
        USER_ID_FIELD="customer",
        load_col={"inter": ["customer", "item_id", "timestamp"]},
    )
    assert create_dataset(config).user_num == 7


def test_a_model_that_needs_no_time_may_have_none(tmp_path: Path) -> None:
    rows = [line.split("\t")[:2] for line in ROWS.splitlines()]
    content = "user_id:token\titem_id:token\n" + "".join("\t".join(row) + "\n" for row in rows)
    config = config_of(shop(tmp_path, content), "BPR", load_col={"inter": ["user_id", "item_id"]})
    check_files(config)


def test_a_user_who_has_every_item_leaves_no_negative(tmp_path: Path) -> None:
    content = HEADER + "".join(f"u{u}\ti{i}\t{i}\n" for u in range(3) for i in range(4))
    sentence = sentence_of(config_of(shop(tmp_path, content), "BPR"))
    assert "dataset 'shop'" in sentence and "interacted with all items" in sentence


def test_files_that_are_split_already_are_each_looked_at(tmp_path: Path) -> None:
    parts = ["train", "valid", "test"]
    for part in parts[:2]:
        shop(tmp_path, HEADER + ROWS, f"shop.{part}.inter")
    config = config_of(tmp_path, "BPR", benchmark_filename=parts)
    assert "shop.test.inter is missing" in sentence_of(config)
    shop(tmp_path, "user_id:token\nu1\n", "shop.test.inter")
    assert "shop.test.inter has no column 'item_id'" in sentence_of(config)
    shop(tmp_path, HEADER + ROWS, "shop.test.inter")
    assert len(create_dataset(config).inter_feat) == 90


def test_masking_histories_that_files_do_not_hold_is_refused(tmp_path: Path) -> None:
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    for part in ("train", "valid", "test"):
        shop(tmp_path, header + "u1\ti1 i2\ti3\nu2\ti2 i3\ti1\n", f"shop.{part}.inter")
    settings = {
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
        "alias_of_item_id": ["item_id_list"],
    }
    config = config_of(tmp_path, **settings)
    create_loaders(config, create_dataset(config))
    masked = config_of(tmp_path, mask_history=True, **settings)
    assert "mask_history of a sequential model needs the histories" in sentence_of(masked)


LABELLED = "user_id:token\titem_id:token\tlabel:float\n" + "".join(
    f"u{u}\ti{(u + step) % 9}\t{int(step > 1)}\n" for u in range(6) for step in range(5)
)


def loaders_of(config: Config) -> Any:
    return create_loaders(config, create_dataset(config))


def test_negatives_are_not_drawn_beside_rows_that_are_negatives(tmp_path: Path) -> None:
    """RecBole would take them for positives."""
    shop(tmp_path, LABELLED)
    both = {"inter": ["user_id", "item_id", "label"]}
    sentence = sentence_of(config_of(tmp_path, "BPR", load_col=both))
    assert "has 12 rows that were not taken (label: 0), and BPR, which draws its" in sentence
    one = {"load_col": both, "valid_metric": "AUC", "metrics": ["AUC"]}
    labelled = {**one, "eval_args": {"mode": "labeled"}}
    assert loaders_of(config_of(tmp_path, "DeepFM", **labelled))
    assert loaders_of(config_of(tmp_path, "BPR", load_col={"inter": both["inter"][:2]}))
    positives = LABELLED.replace("\t0\n", "\t1\n")
    assert loaders_of(config_of(shop(tmp_path, positives), "BPR", load_col=both))


def test_labels_that_a_threshold_makes_of_ratings_are_recboles_own_matter(tmp_path: Path) -> None:
    shop(tmp_path, LABELLED.replace("label", "rating"))
    given = {"load_col": {"inter": ["user_id", "item_id", "rating"]}, "threshold": {"rating": 1}}
    assert loaders_of(config_of(tmp_path, "BPR", **given))
