"""The YAML files of ``properties/`` and ``dataset_configs/``: their form, and what they load."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from recbole.config import Config as RecBoleConfig

from recbole_ext import quick_start
from recbole_ext.compare.overrides import read_overrides
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset
from recbole_ext.registry import get_model

FILES = sorted([*(ROOT / "properties").rglob("*.yaml"), *(ROOT / "dataset_configs").glob("*.yaml")])
DATASETS = sorted((ROOT / "dataset_configs").glob("*.yaml"))
START = 978_300_000
"""A Unix time of the year 2000, as in MovieLens-1M."""


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=short)
def test_file_begins_with_its_command_and_types_every_key(path):
    text = path.read_text(encoding="utf-8")
    head = re.match(r"(#.*\n)+", text)
    assert head and re.search(
        r"^# (python run_recbole_ext.py|recbole-ext \w+) --\w+=", head.group(), re.MULTILINE
    )
    typed = set(
        re.findall(
            r"^(\w+):[^#\n]*# \((?:int|float|str|bool|list|dict)[^)]*\) \S", text, re.MULTILINE
        )
    )
    assert set(yaml.safe_load(text) or ()) - typed == set()


@pytest.mark.parametrize("path", DATASETS, ids=short)
def test_dataset_file_names_no_model(path):
    keys = set(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert (
        keys
        & {
            "model",
            "loss_type",
            "epochs",
            "learning_rate",
            "train_batch_size",
            "MAX_ITEM_LIST_LENGTH",
        }
        == set()
    )


@pytest.mark.parametrize("model", ["BPR", "SASRec", "FDSA", "DIN", "DeepFM", "CKE"])
def test_ml_100k_changes_nothing_of_recboles_own(model, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["test"])
    negatives = {"train_neg_sample_args": None} if model in ("SASRec", "FDSA") else {}
    theirs = RecBoleConfig(model, "ml-100k", config_dict=negatives).final_config_dict
    ours = yaml.safe_load((ROOT / "dataset_configs" / "ml-100k.yaml").read_text(encoding="utf-8"))
    assert {key: theirs[key] for key in ours} == ours
    assert Config(model, "ml-100k", config_dict=negatives)["load_col"] == theirs["load_col"]


DROPOUTS = ("hidden_dropout_prob", "attn_dropout_prob")


@pytest.mark.parametrize("model", ["DuoRec", "FTRagRec"])
def test_our_sequential_models_drop_little_on_ml_1m(model):
    for dataset, expected in {"ml-1m": 0.1, "amazon-beauty": 0.5, "ml-100k": 0.5}.items():
        config = Config(model, dataset)
        assert [config[key] for key in DROPOUTS] == [expected] * 2, dataset
    assert Config(model, "ml-1m", config_dict={DROPOUTS[0]: 0.3})[DROPOUTS[0]] == 0.3


def test_lrurecs_example_has_the_published_settings():
    """Those of the authors' code for ml-1m, not what our models take there otherwise."""
    published = {
        "MAX_ITEM_LIST_LENGTH": 200,
        "train_batch_size": 128,
        "learner": "adamw",
        "learning_rate": 0.001,
        "weight_decay": 0.01,
        "clip_grad_norm": {"max_norm": 5},
        "hidden_size": 64,
        "n_layers": 2,
        "mask_history": True,
        "valid_metric": "Recall@10",
        "stopping_step": 10,
        **dict.fromkeys(DROPOUTS, 0.2),
    }
    config = Config("LRURec", "ml-1m", [ROOT / "examples" / "lrurec_ml-1m.yaml"])
    assert {key: config[key] for key in published} == published


