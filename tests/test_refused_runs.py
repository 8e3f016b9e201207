"""A run that is refused leaves nothing in the way of the next attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recbole.model.general_recommender.bpr import BPR

from recbole_ext.quick_start import run
from recbole_ext.types import UserError


@pytest.fixture
def settings(tiny_settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    rest = {k: v for k, v in tiny_settings.items() if k != "train_neg_sample_args"}
    return {**rest, "epochs": 1, "embedding_size": 8, "output_dir": str(tmp_path / "run")}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"topk": [500], "valid_metric": "MRR@500"}, "topk .500. asks for more items than .* .40."),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"seed": 2**32}, "seed must be below"),
        ({"weight_decay": -0.5}, "weight_decay must be 0 or more"),
    ],
)
def test_a_refused_run_leaves_no_folder(
    wrong: dict[str, Any], sentence: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        run("BPR", "tiny", config_dict={**settings, **wrong})
    assert not (tmp_path / "run").exists()
    assert run("BPR", "tiny", config_dict=settings)["folder"] == str(tmp_path / "run")


def test_what_others_put_into_the_folder_stays(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError):
        run("BPR", "tiny", config_dict={**settings, "topk": [500], "valid_metric": "MRR@500"})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"mix": "vectors"}, "mix: 'vectors' is none of"),
        ({"top_k": 9999}, "top_k: 9999 neighbours cannot come from a memory of"),
        ({"callbacks": ["Progress"]}, "callbacks: .* lacks FaissRefresh"),
        ({"pretrain": "none"}, "pretrain: none without pretrained_path"),
    ],
)
def test_settings_are_checked_before_a_warm_start_is_trained(
    wrong: dict[str, Any], sentence: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {k: v for k, v in settings.items() if k != "embedding_size"}
    with pytest.raises(UserError, match=sentence):
        run("FTRagRec", "tiny", config_dict={**settings, "pretrain_dir": str(tmp_path), **wrong})
    assert not list(tmp_path.glob("DuoRec-*"))


def test_what_was_in_the_folder_before_stays_whatever_its_name(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Even where the run would have written a file of that name itself."""
    (tmp_path / "run" / "tensorboard").mkdir(parents=True)
    mine = ["tensorboard/precious", "train.log", ".notes.tmp"]
    for name in mine:
        (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(UserError):
        run("BPR", "tiny", config_dict={**settings, "topk": [500], "valid_metric": "MRR@500"})
    for name in mine:
        assert (tmp_path / "run" / name).read_text().startswith("mine"), name
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("model", "wrong", "sentence"),
    [
        ("SASRec", {"hidden_size": 10, "n_heads": 3}, "SASRec cannot be built .*multiple of"),
        ("SASRec", {"hidden_act": "foo"}, "these settings: no 'foo'; change hidden_act: foo "),
        (
            "SASRec",
            {"attn_dropout_prob": 1.5},
            "dropout .* got 1.5; change attn_dropout_prob: 1.5 ",
        ),
        ("SASRec", {"n_heads": 3}, "heads .3.; change .*n_heads: 3 .prop"),
        ("SASRec", {"loss_type": "XX"}, "SASRec cannot be built .*neg sampling"),
        ("SASRec", {"learning_rate": float("nan")}, "learning_rate must be greater than 0"),
        ("SASRec", {"nproc": 0}, "nproc must be greater than 0"),
        ("BPR", {"pretrained_path": "/nowhere"}, "pretrained_path: BPR starts from no other"),
        ("DuoRec", {"pretrain": "bogus"}, "pretrain: DuoRec starts from no other model"),
        ("DuoRec", {"pretrain_epochs": 3}, "pretrain_epochs: DuoRec starts from no other model"),
    ],
)
def test_what_a_model_refuses_is_one_sentence_and_leaves_no_folder(
    model: str, wrong: dict[str, Any], sentence: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {k: v for k, v in settings.items() if k != "embedding_size" or model == "BPR"}
    with pytest.raises(UserError, match=sentence):
        run(model, "tiny", config_dict={**settings, **wrong})
    assert not (tmp_path / "run").exists()


class Buggy(BPR):
    """A user's model with a bug in it."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        {}["a key that is not there"]


def test_a_bug_in_a_model_of_ones_own_is_not_bad_input(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(KeyError, match="a key that is not there"):
        run(Buggy, "tiny", config_dict=settings)
    assert not (tmp_path / "run").exists(), "and the name is free for the next attempt"


class NoLoss(BPR):
    """A user's model that forgot to return its loss."""

    def calculate_loss(self, interaction: Any) -> Any:
        super().calculate_loss(interaction)


def test_a_loss_that_is_none_is_said(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="NoLoss: its loss is a NoneType, and a scalar tensor is"):
        run(NoLoss, "tiny", config_dict=settings)


@pytest.mark.parametrize(
    "callback",
    [
        {"EarlyStop": {"metric": "ndgc@10"}},
        {"Alternate": {"phases": [{"name": "a", "until": {"metric": "ndgc@10"}}, {"name": "b"}]}},
    ],
)
def test_a_misspelt_metric_of_a_callback_is_found_before_training(
    callback: dict[str, Any], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BPR, "calculate_loss", lambda *_: pytest.fail("it trains"))
    with pytest.raises(UserError, match="no metric 'ndgc@10'; did you mean 'ndcg@10'"):
        run("BPR", "tiny", config_dict={**settings, "callbacks": [callback]})


@pytest.mark.parametrize(
    ("model", "wrong", "sentence"),
    [
        ("UR4Rec", {"text_feature": "title", "n_proxies": -1}, "n_proxies takes a number from 2"),
        (
            "MultimodalPreferenceRetriever",
            {"text_feature": "title", "fusion": "tokn"},
            "fusion: 'tokn' is none of .*did you mean 'token'",
        ),
        ("JointRec", {"memory_bank_size": -5}, "memory_bank_size takes a number from 0 to"),
        (
            "TextPreferenceRetriever",
            {"text_feature": "title", "profile_pooling": "atention"},
            "profile_pooling: 'atention' is none of",
        ),
        ("BPR", {"item_init": {"feature": "title", "how": "int"}}, "how takes init, add, concat"),
        ("FTRagRec", {"pretrain": "none"}, "pretrain: none without pretrained_path"),
        (
            "TextPreferenceRetriever",
            {},
            r"--text_feature=title \(there are posters, words in .*features/tiny; recbole-ext",
        ),
        ("VBPR", {"features_dir": "empty"}, r"title \(there are none in empty/tiny; recbole-ext"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_before_the_data_are_read(
    model: str,
    wrong: dict[str, Any],
    sentence: str,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(config: Any) -> Any:
        raise AssertionError("the data were read")

    monkeypatch.setattr("recbole_ext.quick_start.create_dataset", read)
    for name in ("words", "posters"):
        (tmp_path / "features" / "tiny" / name).mkdir(parents=True)
        (tmp_path / "features" / "tiny" / name / "manifest.json").write_text("{}")
    shared = {key: value for key, value in settings.items() if key != "embedding_size"}
    given = {**shared, "features_dir": str(tmp_path / "features"), **wrong}
    with pytest.raises(UserError, match=sentence):
        run(model, "tiny", config_dict=given)
    assert not (tmp_path / "run").exists()
