"""Settings that cannot be meant are refused in one sentence that names key, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_help import ReadsItsOwnKey, sasrec, write

from recbole_ext.config import Config
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import UserError

WRONG = {
    "a misspelt key": (["--epoch=5"], "unknown setting 'epoch'; did you mean 'epochs'"),
    "a key of another model": (["--n_iter_max_xyz=1"], "unknown setting 'n_iter_max_xyz'"),
    "another model's key": (["--mlp_train=true"], "'mlp_train' is a setting of NeuMF, not of SAS"),
    "a word for a number": (["--epochs=abc"], "epochs takes int, not 'abc'"),
    "a boolean for a number": (["--epochs=true"], "epochs takes int, not True"),
    "a fraction for an integer": (["--train_batch_size=1e3"], "train_batch_size takes int"),
    "a number for a boolean": (["--use_gpu=2"], "use_gpu takes bool, not 2"),
    "a list for a string": (["--valid_metric=[MRR@10]"], "valid_metric takes str"),
    "a batch of none": (["--train_batch_size=0"], "train_batch_size must be greater than 0"),
    "a negative rate": (["--learning_rate=-0.1"], "learning_rate must be greater than 0, not -0.1"),
    "negative epochs": (["--epochs=-1"], "epochs must be 0 or more, not -1"),
    "an unknown metric": (["--metrics=[NDGC]"], "no metric 'NDGC'; did you mean 'ndcg'"),
    "no metrics": (["--metrics=None"], "metrics takes a name or a list of names, not None"),
    "two kinds of metrics": (["--metrics=[NDCG,AUC]"], "mix ranking and value metrics"),
    "topk of zero": (["--topk=[0,5]"], r"topk takes a positive integer .* not \[0, 5\]"),
    "topk of words": (["--topk=five"], "topk takes .* not 'five'"),
    "a metric not computed": (["--valid_metric=AUC"], "'AUC' is not computed; .*: Recall@10"),
    "a k not computed": (["--valid_metric=MRR@20"], "'MRR@20' is not computed"),
    "a metric without its k": (["--valid_metric=MRR"], "'MRR' is not computed; .*MRR@10"),
    "a k that is none": (["--valid_metric=MRR@ten"], "'MRR@ten' is not computed"),
    "an unknown optimizer": (["--learner=adamm"], "learner takes one of adam, .* not 'adamm'"),
    "an unknown order": (["--eval_args.order=TIME"], "eval_args.order takes one of RO, TO, not"),
    "an unknown group": (["--eval_args.group_by=item"], "eval_args.group_by takes one of user"),
    "an unknown split": (["--eval_args.split={XS: [1]}"], "eval_args.split takes .* not {'XS'"),
    "a split of one word": (["--eval_args.split=RS"], "eval_args.split takes .* not 'RS'"),
    "an unknown mode": (
        ["--eval_args.mode=uniform"],
        "eval_args.mode takes full, .* not 'uniform'",
    ),
    "a split in two": (["--eval_args.split={RS: [0.8, 0.2]}"], "eval_args.split takes"),
    "no interval": (["--user_inter_num_interval=5"], "_interval takes str, as in '.5,inf.'"),
    "callbacks by name": (
        ["--callbacks={Freeze: {}}"],
        "callbacks takes list, as in '- Freeze: .rules: .*, a line each, not {'Freeze'",
    ),
    "a device": (["--device=cuda"], "device is no setting; use_gpu and gpu_id choose it"),
    "half an interval": (
        ["--val_interval={rating: '[3,'}"],
        "val_interval.rating takes an interval, as in '.5,inf.' or '.0,1.', not '.3,'",
    ),
    "a misspelt entry": (["--eval_args.mod=full"], "eval_args has no entry 'mod'; did you mean"),
    "a misspelt clip": (["--clip_grad_norm={max: 5}"], "clip_grad_norm has no entry 'max'"),
    "negatives for CE": (
        ["--train_neg_sample_args={distribution: uniform}"],
        "train_neg_sample_args.*should be None when the loss_type is CE",
    ),
    "one nested negative for CE": (
        ["--train_neg_sample_args.sample_num=2"],
        "train_neg_sample_args.*should be None when the loss_type is CE",
    ),
    "an unknown distribution": (
        ["--loss_type=BPR", "--train_neg_sample_args.distribution=pop"],
        "train_neg_sample_args.distribution takes one of uniform, popularity, not 'pop'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_settings_are_one_sentence_that_names_the_key(case: str) -> None:
    overrides, sentence = WRONG[case]
    with pytest.raises(UserError, match=sentence) as caught:
        sasrec(*overrides)
    assert "\n" not in str(caught.value)


def test_a_text_may_begin_with_a_bracket() -> None:
    assert sasrec("--data_path=[old] data").resolved["data_path"] == "[old] data"
    with pytest.raises(UserError, match="--data_path is no YAML: .old; a bracket is not closed"):
        sasrec("--data_path={old")


def test_a_key_of_ones_own_may_have_the_name_of_one_that_is_none() -> None:
    assert sasrec(device="cpu", allow_keys=["device"]).resolved["device"] == "cpu"


def test_good_settings_near_the_bad_ones_are_taken() -> None:
    config = sasrec(
        "--epochs=0",
        "--topk=5",
        "--metrics=NDCG",
        "--valid_metric=ndcg@5",
        "--learner=AdamW",
        "--learning_rate=1",
        "--clip_grad_norm={max_norm: 5}",
        "--eval_args.split={RS: [8, 1, 1]}",
        "--gpu_id=0",
        "--item_inter_num_interval=[5,inf)",
        "--val_interval={rating: '(1.5,3];[4,5]', tag: [a, b]}",
    )
    assert (config["epochs"], config["topk"], config["metrics"]) == (0, [5], ["NDCG"])
    assert config["gpu_id"] == "0"
    assert Config("DeepFM", "ml-100k")["valid_metric"] == "AUC"  # a metric that takes no k


def test_neither_model_nor_dataset_goes_without_saying() -> None:
    with pytest.raises(UserError, match="no model is named; give --model=SASRec"):
        Config(None, "ml-100k")
    with pytest.raises(UserError, match="no dataset is named; give --dataset=ml-100k"):
        Config("SASRec")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs: [1, 2\nseed: 3\n", r"bad\.yaml, line \d: not valid YAML"),
        ("- epochs\n- 5\n", r"bad\.yaml: a settings file is a mapping .* not list"),
        ("5: 6\n", r"bad\.yaml: a settings file is a mapping"),
        ("epochs: !!python/object/apply:os.getcwd []\n", r"bad\.yaml, line 1: not valid YAML"),
        (
            "epochs: 1\nseed: 3\nepochs: 2\n",
            r"bad\.yaml, line 3: .*'epochs' is there",
        ),
        ("epochs: ._\n", r"bad\.yaml: not valid YAML"),
    ],
)
def test_a_bad_yaml_file_is_named_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_yaml(write(tmp_path / "bad.yaml", text))


def test_a_settings_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.yaml: No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"tag: \xe9t\xe9\n")
    with pytest.raises(UserError, match="latin.yaml: not UTF-8 text"):
        read_yaml(tmp_path / "latin.yaml")
    assert read_yaml(write(tmp_path / "empty.yaml", "# nothing\n")) == {}


def test_a_key_that_the_models_source_reads_is_known() -> None:
    config = Config(ReadsItsOwnKey, "ml-100k", config_dict={"my_own_blend": 0.3})
    assert config["my_own_blend"] == 0.3
    with pytest.raises(UserError, match="unknown setting 'my_own_blend'"):
        Config("BPR", "ml-100k", config_dict={"my_own_blend": 0.3})


def test_a_key_named_under_allow_keys_is_known() -> None:
    assert sasrec(blend=1, allow_keys=["blend"])["blend"] == 1
    with pytest.raises(UserError, match="unknown setting 'blend'"):
        sasrec(blend=1, allow_keys=["blender"])