@pytest.mark.parametrize(
    ("more", "expected"), [({}, [0.1, 0.1]), ({DROPOUTS[0]: 0.5}, [0.5, 0.1])], ids=["own", "user"]
)
def test_a_warm_start_on_ml_1m_drops_little_too(more, expected, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(quick_start, "run", lambda *names, **more: asked.append((names, more)))
    place = {"pretrain_dir": str(tmp_path), **more}
    quick_start.pretrained(Config("FTRagRec", "ml-1m", config_dict=place), "DuoRec", "fingerprint")
    ((names, settings),) = asked
    warm = Config(*names, **settings)
    assert warm["model"] == "DuoRec" and [warm[key] for key in DROPOUTS] == expected


@pytest.mark.parametrize("model", ["SASRec", "BERT4Rec", "LightSANs", "FEARec", "SASRecF"])
def test_a_built_in_model_on_ml_1m_drops_as_in_recbole(model, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["test"])
    settings = {"train_neg_sample_args": None}
    theirs = RecBoleConfig(model, "ml-1m", config_dict=settings).final_config_dict
    ours = Config(model, "ml-1m", config_dict=settings)
    assert [ours[key] for key in DROPOUTS] == [theirs[key] for key in DROPOUTS]
    assert 0.1 not in [theirs[key] for key in DROPOUTS], "the test would see no difference"


@pytest.mark.parametrize("dataset", ["ml-1m", "amazon-beauty"])
@pytest.mark.parametrize("with_rating", [True, False], ids=["with rating", "without rating"])
def test_files_with_and_without_ratings_load_and_are_5_core(dataset, with_rating, tmp_path):
    rows = [
        (u, i) for u in range(12) for i in range(12) if (u * i) % 5 < 4 and (i < 9 or u < i - 7)
    ]
    kept = five_core(rows)
    assert 0 < len(kept) < len(rows)
    columns = {"user_id:token": [u for u, _ in rows], "item_id:token": [i for _, i in rows]}
    if with_rating:
        columns["rating:float"] = [3] * len(rows)
    columns["timestamp:float"] = list(range(len(rows)))
    write(tmp_path, dataset, columns)
    data = create_dataset(
        Config("BPR", dataset, config_dict={"data_path": str(tmp_path), "use_gpu": False})
    )
    assert len(data) == len(kept)
    assert data.user_num - 1 == len({u for u, _ in kept})
    assert data.item_num - 1 == len({i for _, i in kept})
    assert ("rating" in data.field2type) == with_rating


@pytest.mark.parametrize("shift", [6, 60])
def test_ml_1m_keeps_the_order_of_interactions_seconds_apart(shift, tmp_path):
    """Unix times do not survive 32 bits: times a minute apart become the same number."""
    n = 6
    users = [u for u in range(n) for _ in range(n)]
    items = [(u + step) % n for u in range(n) for step in range(n)]
    times = [START + 80_000_000 * (u == 5) + shift * step for u in range(n) for step in range(n)]
    order = [row * 7 % len(users) for row in range(len(users))]
    assert sorted(order) == list(range(len(users)))
    columns = {"user_id:token": users, "item_id:token": items, "timestamp:float": times}
    write(
        tmp_path,
        "ml-1m",
        {name: [values[row] for row in order] for name, values in columns.items()},
    )
    settings = {
        "data_path": str(tmp_path),
        "use_gpu": False,
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": n,
    }
    data = create_dataset(Config("SASRec", "ml-1m", config_dict=settings))
    train, _, test = data.build()
    feat = test.inter_feat
    for row in range(n):
        user = int(data.id2token("user_id", feat["user_id"][row]))
        history = [
            int(token)
            for token in data.id2token("item_id", feat["item_id_list"][row])
            if token != "[PAD]"
        ]
        assert history == [(user + step) % n for step in range(n - 1)]


def test_template_is_a_settings_file_that_trains(tiny_data_path):
    """Every key is known, and it loads the columns that a file in its form has."""
    settings = {"data_path": str(tiny_data_path), "use_gpu": False}
    config = Config("DuoRec", "tiny", [ROOT / "dataset_configs" / "template.yaml"], settings)
    data = create_dataset(config)
    assert set(data.inter_feat.columns) == {"user_id", "item_id", "timestamp"}
    assert data.inter_feat["timestamp"].between(0, 1).all()


@pytest.mark.data
@pytest.mark.parametrize(
    ("dataset", "users", "items", "interactions"),
    [
        ("amazon-beauty", 22_363, 12_101, 198_502),
        pytest.param("ml-1m", 6_040, 3_416, 999_611, marks=pytest.mark.slow),
    ],
)
def test_published_sizes(dataset, users, items, interactions, shared_data):
    data = create_dataset(
        Config("BPR", dataset, config_dict={"data_path": str(shared_data), "use_gpu": False})
    )
    assert (data.user_num - 1, data.item_num - 1, len(data)) == (users, items, interactions)


def five_core(rows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Drop users and items with fewer than 5 rows until none is left, the plain way."""
    while True:
        by_user, by_item = Counter(u for u, _ in rows), Counter(i for _, i in rows)
        kept = [(u, i) for u, i in rows if by_user[u] >= 5 and by_item[i] >= 5]
        if len(kept) == len(rows):
            return kept
        rows = kept


def write(folder: Path, dataset: str, columns: dict[str, list]) -> None:
    place = folder / dataset
    place.mkdir()
    lines = [
        "\t".join(columns),
        *("\t".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
    ]
    (place / f"{dataset}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("compare_*.yaml")), ids=short)
def test_the_command_in_an_example_of_a_comparison_takes_the_example(path):
    words = path.read_text().splitlines()[0].removeprefix("# recbole-ext compare ").split()
    given = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    assert ROOT / given["overrides"] == path
    models = given["models"].split(",")
    found = read_overrides(path, models, given["datasets"].split(","))
    assert {one.model for one in found.variants} | set(found.by_model) <= set(models)
    for model in models:
        get_model(model)
