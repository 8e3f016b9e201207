"""The runner: what a warm start takes over, what a finished run gives back, what a resume finds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from recbole.model.general_recommender.bpr import BPR

from recbole_ext import quick_start
from recbole_ext.config import Config
from recbole_ext.quick_start import load_run, pretrained, run
from recbole_ext.trainer.checkpoint import read_checkpoint
from recbole_ext.types import UserError


class Mine(BPR):
    """A model outside the package, given as a class."""


@pytest.fixture
def settings(tiny_settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    base = {k: v for k, v in tiny_settings.items() if k not in ("train_neg_sample_args",)}
    return {**base, "embedding_size": 8, "epochs": 2, "output_dir": str(tmp_path / "run")}


# ---- a run


def test_a_class_is_trained_and_found_again(settings: dict[str, Any], tmp_path: Path) -> None:
    result = run(Mine, "tiny", config_dict=settings)
    assert result["model"] == "Mine" and Path(result["folder"]) == tmp_path / "run"
    loaded = load_run(tmp_path / "run")
    assert type(loaded.model).__qualname__ == "Mine" and not loaded.model.training
    best = read_checkpoint(tmp_path / "run" / "best.pt")["state_dict"]
    assert all(torch.equal(value, best[key]) for key, value in loaded.model.state_dict().items())
    assert loaded.dataset.user_num == 31


def test_a_model_of_parts_loads_from_its_run_alone(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1}
    settings = {key: value for key, value in settings.items() if key != "embedding_size"}
    callbacks = {"callbacks": [{"Checkpoint": {"every": 1}}]}
    run("SASRec", "tiny", config_dict={**settings, **sizes, **callbacks})
    monkeypatch.chdir(tmp_path)
    log = (tmp_path / "run" / "train.log").read_bytes()
    loaded = load_run("run")
    assert (tmp_path / "run" / "train.log").read_bytes() == log, "looking changes nothing"
    assert loaded.config["hidden_size"] == 8


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "config.yaml").unlink(), "run holds no run"),
        (lambda folder: (folder / "best.pt").unlink(), "cannot read the checkpoint .*best.pt"),
        (lambda folder: (folder / "best.pt").write_bytes(b""), "best.pt is damaged"),
    ],
    ids=["no settings", "no weights", "empty weights"],
)
def test_a_run_that_cannot_be_loaded_says_why(
    spoil: Any, sentence: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    run("BPR", "tiny", config_dict={**settings, "epochs": 0})
    spoil(tmp_path / "run")
    with pytest.raises(UserError, match=sentence):
        load_run(tmp_path / "run")


def test_other_data_under_a_run_are_noticed(
    settings: dict[str, Any], tmp_path: Path, tiny_data_path: Path
) -> None:
    source = (tiny_data_path / "tiny" / "tiny.inter").read_text()
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    inter = tmp_path / "data" / "tiny" / "tiny.inter"
    inter.write_text(source)
    run("BPR", "tiny", config_dict={**settings, "epochs": 0, "data_path": str(tmp_path / "data")})
    inter.write_text(source.replace("i7\t", "j7\t"))
    with pytest.raises(UserError, match="best.pt was trained on other items .dataset 'tiny'"):
        load_run(tmp_path / "run")


# ---- a resume


def test_a_resume_may_train_longer_and_cleans_up(settings: dict[str, Any], tmp_path: Path) -> None:
    whole = {**settings, "output_dir": str(tmp_path / "whole"), "epochs": 4, "stopping_step": 10}
    run("BPR", "tiny", config_dict=whole)
    run("BPR", "tiny", config_dict={**settings, "stopping_step": 10})
    (tmp_path / "run" / ".best.pt.77.tmp").write_bytes(b"half of a write that was killed")
    run(resume=tmp_path / "run", overrides=["--epochs=4"])
    assert not list((tmp_path / "run").glob(".*.tmp"))
    ours, theirs = (read_checkpoint(tmp_path / name / "last.pt") for name in ("run", "whole"))
    assert ours["epoch"] == theirs["epoch"] == 3
    for key, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][key], value)


def test_a_refused_resume_changes_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    run("BPR", "tiny", config_dict=settings)
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="there is no folder"):
        run(resume=tmp_path / "run", overrides=["--data_path=/nowhere"])
    last = (tmp_path / "run" / "last.pt").read_bytes()
    (tmp_path / "run" / "last.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match="last.pt is damaged"):
        run(resume=tmp_path / "run", overrides=["--epochs=9"])
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    (tmp_path / "run" / "last.pt").write_bytes(last)
    run(resume=tmp_path / "run", overrides=["--epochs=3"])
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["epochs"] == 3


def test_a_run_is_resumed_from_any_folder(
    settings: dict[str, Any], tmp_path: Path, tiny_data_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RecBole's data_path, dataset/, is meant where the run was started."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    shutil.copytree(tiny_data_path, tmp_path / "here" / "dataset")
    rest = {k: v for k, v in settings.items() if k != "data_path"}
    monkeypatch.chdir(tmp_path / "here")
    run("BPR", "tiny", config_dict=rest)
    monkeypatch.chdir(tmp_path / "there")
    assert run(resume=tmp_path / "run", overrides=["--epochs=3"])["test"]


def test_a_run_without_epochs_left_has_metrics_beyond_accuracy(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """As a resume of a run that was killed in its test has none left."""
    settings = {**settings, "metrics": ["NDCG", "ItemCoverage", "AveragePopularity"]}
    first = run("BPR", "tiny", config_dict=settings)
    assert run(resume=tmp_path / "run")["test"] == first["test"]
    untrained = {**settings, "epochs": 0, "output_dir": str(tmp_path / "untrained")}
    assert 0 < run("BPR", "tiny", config_dict=untrained)["test"]["itemcoverage@10"] <= 1


def test_a_folder_in_use_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    run("BPR", "tiny", config_dict=settings)
    fcntl = pytest.importorskip("fcntl")
    with open(tmp_path / "run" / ".lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is at work in the run folder"):
            run(resume=tmp_path / "run", overrides=["--epochs=3"])


def test_results_without_a_checkpoint_are_not_overwritten(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run("BPR", "tiny", config_dict=settings)
    (tmp_path / "run" / "last.pt").unlink()
    with pytest.raises(UserError, match="last.pt is missing.*would overwrite the results"):
        run(resume=tmp_path / "run")


def test_numpy_numbers_are_taken_as_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    numbers = {"learning_rate": np.float64(0.01), "topk": [np.int64(10)], "epochs": 1}
    run("BPR", "tiny", config_dict={**settings, **numbers})
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["learning_rate"] == 0.01 and written["topk"] == [10]


def test_a_resume_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run in that folder"):
        run(resume=tmp_path)


# ---- a warm start


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the warm start would be trained with; nothing is trained."""
    calls: list[dict[str, Any]] = []

    def train(model: str, dataset: str, config_dict: dict[str, Any]) -> None:
        calls.append({"model": model, "dataset": dataset, **config_dict})

    monkeypatch.setattr(quick_start, "run", train)
    return calls


