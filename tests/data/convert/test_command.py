"""``recbole-ext convert``: what it prints, that its files run as they are, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_ext.cli import main
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset
from recbole_ext.data.convert.formats import amazon_2014
from recbole_ext.data.convert.registry import families
from recbole_ext.quick_start import run
from tests.data.convert.samples import records, reviews_2018, rows, write


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Reviews of 12 users and 8 items, a day apart, every user of every other item or so."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    quads = [
        (f"A{user:02d}", f"B{item:09d}", float(rng.integers(1, 6)), 86400 * (100 * user + step))
        for user in range(12)
        for step, item in enumerate(rng.permutation(8)[:6])
    ]
    records(tmp_path / "raw" / "X_5.json", *reviews_2018(*quads, ("A99", "B000000001", 5.0, 1)))
    meta = [
        {
            **{"asin": f"B{item:09d}", "title": f'The "{item}" ', "category": ["A b", "C"]},
            **{"brand": "NA", "price": "$5", "imageURL": [f"https://m/{item}.jpg"]},
        }
        for item in range(8)
    ]
    records(tmp_path / "raw" / "meta_X.json", *meta)
    return tmp_path / "raw"


def call(capsys, *arguments):
    code = main(["convert", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


COMMAND = ("amazon", "--source=raw", "--out=data/toys", "--min_uc=2")


def test_it_says_what_it_did_and_what_to_do_next(raw, capsys):
    with open(raw / "X_5.json", "a") as stream:
        stream.write("{'overall': 5}\n")
    code, out, _ = call(capsys, *COMMAND)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "amazon-2018: raw/X_5.json, raw/meta_X.json"
    assert lines[1].split() == "read 73 interactions 13 users 8 items".split()
    assert lines[3].split()[3:] == "72 interactions 12 users 8 items".split()
    assert "X_5.json: 1 of 74 lines are malformed and left out (line 74: Expecting" in lines[4]
    assert lines[5:] == [
        "  8 of 8 items are described",
        "wrote conversion.json, images.csv, toys.inter, toys.item, toys.yaml in data/toys",
        "run: python run_recbole_ext.py --model=SASRec --dataset=toys --data_path=data",
        "pictures: recbole-ext images --links=data/toys/images.csv --out=data/toys/images",
    ]


def test_the_files_run_as_they_are(raw, tmp_path, capsys):
    assert call(capsys, *COMMAND)[0] == 0
    quick = {
        "data_path": "data",
        "epochs": 1,
        "use_gpu": False,
        "topk": [2],
        "valid_metric": "MRR@2",
    }
    result = run("Pop", "toys", config_dict={**quick, "output_dir": str(tmp_path / "run")})
    assert 0 < result["test"]["recall@2"] <= 1


def test_the_settings_beside_the_data_load_it(raw, capsys):
    assert call(capsys, *COMMAND)[0] == 0
    config = Config("SASRec", "toys", config_dict={"data_path": "data"})  # has no load_col itself
    dataset = create_dataset(config)
    assert (dataset.user_num, dataset.item_num, dataset.inter_num) == (13, 9, 72)
    times = dataset.inter_feat["timestamp"].to_numpy()
    assert (times.min(), times.max()) == (0, 1)
    items = ["item_id", "title", "categories", "price"]
    columns = {"load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": items}}
    dataset = create_dataset(Config("BPR", "toys", config_dict={"data_path": "data", **columns}))
    assert (dataset.item_num, dataset.inter_num) == (9, 72)  # no item lacks a row
    assert sorted(dataset.field2id_token["categories"][1:]) == ["A_b", "C"]
    assert dataset.item_feat["price"][1] == 5


def test_settings_beside_the_data_are_weaker_than_the_users(raw, tmp_path, capsys):
    assert call(capsys, *COMMAND)[0] == 0
    given = {"data_path": "data", "user_inter_num_interval": "[3,inf)"}
    config = Config("BPR", "toys", config_dict=given, overrides=["--normalize_field=~"])
    assert config["user_inter_num_interval"] == "[3,inf)" and config["normalize_field"] is None
    assert config["load_col"]["inter"] == ["user_id", "item_id", "rating", "timestamp"]
    assert config.resolved["load_col"] == config["load_col"]  # a resumed run has them


@pytest.mark.parametrize(
    ("out", "name", "place"),
    [("data/toys", "", "data/toys"), ("data", "toys", "data/toys"), ("toys", "toys", "toys")],
)
def test_the_folder_has_the_name_of_the_dataset(out, name, place, raw, tmp_path, capsys):
    given = [f"--out={out}", *([f"--name={name}"] if name else [])]
    assert call(capsys, "amazon", "--source=raw", *given)[0] == 0
    assert (tmp_path / place / "toys.inter").is_file()


def test_the_help_names_the_options(capsys):
    code, out, _ = call(capsys, "movielens", "--help")
    assert code == 0 and out.startswith("usage: recbole-ext convert movielens --key=value")
    for option in ("--source", "--out", "--min_uc", "--min_sc", "--min_rating", "--duplicates"):
        assert option in out
    assert call(capsys, "--help")[1].startswith("usage: recbole-ext convert")


def test_a_format_is_a_file_by_its_name():
    assert families() == {
        "amazon": ["amazon_2014", "amazon_2018", "amazon_2023"],
        "movielens": ["movielens_100k", "movielens_1m", "movielens_latest"],
    }
    assert amazon_2014.Format.name == "amazon-2014"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "convert: one of amazon, movielens, mind is meant, not ''"),
        (("amazn",), "is meant, not 'amazn'; did you mean 'amazon'?"),
        (("amazon", "--source=raw"), "recbole-ext convert amazon needs --out=...; see"),
        (("amazon", "--source=", "--out=x"), "--source is empty; name the folder with the raw"),
        (("amazon", "--source=raw", "--out=/"), "--out takes the folder of the dataset, and --na"),
        (("amazon", "--source=raw/meta_X.json", "--out=x"), "; name the folder, or a file of inte"),
        (("amazon", "--source=rw", "--out=x"), "--source: there is no folder rw; name the one"),
        (
            ("movielens", "--source=raw", "--out=x"),
            "raw has no files of movielens that are known by their names and first lines; looked "
            "for: u.data (with u.item and u.user) of movielens-100k; ratings.dat",
        ),
        ((*COMMAND, "--min_sc=-1"), "--min_sc takes a number from 0, not -1"),
        ((*COMMAND, "--min_sc=five"), "--min_sc takes int, not 'five'"),
        ((*COMMAND, "--min_rating=.nan"), "--min_rating takes a number, not nan"),
        ((*COMMAND, "--filter=cores"), "--filter takes core or once, not 'cores'; did you"),
        ((*COMMAND, "--duplicates=none"), "--duplicates takes first or last or keep, not 'none'"),
        (("amazon", "--source=raw", "--out=x", "--filter=once"), "--filter=once is for --min_uc"),
        ((*COMMAND, "--name=a/b"), "--out takes the folder of the dataset, and --name one name"),
        (("amazon", "--source=raw", "--out=raw/X_5.json"), "--out: raw/X_5.json is a file"),
        ((*COMMAND, "--mn_uc=3"), "has no --mn_uc; did you mean 'min_uc'"),
        (("amazon", "--source=raw", "--out=x", "--min_uc=99"), "leaves none of 73 interactions"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(arguments, sentence, raw, tmp_path, capsys):
    code, out, err = call(capsys, *arguments)
    assert code == 2 and sentence in err and len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_ctrl_c_leaves_nothing(raw, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("recbole_ext.data.convert.conversion.write_side", interrupt)
    code, _, err = call(capsys, *COMMAND)
    assert code == 130 and "interrupted; nothing was written: give it once more" in err
    assert not (tmp_path / "data").exists()


def test_a_folder_without_interactions_is_refused(tmp_path, capsys):
    write(tmp_path / "raw" / "ratings.csv", "userId,movieId,rating,timestamp")
    code, _, err = call(capsys, "movielens", f"--source={tmp_path / 'raw'}", f"--out={tmp_path}/x")
    assert code == 2 and "ratings.csv has no interactions" in err
    write(tmp_path / "raw" / "ratings.csv", "userId,movieId,rating,timestamp", "1,2,3,4")
    _, out, _ = call(capsys, "movielens", f"--source={tmp_path / 'raw'}", f"--out={tmp_path}/x")
    assert "nothing about items, so no .item file; looked for: ratings.csv (with movies.csv" in out
    assert rows(tmp_path / "x" / "x.inter")[1:] == [["1", "2", "3", "4"]]
