"""Settings: who wins, how values are read, what is refused, and that nothing else is touched."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import recbole.utils
import torch
import yaml
from recbole.config import Config as RecBoleConfig
from recbole.model.general_recommender.bpr import BPR
from settings_help import ReadsItsOwnKey, sasrec, write

from recbole_ext import run_folder
from recbole_ext.config import Config, device_of
from recbole_ext.registry import RECBOLE, builtin_models
from recbole_ext.settings_reading import parse_overrides, parse_value, read_yaml
from recbole_ext.types import UserError

# ---- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("1.5E+2", 150.0),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("None", None),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-11-22", "2024-11-22"),
        ("2024-11-22 10:00:00", "2024-11-22 10:00:00"),
        ("[5,10]", [5, 10]),
        ("['NDCG','Recall']", ["NDCG", "Recall"]),
        ("{'split':{'RS':[0.8,0.1,0.1]}}", {"split": {"RS": [0.8, 0.1, 0.1]}}),
        ("{rating: '[3,inf)'}", {"rating": "[3,inf)"}),
        ("[5,inf)", "[5,inf)"),
        ("(0,1)", "(0,1)"),
        ("__import__('os')", "__import__('os')"),
        ("!!python/object/apply:os.getcwd []", "!!python/object/apply:os.getcwd []"),
        ("a=b", "a=b"),
        ("'5'", "5"),
        ("._", "._"),
    ],
)
def test_a_value_is_read_as_yaml_and_never_run(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def test_an_override_is_split_at_its_first_equals_sign() -> None:
    assert parse_overrides(["--tag=a=b", "--run_id=2024-11-22"]) == {
        "tag": "a=b",
        "run_id": "2024-11-22",
    }
    config = sasrec("--tag=a=b", "--run_id=2024-11-22", "--allow_keys=[tag, run_id]")
    assert (config["tag"], config["run_id"]) == ("a=b", "2024-11-22")


def test_a_key_may_come_twice_with_one_value_only() -> None:
    assert parse_overrides(["--epochs=5", "--epochs=5"]) == {"epochs": 5}
    with pytest.raises(UserError, match="--epochs is given twice, as 5 and as 6; keep one"):
        parse_overrides(["--epochs=5", "--epochs=6"])


@pytest.mark.parametrize("argument", ["epochs=5", "--epochs", "-e=5", "--=5", "SASRec"])
def test_an_argument_of_another_form_is_refused(argument: str) -> None:
    with pytest.raises(UserError, match=re.escape(argument)):
        parse_overrides([argument])


# ---- precedence


def test_each_source_beats_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One key per adjacent pair of layers: the value is the stronger layer's."""
    from recbole_ext import paths
    from recbole_ext.models.base import ExtRecommender

    keys = ["p_family", "p_model", "p_dataset", "p_both", "p_file", "p_file2", "p_dict", "p_line"]
    names = ["base", "family/fam", "model/Mine", "dataset", "family/fam_on_tiny"]
    names += ["one.yaml", "two.yaml", "dict", "line"]
    layers = {name: {} for name in names}
    for low, high, key in zip(names[:-1], names[1:], keys, strict=True):
        layers[low][key], layers[high][key] = f"from {low}", f"from {high}"
    properties = tmp_path / "properties"
    for folder in ("family", "model"):
        (properties / folder).mkdir(parents=True)
    (tmp_path / "dataset_configs").mkdir()
    base = read_yaml(paths.data_folder("properties") / "base.yaml")
    write(properties / "base.yaml", yaml.safe_dump({**base, **layers["base"]}))
    family = {**layers["family/fam"], "train_neg_sample_args": None}
    write(properties / "family" / "fam.yaml", yaml.safe_dump(family))
    write(properties / "model" / "Mine.yaml", yaml.safe_dump(layers["model/Mine"]))
    write(tmp_path / "dataset_configs" / "tiny.yaml", yaml.safe_dump(layers["dataset"]))
    both = layers["family/fam_on_tiny"]
    write(properties / "family" / "fam_on_tiny.yaml", yaml.safe_dump(both))
    files = [write(tmp_path / name, yaml.safe_dump(layers[name])) for name in names[5:7]]
    monkeypatch.setattr(paths, "data_folder", lambda name: tmp_path / name)
    mine = type("Mine", (ExtRecommender, BPR), {"family": "fam"})
    overrides = [f"--{key}={value}" for key, value in layers["line"].items()]
    known = {"allow_keys": ["p_file2", "p_dict", "p_line"]}
    config = Config(mine, "tiny", files, {**layers["dict"], **known}, overrides)
    assert {key: config[key] for key in keys} == {
        key: f"from {name}" for key, name in zip(keys, names[1:], strict=True)
    }


