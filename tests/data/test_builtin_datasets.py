"""Datasets of RecBole's models against RecBole's own: every batch of whole epochs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.data import dataset as recbole_datasets
from recbole.data.dataloader import KnowledgeBasedDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import KGDataLoaderState, init_seed

from recbole_ext.config import Config
from recbole_ext.data.build import dataset_class
from recbole_ext.data.builtin_datasets import OURS
from recbole_ext.data.rows import PrefixRows

INTER = "user_id:token item_id:token timestamp:float rating:float tags:token_seq parts:float_seq"
USER = "user_id:token age:token income:float"
ITEM = "item_id:token price:float genre:token_seq"
KG = "head_id:token relation_id:token tail_id:token"
LINK = "item_id:token entity_id:token"
N_USERS, N_ITEMS = 14, 11


def write(path: Path, header: str, rows: list[tuple[Any, ...]]) -> None:
    lines = ["\t".join(header.split()), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds of files and columns, missing cells, ties in time, users of one to many rows."""
    rng, folder = np.random.default_rng(3), tmp_path_factory.mktemp("data") / "rich"
    folder.mkdir()
    rows = []
    for user in range(N_USERS):
        for _ in range(1 + user):
            tags = " ".join(f"t{t}" for t in rng.integers(5, size=rng.integers(0, 4)))
            parts = " ".join(f"{x:.2f}" for x in rng.random(rng.integers(1, 3)))
            rating = "" if rng.random() < 0.1 else f"{rng.random():.3f}"
            row = (f"u{user}", f"i{rng.integers(N_ITEMS)}", rng.integers(6), rating, tags, parts)
            rows.append(row)
    rows = [rows[i] for i in rng.permutation(len(rows))]
    write(folder / "rich.inter", INTER, rows)
    people = [(f"u{user}", "" if user == 2 else user % 4, user / 7) for user in range(N_USERS + 2)]
    write(folder / "rich.user", USER, people)
    things = [
        (f"i{item}", item / 3, " ".join(f"g{g}" for g in rng.integers(4, size=item % 3)))
        for item in reversed(range(N_ITEMS))
    ]
    write(folder / "rich.item", ITEM, things)
    write(folder / "rich.kg", KG, [(f"e{i}", f"r{i % 3}", f"e{(i * 5) % 17}") for i in range(30)])
    write(folder / "rich.link", LINK, [(f"i{i}", f"e{i}") for i in range(N_ITEMS)])
    return folder.parent


def config_of(model: str, data_path: Path, tmp_path: Path, **more: Any) -> Config:
    settings = {
        "data_path": str(data_path),
        "checkpoint_dir": str(tmp_path / "saved"),
        "MAX_ITEM_LIST_LENGTH": 5,
        "train_batch_size": 16,
        "eval_batch_size": 64,
        "use_gpu": False,
        "load_col": {"inter": [part.split(":")[0] for part in INTER.split()]},
        "train_neg_sample_args": None,
        "eval_args": eval_args(),
    }
    return Config(model, "rich", config_dict={**settings, **more})


def eval_args(mode: str = "full", group_by: str = "user", **split: Any) -> dict[str, Any]:
    split = split or {"LS": "valid_and_test"}
    return {"split": split, "order": "TO", "mode": mode, "group_by": group_by}


def negatives(n: int = 1) -> dict[str, Any]:
    return {"distribution": "uniform", "sample_num": n, "alpha": 1.0, "dynamic": False}


def epochs(config: Config, make: Any) -> Iterator[tuple[str, Any]]:
    """Yield all that two epochs and the evaluations are given, after RecBole's seeding."""
    init_seed(config["seed"], True)
    train, valid, test = data_preparation(config, make(config))
    for name, loader in (("train", train), ("again", train), ("valid", valid), ("test", test)):
        if isinstance(loader, KnowledgeBasedDataLoader):
            loader.set_mode(KGDataLoaderState.RSKG)
        elif len(loader.dataset) == 0:
            continue
        for batch in loader:
            yield name, batch


def assert_same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, Interaction):
        assert not isinstance(found, PrefixRows)
        assert list(found) == list(wanted) and len(found) == len(wanted)
        for field in wanted:
            a, b = found[field], wanted[field]
            assert a.dtype == b.dtype and torch.equal(a, b), field
    elif isinstance(wanted, torch.Tensor):
        assert found.dtype == wanted.dtype and torch.equal(found, wanted)
    elif isinstance(wanted, tuple):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert_same(a, b)
    else:
        assert found is None and wanted is None


