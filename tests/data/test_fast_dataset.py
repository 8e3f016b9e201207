"""Loading and splitting in arrays against RecBole's own dataset."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data import dataset as recbole_datasets

from recbole_ext.config import Config
from recbole_ext.data import build
from recbole_ext.data.builtin_datasets import OURS, Dataset
from recbole_ext.data.fast_dataset import FastDataset, recbole_dataset

INTER = "user_id:token\titem_id:token\ttimestamp:float\trating:float\ttags:token_seq"
ITEM = "item_id:token\tprice:float\tmaker:token\tgenre:token_seq"
USER = "user_id:token\tage:token\tfriend:token"


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    rng, folder = np.random.default_rng(5), tmp_path / "data" / "mixed"
    folder.mkdir(parents=True)

    def lines(n: int) -> list[str]:
        found = []
        for _ in range(n):
            user, item = min(int(rng.exponential(4)), 15), min(int(rng.exponential(3)), 9)
            rating = "" if rng.random() < 0.1 else f"{rng.random():.4f}"
            tags = " ".join(f"t{t}" for t in rng.integers(5, size=rng.integers(0, 4)))
            found.append(f"u{user}\ti{item}\t{rng.integers(50)}\t{rating}\t{tags}")
        return found

    (folder / "mixed.inter").write_text("\n".join([INTER, *lines(120), ""]))
    for part in ("one", "two", "three"):
        (folder / f"mixed.{part}.inter").write_text("\n".join([INTER, *lines(30), ""]))
    items = [f"i{i}\t{i / 3}\tm{i % 3}\tg{i} g{i % 2}" for i in (*range(4, 12), *range(3), 99)]
    (folder / "mixed.item").write_text("\n".join([ITEM, *items, ""]))
    users = [f"u{u}\t{'' if u == 3 else u % 3}\tu{(u * 7) % 16}" for u in range(13)]
    (folder / "mixed.user").write_text("\n".join([USER, *users, ""]))
    return tmp_path / "data"


ALL = {
    "inter": ["user_id", "item_id", "timestamp", "rating", "tags"],
    "item": ["item_id", "price", "maker", "genre"],
    "user": ["user_id", "age", "friend"],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "interactions alone": {"load_col": {"inter": ALL["inter"]}},
    "users and items": {"load_col": None},
    "unloaded": {"load_col": None, "unload_col": {"inter": ["tags"]}},
    "5-core": {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[5,inf)"},
    "users only": {"user_inter_num_interval": "[3,inf)"},
    "between": {"user_inter_num_interval": "[2,30);(40,50]", "item_inter_num_interval": "(1,25]"},
    "core of interactions alone": {
        "load_col": {"inter": ALL["inter"]},
        "user_inter_num_interval": "[4,inf)",
        "item_inter_num_interval": "[9,inf)",
    },
    "known alone": {"filter_inter_by_user_or_item": True},
    "unknown too": {"filter_inter_by_user_or_item": False},
    "by value": {"val_interval": {"rating": "[0.2,inf)", "item_id": ["i0", "i1", "i2", "i4"]}},
    "first": {"rm_dup_inter": "first"},
    "last": {"rm_dup_inter": "last"},
    "alias": {"alias_of_user_id": ["friend"]},
    "scaled": {"normalize_field": ["rating", "timestamp", "price", "rating"]},
    "all scaled": {"normalize_all": True},
    "label": {"threshold": {"rating": 0.5}},
    "numbers": {"numerical_features": ["rating"]},
    "lengths": {"seq_len": {"tags": 2}},
    "parts": {"benchmark_filename": ["one", "two", "three"]},
}


def config_of(data_path: Path, **more: Any) -> Config:
    settings = {"data_path": str(data_path), "load_col": ALL, "use_gpu": False, "seed": 7}
    return Config("FM", "mixed", config_dict={**settings, **more})


def assert_same(found: Any, wanted: Any, what: str) -> None:
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), what
        for key, value in wanted.items():
            assert_same(found[key], value, f"{what}.{key}")
    elif isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted), what
    elif isinstance(wanted, pd.DataFrame):
        assert list(found) == list(wanted) and found.index.equals(wanted.index), what
        for column in wanted:
            for a, b in zip(found[column], wanted[column], strict=True):
                assert np.array_equal(a, b), (what, column)
            assert found[column].dtype == wanted[column].dtype, (what, column)
    elif hasattr(wanted, "interaction"):
        assert list(found) == list(wanted) and len(found) == len(wanted), what
        for field in wanted:
            assert found[field].dtype == wanted[field].dtype, (what, field)
            assert torch.equal(found[field], wanted[field]), (what, field)
    else:
        assert found == wanted, what


ATTRIBUTES = ("field2type", "field2source", "field2seqlen", "field2id_token", "field2token_id")


def assert_same_dataset(found: Any, wanted: Any) -> None:
    for name in ATTRIBUTES:
        assert_same(getattr(found, name), getattr(wanted, name), name)
    for name in wanted.feat_name_list:
        assert_same(getattr(found, name), getattr(wanted, name), name)


@pytest.mark.parametrize("settings", SETTINGS)
def test_loaded_and_split_like_recbole(settings: str, data_path: Path) -> None:
    more = SETTINGS[settings]
    theirs = recbole_datasets.Dataset(config_of(data_path, **more))
    ours = Dataset(config_of(data_path, **more))
    assert_same_dataset(ours, theirs)
    torch.manual_seed(1)
    wanted = theirs.build()
    torch.manual_seed(1)
    for found, split in zip(ours.build(), wanted, strict=True):
        assert_same_dataset(found, split)


@pytest.mark.parametrize("cells", [("", "g"), ("NA", ""), ("g", "h")], ids=str)
@pytest.mark.parametrize("more", [{}, {"alias_of_item_id": ["entity"]}], ids=["no alias", "alias"])
def test_tokens_of_further_files_stay_tokens_unless_they_are_an_alias(
    cells: tuple[str, str], more: dict[str, Any], data_path: Path
) -> None:
    lines = ["entity:token\tkind:token\tweight:float\tvector:float_seq"]
    lines += [f"i{i}\t{cells[i % 2]}\t{i}\t{i} 1" for i in range(6)]
    (data_path / "mixed" / "mixed.ent").write_text("\n".join([*lines, ""]))
    settings = {"load_col": None, "additional_feat_suffix": ["ent"], **more}
    theirs = recbole_datasets.Dataset(config_of(data_path, **settings))
    ours = Dataset(config_of(data_path, **settings))
    assert all(type(kind) in (str, int) for kind in theirs.ent_feat["kind"])  # 0 where missing
    assert_same_dataset(ours, theirs)


SPLITS = [
    {"split": {"LS": mode}, "order": order, "mode": "labeled", "group_by": "user"}
    for mode in ("valid_and_test", "valid_only", "test_only")
    for order in ("RO", "TO")
] + [
    {"split": {"RS": [7, 2, 1]}, "order": "RO", "mode": "labeled", "group_by": "user"},
    {"split": {"RS": [7, 2, 1]}, "order": "TO", "mode": "labeled", "group_by": None},
    {"split": {"TS": [7, 2, 1]}, "order": "TO", "mode": "labeled", "group_by": "user"},
]


@pytest.mark.parametrize("eval_args", SPLITS, ids=str)
def test_split_like_recbole(eval_args: dict[str, Any], data_path: Path) -> None:
    built = []
    for cls in (recbole_datasets.Dataset, Dataset):
        torch.manual_seed(2)
        built.append(cls(config_of(data_path, eval_args=eval_args)).build())
    for wanted, found in zip(*built, strict=True):
        assert_same_dataset(found, wanted)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("u1\ti1\tx\t1\tt", None),
        ('u1\t"i1\t3\t1\tt', None),
        ("u1\ti1\t3\t1\tt\tmore", None),
        ("\ti1\t3\t1\tt", "do not exist"),
        ('u1\t"i ""1"""\t3\t1\tt', None),
        ("u1\ti1", None),
    ],
)
def test_odd_lines_are_read_or_refused_like_recbole(
    line: str, complaint: str | None, data_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = data_path / "mixed" / "mixed.inter"
    path.write_text(f"{path.read_text()}{line}\n")
    results, said = [], []
    for cls in (recbole_datasets.Dataset, Dataset):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            try:
                results.append(cls(config_of(data_path)))
            except ValueError as error:
                results.append(str(error))
        said.append([record.getMessage() for record in caplog.records])
    assert said[0] == said[1] and (complaint is None or complaint in "".join(said[1]))
    if isinstance(results[0], str):
        assert results[1] == results[0]
    else:
        assert_same_dataset(results[1], results[0])


@pytest.mark.parametrize(
    "more",
    [
        {"normalize_field": ["nothing"]},
        {"normalize_field": ["rating"], "normalize_all": True},
        {"user_inter_num_interval": "[1000,inf)"},
        {"val_interval": {"rating": "[5,inf)"}},
    ],
)
def test_complaints_are_recboles(more: dict[str, Any], data_path: Path) -> None:
    said = []
    for cls in (recbole_datasets.Dataset, Dataset):
        with pytest.raises(ValueError) as error:
            cls(config_of(data_path, **more))
        said.append(str(error.value))
    assert said[0] == said[1]


def test_scaling_a_column_of_one_value_warns_like_recbole(
    data_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data_path / "mixed" / "mixed.item").write_text(f"{ITEM}\ni1\t5\tm\tg\ni2\t5\tm\tg\n")
    more = {"normalize_field": ["price", "rating"], "val_interval": {"item_id": ["i1", "i2"]}}
    theirs = recbole_datasets.Dataset(config_of(data_path, **more))
    caplog.clear()
    ours = Dataset(config_of(data_path, **more))
    assert "All the same value" in caplog.text
    assert_same_dataset(ours, theirs)


def test_a_file_that_is_left_to_recbole_is_named_in_the_log(data_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    path = data_path / "mixed" / "mixed.item"
    Dataset(config_of(data_path))
    assert "is read by RecBole" not in caplog.text
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    Dataset(config_of(data_path))
    assert f"{path} is read by RecBole, which takes longer" in caplog.text


def test_our_classes_are_recboles_with_the_same_name() -> None:
    for theirs, ours in OURS.items():
        assert issubclass(ours, theirs) and ours.__name__ == theirs.__name__


class Loaded:
    """Stands for RecBole's class; to load it is to call what is given."""

    def _load_feat(self, filepath: str, source: Callable[[], None]) -> None:
        source()


class FastLoaded(FastDataset, Loaded):  # type: ignore[misc]
    pass


@pytest.mark.parametrize("step", ["file", "dataset"])
def test_threads_leave_recbole_as_it_was(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread comes while another is at it, and leaves after it."""
    wanted = recbole_dataset.pd, recbole_datasets.Dataset._fill_nan
    monkeypatch.setattr(build, "dataset_class", lambda config: lambda config: config["load"]())

    def load(loading: Callable[[], Any]) -> None:
        if step == "file":
            FastLoaded()._load_feat("", loading)
        else:
            build._load({"load": loading})

    first_has_left = threading.Event()
    second = threading.Thread(target=load, args=(lambda: first_has_left.wait(10),))

    def first() -> None:
        second.start()
        second.join(0.1)

    load(first)
    first_has_left.set()
    second.join()
    assert (recbole_dataset.pd, recbole_datasets.Dataset._fill_nan) == wanted