def test_a_built_in_models_yaml_beats_its_familys(monkeypatch: pytest.MonkeyPatch) -> None:
    """In RecBole the family's file is read last and wins."""
    from recbole_ext import config as module

    real = module.read_yaml
    fake = {
        RECBOLE / "properties" / "model" / "SASRec.yaml": {"eval_args": {"mode": "uni50"}},
        RECBOLE / "properties" / "quick_start_config" / "sequential.yaml": {"repeatable": True},
    }
    monkeypatch.setattr(module, "read_yaml", lambda path: {**real(path), **fake.get(path, {})})
    config = sasrec()
    assert config["eval_args"]["mode"] == {"valid": "uni50", "test": "uni50"}
    assert config["eval_args"]["split"] == {"LS": "valid_and_test"}  # the family's, entry by entry


def test_files_are_merged_in_order_and_name_model_and_dataset(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "model: BPR\ndataset: ml-100k\nepochs: 1\nseed: 1\n")
    two = write(tmp_path / "two.yaml", "epochs: 2\n")
    config = Config(config_file_list=[one, two])
    assert (config["model"], config["dataset"], config["epochs"], config["seed"]) == (
        "BPR",
        "ml-100k",
        2,
        1,
    )


def test_nested_keys_set_one_entry() -> None:
    config = sasrec("--eval_args.mode=uni100", "--eval_args.group_by=none")
    assert config["eval_args"]["mode"] == {"valid": "uni100", "test": "uni100"}
    assert config["valid_neg_sample_args"] == {"distribution": "uniform", "sample_num": 100}
    assert config["eval_args"]["group_by"] == "none"
    assert config["eval_args"]["order"] == "TO"
    bpr = Config("BPR", "ml-100k", overrides=["--train_neg_sample_args.sample_num=2"])
    assert bpr["train_neg_sample_args"]["sample_num"] == 2
    assert bpr["train_neg_sample_args"]["distribution"] == "uniform"


def test_nested_keys_work_in_files_and_leave_the_defaults_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "eval_args.mode: {valid: uni10, test: full}\n")
    assert sasrec(files=[path])["eval_args"]["mode"] == {"valid": "uni10", "test": "full"}
    assert sasrec()["eval_args"]["mode"] == {"valid": "full", "test": "full"}


def test_a_nested_key_of_what_has_no_entries_is_refused() -> None:
    with pytest.raises(UserError, match="--epochs.max: 'epochs' is 300, which has no entries"):
        sasrec("--epochs.max=3")


def test_eval_args_are_merged_entry_by_entry_and_other_mappings_replaced() -> None:
    config = sasrec(eval_args={"mode": "uni100"}, val_interval={"rating": "[3,inf)"})
    assert config["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert config["eval_args"]["mode"] == {"valid": "uni100", "test": "uni100"}
    assert sasrec(load_col={"inter": ["user_id"]})["load_col"] == {"inter": ["user_id"]}


# ---- defaults


def test_a_sequential_cross_entropy_model_samples_no_negatives() -> None:
    assert sasrec()["train_neg_sample_args"]["distribution"] == "none"
    bpr_loss = sasrec("--loss_type=BPR")
    assert bpr_loss["train_neg_sample_args"]["distribution"] == "uniform"
    assert Config("BPR", "ml-100k")["train_neg_sample_args"]["distribution"] == "uniform"


def test_negatives_written_as_none_in_a_file_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "train_neg_sample_args: None\n")
    assert sasrec(files=[path])["train_neg_sample_args"]["distribution"] == "none"