ITEM_COLUMNS = {"item": ["item_id", "price", "genre"]}
ALL = {"inter": [part.split(":")[0] for part in INTER.split()], **ITEM_COLUMNS}
KGS = {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
NO_VECTORS = {"additional_feat_suffix": None, "preload_weight": None}
DIEN = {
    "load_col": {**ALL, "user": ["user_id", "age", "income"]},
    "train_neg_sample_args": negatives(),
    "eval_args": eval_args("uni5"),
}
CASES = {
    "cross-entropy": ("SASRec", {}),
    "item features": ("SASRecF", {"load_col": ALL, "selected_features": ["genre"]}),
    "negatives": ("GRU4Rec", {"loss_type": "BPR", "train_neg_sample_args": negatives(2)}),
    "negatives with features": (
        "FPMC",
        {"train_neg_sample_args": negatives(), "load_col": ALL, "eval_args": eval_args("uni5")},
    ),
    "no shuffle": ("SASRec", {"shuffle": False}),
    "valid only": ("SASRec", {"eval_args": eval_args(LS="valid_only")}),
    "test only": ("SASRec", {"eval_args": eval_args(LS="test_only")}),
    "ratio by user": ("SASRec", {"eval_args": eval_args(RS=[0.6, 0.2, 0.2])}),
    "ratio of all": ("SASRec", {"eval_args": eval_args(group_by="none", RS=[0.6, 0.2, 0.2])}),
    "by time": ("SASRec", {"eval_args": eval_args(TS=[0.6, 0.2, 0.2])}),
    "numbers": ("SASRec", {"numerical_features": ["rating"], "normalize_all": False}),
    "unused columns": ("SASRec", {"unused_col": {"inter": ["timestamp", "rating_list"]}}),
    "masked": ("SASRec", {"transform": "mask_itemseq", "mask_ratio": 0.4}),
    "long limit": ("SASRec", {"MAX_ITEM_LIST_LENGTH": 50}),
    "k-core": ("SASRec", {"user_inter_num_interval": "[3,inf)", "load_col": ALL}),
    "workers": ("SASRec", {"worker": 2}),
    "DIEN": ("DIEN", DIEN),
    "entities": ("GRU4RecKG", {"load_col": {"inter": ALL["inter"], **KGS}, **NO_VECTORS}),
    "more entities": ("KSR", {"load_col": {"inter": ALL["inter"], **KGS}, **NO_VECTORS}),
    "general": (
        "BPR",
        {"train_neg_sample_args": negatives(), "eval_args": eval_args(RS=[8, 1, 1])},
    ),
    "context": ("FM", {**DIEN, "eval_args": eval_args("labeled"), "threshold": {"rating": 0.5}}),
    "knowledge": (
        "CKE",
        {"load_col": {"inter": ALL["inter"], **KGS}, "train_neg_sample_args": negatives()},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_batch_is_recboles(case: str, data_path: Path, tmp_path: Path) -> None:
    model, more = CASES[case]
    config = config_of(model, data_path, tmp_path, **more)
    theirs = list(epochs(config, create_dataset))
    ours = list(
        epochs(config_of(model, data_path, tmp_path, **more), lambda c: dataset_class(c)(c))
    )
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    assert {"train", "again"} < {name for name, _ in theirs}
    for (_, found), (_, wanted) in zip(ours, theirs, strict=True):
        assert_same(found, wanted)


def test_an_epoch_materialises_no_table(data_path: Path, tmp_path: Path) -> None:
    config = config_of("SASRec", data_path, tmp_path)
    loaders = data_preparation(config, dataset_class(config)(config))
    for loader in loaders:
        list(loader)
        kept = loader.dataset.inter_feat.interaction.data
        for field in ("item_id_list", "rating_list", "tags_list", "parts_list", "timestamp_list"):
            assert not isinstance(kept[field], torch.Tensor), field


def test_every_class_of_recbole_has_ours_or_is_a_base() -> None:
    classes = {
        value
        for name, value in vars(recbole_datasets).items()
        if isinstance(value, type) and name.endswith("Dataset")
    }
    assert classes - set(OURS) == {recbole_datasets.KGSeqDataset}  # no model asks for it
