"""The dataset cache: only when asked for, only while nothing has changed; it changes nothing."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.data.dataset import SequentialDataset as RecBoles
from recbole.utils import init_seed

from recbole_ext.config import Config
from recbole_ext.data import build, cache
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.builtin_datasets import Dataset, SequentialDataset
from recbole_ext.types import UserError


@pytest.fixture
def settings(tiny_settings: dict[str, Any], tiny_data_path: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings over a copy of the tiny data, which a test may change."""
    shutil.copytree(tiny_data_path / "tiny", tmp_path / "data" / "tiny")
    return {**tiny_settings, "data_path": str(tmp_path / "data")}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The datasets that were read from their files."""
    counted: list[str] = []
    real = build._load

    def load(config: Any) -> Any:
        counted.append(config["dataset"])
        return real(config)

    monkeypatch.setattr(build, "_load", load)
    return counted


def config_of(settings: dict[str, Any], **more: Any) -> Config:
    return Config("SASRec", "tiny", config_dict={**settings, **more})


def batches(config: Config) -> list[dict[str, torch.Tensor]]:
    """Return what a training epoch and the evaluations see, after RecBole's seeding."""
    init_seed(config["seed"], True)
    train, valid, test = create_loaders(config, create_dataset(config))
    found = [batch.interaction for batch in train]
    return found + [batch[0].interaction for loader in (valid, test) for batch in loader]


def same(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        for a, b in zip(one, other, strict=True)
    )


def test_no_cache_is_written_or_read_unless_asked_for(
    settings: dict[str, Any], loads: list[str], tmp_path: Path
) -> None:
    create_dataset(config_of(settings))
    assert not list(tmp_path.rglob("*.pkl")) and not list(tmp_path.rglob("*.pth"))
    create_dataset(config_of(settings, save_dataset=True))
    (kept,) = (tmp_path / "saved").iterdir()
    kept.write_bytes(b"whoever reads this fails")
    # RecBole reads what lies under this name whether asked or not
    (tmp_path / "saved" / "tiny-SequentialDataset.pth").write_bytes(b"and this")
    create_dataset(config_of(settings))
    assert len(loads) == 3


def test_a_cache_is_used_while_nothing_has_changed(
    settings: dict[str, Any], loads: list[str]
) -> None:
    plain = batches(config_of(settings))
    kept = config_of(settings, save_dataset=True)
    assert same(batches(kept), plain)
    assert len(loads) == 2
    again = config_of(settings, save_dataset=True, epochs=7)  # nothing that shapes the data
    assert same(batches(again), plain)
    assert len(loads) == 2
    dataset = create_dataset(again)
    assert dataset.config is again and len(loads) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"user_inter_num_interval": "[8,inf)"},
        {"MAX_ITEM_LIST_LENGTH": 5},
        {"load_col": None},
        {"kg_reverse_r": True},
        {"encoding": "utf-8-sig"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_setting_of_the_data_is_another_cache(
    change: dict[str, Any], settings: dict[str, Any], loads: list[str]
) -> None:
    create_dataset(config_of(settings, save_dataset=True))
    create_dataset(config_of(settings, save_dataset=True, **change))
    assert len(loads) == 2


@pytest.mark.parametrize("where", ["checkpoint_dir", "dataset_save_path"])
def test_another_content_is_another_cache(
    where: str, settings: dict[str, Any], loads: list[str], tmp_path: Path
) -> None:
    """RecBole compares settings only, and gives the old data."""
    settings = {**settings, where: str(tmp_path / "cache" / "here")}
    first = create_dataset(config_of(settings, save_dataset=True))
    inter = tmp_path / "data" / "tiny" / "tiny.inter"
    inter.write_text("".join(inter.read_text().splitlines(keepends=True)[:-1]))
    second = create_dataset(config_of(settings, save_dataset=True))
    assert len(loads) == 2
    assert len(second.inter_feat) == len(first.inter_feat) - 1
    assert second.fingerprint != first.fingerprint


def test_another_version_of_a_library_is_another_cache(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(settings)
    key = cache.cache_key(config, SequentialDataset)
    assert cache.cache_key(config_of(settings), SequentialDataset) == key
    for owner, name in ((cache.pd, "__version__"), (cache, "__version__")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, "99")
            assert cache.cache_key(config, SequentialDataset) != key
    assert cache.cache_key(config, SequentialDataset) == key


def test_another_class_is_another_cache_though_it_has_the_same_name(
    settings: dict[str, Any],
) -> None:
    config = config_of(settings)
    mine = type("SequentialDataset", (SequentialDataset,), {})
    classes = (SequentialDataset, RecBoles, Dataset, mine)
    assert len({cache.cache_key(config, cls) for cls in classes}) == len(classes)


def test_saving_loaders_changes_no_result(settings: dict[str, Any], tmp_path: Path) -> None:
    """In RecBole it takes the generators away from the live loaders (U9)."""
    assert same(batches(config_of(settings, save_dataloaders=True)), batches(config_of(settings)))
    assert not list(tmp_path.rglob("*dataloader*"))


def test_a_cache_holds_no_settings_and_leaves_the_dataset_its_own(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "cache.pkl"
    config = config_of(settings, save_dataset=True, dataset_save_path=str(path))
    assert create_dataset(config).config is config
    assert pickle.loads(path.read_bytes())[2].config is None
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["cache.pkl"]


@pytest.mark.parametrize("content", [b"", b"half", pickle.dumps({"other": 1}), pickle.dumps(5)])
def test_a_file_that_is_no_cache_is_named_and_kept(
    content: bytes, settings: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "mine.pkl"
    path.write_bytes(content)
    config = config_of(settings, save_dataset=True, dataset_save_path=str(path))
    with pytest.raises(UserError, match="mine.pkl is no dataset cache .* delete it, or set"):
        create_dataset(config)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = str(tmp_path / "file" / "cache.pkl")
    config = config_of(settings, save_dataset=True, dataset_save_path=place)
    with pytest.raises(UserError, match="cannot write .*cache.pkl: File exists"):
        create_dataset(config)