def test_history_masking_is_said_for_every_family() -> None:
    assert sasrec()["mask_history"] is False
    assert Config("BPR", "ml-100k")["mask_history"] is True
    assert sasrec("--mask_history=true")["mask_history"] is True


def test_ml_100k_is_the_bundled_copy_unless_a_place_is_named(tmp_path: Path) -> None:
    bundled = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"
    assert Path(sasrec()["data_path"]).samefile(bundled)
    assert Path(sasrec(data_path=str(tmp_path))["data_path"]) == tmp_path / "ml-100k"


def test_the_boosted_trees_have_recboles_yaml_for_them() -> None:
    """RecBole's files are in lower case, its class names are not."""
    from recbole_ext.config import _layers

    for name in ("XGBoost", "LightGBM"):
        model_class = type(name, (), {"type": recbole.utils.ModelType.DECISIONTREE})
        path = RECBOLE / "properties" / "model" / f"{name.lower()}.yaml"
        assert path.is_file() and path in _layers(name, model_class, "ml-100k")


# ---- nothing else is touched


def test_the_environment_and_recboles_globals_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(sys, "argv", ["prog", "--model=BPR", "--epochs=77"])
    lists = ("general", "training", "evaluation", "dataset")
    before = {name: list(getattr(recbole.utils, f"{name}_arguments")) for name in lists}
    resolvers = {k: list(v) for k, v in yaml.FullLoader.yaml_implicit_resolvers.items()}
    safe = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    given = {"eval_args": {"mode": "uni100"}, "topk": [5], "valid_metric": "MRR@5"}
    config = Config("SASRec", "ml-100k", config_dict=given)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert (config["model"], config["epochs"]) == ("SASRec", 300)  # sys.argv is not read
    assert {name: getattr(recbole.utils, f"{name}_arguments") for name in lists} == before
    assert yaml.FullLoader.yaml_implicit_resolvers == resolvers
    assert yaml.SafeLoader.yaml_implicit_resolvers == safe
    assert given == {"eval_args": {"mode": "uni100"}, "topk": [5], "valid_metric": "MRR@5"}


# ---- the resolved settings


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("SASRec", ["--loss_type=BPR", "--eval_args.mode=uni100", "--show_progress=auto"]),
        ("BPR", ["--topk=[5,10]", "--mask_history=false", "--user_inter_num_interval=[5,inf)"]),
        ("DeepFM", ["--run_id=2024-11-22", "--allow_keys=[run_id]"]),
        ("KGCN", []),
        ("DuoRec", ["--callbacks=[{EarlyStop: {metric: ndcg@10}}]", "--weight_decay=1e-8"]),
    ],
)
def test_config_yaml_alone_gives_the_same_run(
    model: str, overrides: list[str], tmp_path: Path
) -> None:
    first = Config(model, "ml-100k", overrides=overrides)
    run_folder.write_config(tmp_path, first.resolved)
    again = Config(config_file_list=[tmp_path / "config.yaml"])
    assert again.resolved == first.resolved
    assert again.final_config_dict == first.final_config_dict
    assert again.model_class is first.model_class


def test_an_outside_model_is_found_again_from_config_yaml(tmp_path: Path) -> None:
    first = Config(ReadsItsOwnKey, "ml-100k", config_dict={"data_path": tmp_path})
    run_folder.write_config(tmp_path, first.resolved)
    again = Config(config_file_list=[tmp_path / "config.yaml"])
    assert again.model_class.__qualname__ == "ReadsItsOwnKey"
    assert again["data_path"] == str(tmp_path / "ml-100k")


# ---- RecBole's own values

DIFFERENT = {
    "show_progress": "only in a terminal",
    "device": "use_gpu counts, and the environment stays as it is",
}
"""Keys whose value is ours by intention, and why."""

NO_NEGATIVES = {"SINE", "RepeatNet"}
"""RecBole samples negatives for these, and their cross-entropy then takes them for targets."""