def ftragrec(tiny_settings: dict[str, Any], tmp_path: Path, *overrides: str, **more: Any) -> Config:
    place = {"pretrain_dir": str(tmp_path / "warm")}
    return Config("FTRagRec", "tiny", None, {**tiny_settings, **place, **more}, overrides)


def test_a_warm_start_takes_the_settings_of_the_model_and_its_own_of_training(
    tiny_settings: dict[str, Any], asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = ftragrec(
        tiny_settings,
        tmp_path,
        "--hidden_size=16",
        "--eval_args.mode=uni5",
        "--seed=7",
        "--learning_rate=0.5",
        "--callbacks=[Progress]",
        pretrain_epochs=3,
        pretrain_config={"train_batch_size": 32},
    )
    folder = pretrained(config, "DuoRec", "fingerprint")
    (settings,) = asked
    expected = {"model": "DuoRec", "dataset": "tiny", "hidden_size": 16, "seed": 7, "epochs": 3}
    expected.update(train_batch_size=32, output_dir=str(folder))
    assert {key: settings[key] for key in expected} == expected
    assert settings["eval_args"]["mode"] == "uni5"
    assert not {"learning_rate", "callbacks", "pretrained_path", "topk"} & settings.keys()
    assert folder.parent == tmp_path / "warm" and folder.name.startswith("DuoRec-tiny-")


def test_a_warm_start_is_one_per_dataset_and_settings(
    tiny_settings: dict[str, Any], asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    def folder(*overrides: str, fingerprint: str = "one") -> Path:
        config = ftragrec(tiny_settings, tmp_path, *overrides)
        return pretrained(config, "DuoRec", fingerprint)

    first = folder()
    for same in (["--learning_rate=0.5"], ["--epochs=9"], ["--show_progress=false"]):
        assert folder(*same) == first, same
    others = [
        folder(fingerprint="two"),
        folder("--hidden_size=8"),
        folder("--seed=3"),
        folder("--pretrain_epochs=2"),
        folder("--eval_args.mode=uni5"),
    ]
    assert len({first, *others}) == 6
    n_asked = len(asked)
    first.mkdir(parents=True)
    (first / "best.pt").touch()
    (first / "result.json").touch()
    assert folder() == first and len(asked) == n_asked, "it is trained already"


def test_a_warm_start_that_was_cut_off_is_continued(
    tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(quick_start, "run", lambda *_, **settings: calls.append(settings))
    config = ftragrec(tiny_settings, tmp_path)
    folder = pretrained(config, "DuoRec", "one")
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    assert pretrained(config, "DuoRec", "one") == folder
    assert calls[1] == {"resume": folder}