@pytest.mark.parametrize("initial", sorted({name[0] for name in builtin_models()}))
def test_every_built_in_model_has_recboles_settings(
    initial: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["prog"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    extras = {"XGBoost", "LightGBM"}
    for name in [name for name in builtin_models() if name[0] == initial]:
        try:
            ours = Config(name, "ml-100k")
        except UserError as error:
            assert name in extras and "not installed" in str(error), name
            continue
        negatives = ours.model_class.type == recbole.utils.ModelType.SEQUENTIAL and (
            ours["loss_type"] == "CE"
        )
        given = {"train_neg_sample_args": None} if negatives else {}
        theirs = RecBoleConfig(ours.model_class, "ml-100k", config_dict=given).final_config_dict
        expected = {key: value for key, value in theirs.items() if key not in DIFFERENT}
        assert {key: ours.final_config_dict.get(key) for key in expected} == expected, name


# ---- devices


def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.parametrize(
    ("gpu_id", "rank", "device"),
    [("0", 0, "cuda:0"), ("2, 3", 0, "cuda:2"), ("2,3", 1, "cuda:3"), ("", 0, "cpu")],
)
def test_each_process_takes_the_gpu_that_is_named_for_it(
    gpu_id: str, rank: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_gpus(monkeypatch)
    assert device_of(True, gpu_id, rank) == torch.device(device)
    assert device_of(False, gpu_id, rank) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(True, gpu_id, rank) == torch.device("cpu")


@pytest.mark.parametrize(
    ("gpu_id", "rank", "words"),
    [
        ("0", 1, "'0' has no GPU of its own for process 2 of nproc; name one for each"),
        ("2,2", 1, "'2,2' has no GPU of its own for process 2"),
        ("4", 0, r"'4': this machine shows 4 GPU\(s\)"),
        ("first", 0, r"'first': this machine shows 4 GPU\(s\)"),
    ],
)
def test_a_gpu_that_is_not_there_or_is_taken_is_refused(
    gpu_id: str, rank: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_gpus(monkeypatch)
    with pytest.raises(UserError, match=words):
        device_of(True, gpu_id, rank)


@pytest.mark.parametrize("model", ["BPR", "DuoRec"])
def test_one_length_is_a_list_of_one_for_whoever_reads_it(model):
    config = Config(model, "ml-100k", overrides=["--topk=10"])
    assert config["topk"] == config.resolved["topk"] == [10]
    with pytest.raises(UserError, match="topk takes"):
        Config(model, "ml-100k", overrides=["--topk=True"])


# ---- settings beside the data


def test_settings_in_the_datasets_folder_lie_between_the_datasets_and_the_users(tmp_path):
    """``ml-1m`` has a file of its own, which filters; the file beside the data is stronger."""
    (tmp_path / "ml-1m").mkdir()
    beside = tmp_path / "ml-1m" / "ml-1m.yaml"
    beside.write_text("user_inter_num_interval: ~\nepochs: 7\neval_args: {mode: uni5}\n")
    given = {"data_path": str(tmp_path)}
    config = Config("BPR", "ml-1m", config_dict=given)
    assert config["user_inter_num_interval"] is None and config["epochs"] == 7
    assert config["item_inter_num_interval"] == "[5,inf)"  # of dataset_configs/ml-1m.yaml
    assert config["eval_args"]["mode"] == {"valid": "uni5", "test": "uni5"}
    assert config["eval_args"]["split"] == {"RS": [0.8, 0.1, 0.1]}  # one entry was set, not all
    assert Config("BPR", "ml-1m", config_dict={**given, "epochs": 8})["epochs"] == 8
    assert Config("BPR", "ml-1m")["epochs"] == 300  # another place


def test_a_data_path_that_is_none_is_refused_as_before():
    with pytest.raises(UserError, match="data_path takes str, not 5"):
        Config("BPR", "shop", overrides=["--data_path=5"])


def test_a_misspelt_key_beside_the_data_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset" / "shop").mkdir(parents=True)  # where RecBole looks by default
    (tmp_path / "dataset" / "shop" / "shop.yaml").write_text("epoch: 7\n")
    with pytest.raises(UserError, match="unknown setting 'epoch'; did you mean 'epochs'"):
        Config("BPR", "shop")


def test_the_bundled_dataset_has_no_folder_of_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset" / "ml-100k").mkdir(parents=True)
    (tmp_path / "dataset" / "ml-100k" / "ml-100k.yaml").write_text("epochs: 7\n")
    assert Config("BPR", "ml-100k")["epochs"] == 300
