"""MIND: impressions, histories and news, from raw files to atomic ones."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from recbole.model.general_recommender.bpr import BPR
from recbole.utils import InputType

from recbole_ext.cli import main
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.convert import mind_conversion
from recbole_ext.data.convert.mind import seconds
from recbole_ext.data.convert.mind_conversion import convert_mind
from recbole_ext.data.convert.mind_files import DAY, Source, Split, find_sources
from recbole_ext.data.news_entities import read_entity_vectors
from tests.data.convert.samples import rows, write

INTER = [
    *("impression_id:token", "hist_id:token", "user_id:token", "item_id:token", "label:float"),
    "timestamp:float",
]
ITEM = [
    *("item_id:token", "category:token", "subcategory:token", "title:token_seq"),
    *("abstract:token_seq", "entities:token_seq"),
]
TRAIN = (
    "1\tU1\t11/9/2019 11:59:59 PM\tN1 N2 N3\tN4-1 N5-0",
    "2\tU2\t11/10/2019 12:00:00 AM\t\tN4-0 N6-1 N1-0",
    "3\tU1\t11/11/2019 12:30:05 PM\tN1 N2 N3\tN6-0 N5-1",
)
DEV = (
    "1\tU1\t11/12/2019 9:05:58 AM\tN1 N2 N3 N4\tN7-1 N6-0",
    "2\tU3\t11/12/2019 9:05:59 AM\tN9\tN7-0 N4-1",
)


ONE_VALUE = {"valid_metric": "AUC", "train_neg_sample_args": None}


class OfTheFamily(BPR):
    """A model of one's own that reads what the news models read."""

    family = "news"
    input_type = InputType.POINTWISE


def entity(number, confidence, **more):
    return {"Label": "x", "WikidataId": number, "Confidence": confidence, **more}


def news(number, title="T", abstract="A", of_title=(), of_abstract=(), category="sports"):
    lists = (json.dumps(list(of_title)), json.dumps(list(of_abstract)))
    return "\t".join([number, category, "golf", title, abstract, "https://x/1.html", *lists])


@pytest.fixture
def folders(tmp_path):
    """MINDsmall_train and MINDsmall_dev in one folder, with N4 in both and N8 in no impression."""
    raw = tmp_path / "raw"
    write(raw / "MINDsmall_train" / "behaviors.tsv", *TRAIN)
    write(raw / "MINDsmall_dev" / "behaviors.tsv", *DEV)
    four = news("N4", "Says \"it' is", "&amp; <b>so</b>", [entity("Q1", 0.5)], [entity("Q2", 0.49)])
    write(raw / "MINDsmall_train" / "news.tsv", four, news("N1"), news("N8"))
    seven = news("N7", of_title=[entity("Q2", 1)], of_abstract=[entity("Q2", 1), entity("Q3", 1)])
    write(raw / "MINDsmall_dev" / "news.tsv", four, seven)
    return raw


def convert(source, out, dev=None, **more):
    return convert_mind(find_sources(source, dev), out, out.name, **more)


def utc(*parts):
    return str(int(datetime(*parts, tzinfo=timezone.utc).timestamp()))


def test_the_impressions_of_two_folders(folders, tmp_path):
    """The last day of training is validation, and the folder dev is the test."""
    done = convert(folders, tmp_path / "m")
    one, two = utc(2019, 11, 9, 23, 59, 59), utc(2019, 11, 10)
    assert rows(tmp_path / "m" / "m.train.inter") == [
        INTER,
        ["1@train", "U1@train", "U1", "N4", "1", one],
        ["1@train", "U1@train", "U1", "N5", "0", one],
        ["2@train", "U2@train", "U2", "N4", "0", two],
        ["2@train", "U2@train", "U2", "N6", "1", two],
        ["2@train", "U2@train", "U2", "N1", "0", two],
    ]
    three = utc(2019, 11, 11, 12, 30, 5)
    assert rows(tmp_path / "m" / "m.valid.inter")[1:] == [
        ["3@train", "U1@train", "U1", "N6", "0", three],
        ["3@train", "U1@train", "U1", "N5", "1", three],
    ]
    test = rows(tmp_path / "m" / "m.test.inter")[1:]
    assert [row[:2] for row in test] == [["1@dev", "U1@dev"]] * 2 + [["2@dev", "U3@dev"]] * 2
    assert done.split == {"valid_from": "2019-11-11", "test_from": "dev"}
    train = done.parts["train"]
    assert (train.impressions, train.clicks, train.non_clicks) == (2, 2, 3)
    assert (train.empty_histories, done.users, done.histories) == (1, 3, 4)


def test_a_history_is_written_once_and_its_newest_clicks_are_kept(folders, tmp_path):
    done = convert(folders, tmp_path / "m", max_history=3)
    assert rows(tmp_path / "m" / "m.user") == [
        ["hist_id:token", "user_id:token", "history:token_seq"],
        ["U1@train", "U1", "N1 N2 N3"],
        ["U2@train", "U2", ""],
        ["U1@dev", "U1", "N2 N3 N4"],
        ["U3@dev", "U3", "N9"],
    ]
    assert done.cut_histories == 1


def test_a_history_that_grows_within_a_folder_has_an_id_for_each(tmp_path):
    lines = [
        f"{i}\tU1\t11/{9 + i}/2019 1:00:00 AM\t{history}\tN4-1"
        for i, history in enumerate(["N1", "N1 N2", "N1", "N1 N2 N3"])
    ]
    write(tmp_path / "raw" / "behaviors.tsv", *lines)
    write(tmp_path / "raw" / "news.tsv", news("N4"))
    convert(tmp_path / "raw", tmp_path / "m")
    ids = [["U1@train", "N1"], ["U1@train.2", "N1 N2"], ["U1@train.3", "N1 N2 N3"]]
    assert [row[::2] for row in rows(tmp_path / "m" / "m.user")[1:]] == ids
    found = [rows(tmp_path / "m" / f"m.{part}.inter")[1:] for part in ("train", "valid", "test")]
    assert [row[1] for part in found for row in part] == [
        *("U1@train", "U1@train.2", "U1@train", "U1@train.3")
    ]


def test_every_news_has_a_row_described_or_not_shown_or_not(folders, tmp_path):
    done = convert(folders, tmp_path / "m")
    described, bare = rows(tmp_path / "m" / "m.item")[:5], rows(tmp_path / "m" / "m.item")[5:]
    assert described == [
        ITEM,
        ["N4", "sports", "golf", "Says ''it' is", "& so", "Q1"],
        ["N1", "sports", "golf", "T", "A", ""],
        ["N8", "sports", "golf", "T", "A", ""],
        ["N7", "sports", "golf", "T", "A", "Q2 Q3"],
    ]
    assert {row[0] for row in bare} == {"N2", "N3", "N5", "N6", "N9"} and len(bare) == 5
    assert all(row[1:] == [""] * 5 for row in bare)
    side = done.sides["item"]
    assert (side.rows, side.described, side.repeated) == (9, 4, 1)
    assert (done.news, done.shown_news, done.news_with_text) == (8, 5, 3)
    assert done.rows_without_text == 5  # three of N6 and two of N5


def test_a_day_begins_at_midnight():
    one, split = Source("train", Path("x"), None), Split(2 * DAY, 3 * DAY)
    times = [2 * DAY - 1, 2 * DAY, 3 * DAY - 1, 3 * DAY]
    assert [split.part(one, time) for time in times] == ["train", "valid", "valid", "test"]


def test_impressions_that_no_metric_counts_are_said(folders, tmp_path, capsys):
    write(folders / "MINDsmall_dev" / "behaviors.tsv", DEV[0].replace("-0", "-1"), DEV[1])
    write(folders / "MINDsmall_train" / "behaviors.tsv", TRAIN[0].replace("-1", "-0"), *TRAIN[1:])
    assert main(["convert", "mind", f"--source={folders}", f"--out={tmp_path / 'm'}"]) == 0
    said = "  2 impressions have clicks alone, or none: no metric counts them"
    assert said in capsys.readouterr().out.splitlines()


def test_one_folder_is_split_by_its_days(folders, tmp_path):
    """And its files may be packed."""
    train = folders / "MINDsmall_train"
    for name in ("behaviors.tsv", "news.tsv"):
        write(train / f"{name}.gz", (train / name).read_bytes().rstrip())
        (train / name).unlink()
    done = convert(train, tmp_path / "m")
    assert done.split == {"valid_from": "2019-11-10", "test_from": "2019-11-11"}
    found = [rows(tmp_path / "m" / f"m.{part}.inter")[1:] for part in ("train", "valid", "test")]
    assert [{row[0] for row in part} for part in found] == [{"1@train"}, {"2@train"}, {"3@train"}]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("11/15/2019 12:03:09 AM", (2019, 11, 15, 0, 3, 9)),
        ("11/15/2019 12:03:09 PM", (2019, 11, 15, 12, 3, 9)),
        ("1/5/2020 1:00:00 PM", (2020, 1, 5, 13)),
        ("11/15/2019 11:59:59 PM", (2019, 11, 15, 23, 59, 59)),
    ],
)
def test_noon_and_midnight(text, parts):
    assert str(seconds(text)) == utc(*parts)


BAD = [
    ("9\tU1\t11/9/2019 1:00:00 AM\tN1", "4 cells instead of 5"),
    ("9\tU1\t11/9/2019 1:00:00 AM\tN1\t", "no news was shown"),
    ("9\tU1\t11/9/2019 1:00:00 AM\tN1\tN4 N5", "'N4' is no news with its label, as N55689-1"),
    ("9\tU1\t11/9/2019 1:00:00 AM\tN1\tN4-2", "'N4-2' is no news with its label, as N55689-1"),
    ("9\tU1\t11/31/2019 1:00:00 AM\tN1\tN4-1", "day is out of range for month"),
    ("9\tU1\t11/9/2019 13:00:00 AM\tN1\tN4-1", "is no time as 11/15/2019 8:55:22 AM"),
    ("9\tU1\t11/9/2019 0:30:00 AM\tN1\tN4-1", "is no time as 11/15/2019 8:55:22 AM"),
    ("9\t\t11/9/2019 1:00:00 AM\tN1\tN4-1", "'' is no id"),
    ("9\tU1\t11/9/2019 1:00:00 AM\tN1 NA\tN4-1", "'NA' is no id"),
    ("2\tU1\t11/9/2019 1:00:00 AM\tN1\tN4-1", "impression 2 was there before"),
]


def test_malformed_lines_are_counted_and_named(folders, tmp_path, capsys):
    behaviors = folders / "MINDsmall_train" / "behaviors.tsv"
    for bad, reason in BAD:  # each alone: five are named
        write(behaviors, *TRAIN, bad, "")
        done = convert(folders, tmp_path / "m", overwrite=True)
        source = done.sources[0]
        assert (source["lines"], source["malformed"]) == (4, 1), bad
        (named,) = source["first_malformed"]
        assert named["line"] == 4 and reason in named["reason"]
        assert done.parts["train"].impressions == 2
    bad_news = ["N1\tsports", news("N5").replace("[]", "[{", 1), news("N6").replace("[]", "")]
    bad_news.append(news("N3", of_title=[{"WikidataId": "Q1"}], of_abstract=[entity("Q1", "1")]))
    write(folders / "MINDsmall_train" / "news.tsv", news("N4"), *bad_news)
    arguments = [f"--source={folders}", f"--out={tmp_path / 'm'}", "--overwrite"]
    assert main(["convert", "mind", *arguments]) == 0
    out = capsys.readouterr().out
    assert "news.tsv: 1 of 5 lines are malformed and left out (line 2: 2 cells instead of 8)" in out
    assert "  3 lists of entities that cannot be read were left empty" in out
    assert "behaviors.tsv: 1 of 4 lines are malformed and left out (line 4: impression 2" in out


def test_it_says_what_it_did_and_what_to_do_next(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "mind", "--source=raw", "--out=data", "--name=small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mind: " + ", ".join(
        f"raw/MINDsmall_{part}/{file}.tsv"
        for part in ("train", "dev")
        for file in ("behaviors", "news")
    )
    assert lines[1].split() == "train 2 impressions 2 clicks 3 non-clicks".split()
    assert lines[2].split()[-2:] == ["from", "2019-11-11"]
    assert lines[4:] == [
        "  3 users with 4 histories (0 cut to their last 50); 1 impressions have an empty one",
        "  4 of 9 news have a text (44.44 %); 1 further rows about them",
        "  1 of these are in no impression and no history, and are kept",
        "  5 news without a text are kept: 5 of 11 rows show one",
        "wrote conversion.json, news_on_small.yaml, small.item, small.test.inter, "
        "small.train.inter, small.user, small.valid.inter, small.yaml in data/small",
        "run: python run_recbole_ext.py --model=DeepFM --dataset=small --data_path=data",
    ]


def test_vectors_of_entities_are_those_of_both_folders_each_once(folders, tmp_path, capsys):
    write(folders / "MINDsmall_train" / "entity_embedding.vec", "Q1\t1\t-2.5\t", "Q2\t0\t1\t")
    second = ("Q2\t7\t7\t", "Q3\t1e-3\t2\t", "Q4\t1\t", "Q5\tx\t1\t", "\t1\t1", "Q6\tnan\t1")
    write(folders / "MINDsmall_dev" / "entity_embedding.vec", *second)
    assert main(["convert", "mind", f"--source={folders}", f"--out={tmp_path / 'm'}"]) == 0
    out = capsys.readouterr().out
    assert "entity_embedding.vec: 4 of 6 lines are malformed and left out (line 3: 1 num" in out
    assert "  3 vectors of entities\n" in out
    tokens = np.array(["[PAD]", "Q3", "Q1", "Q2", "Q9"])
    found = read_entity_vectors(tmp_path / "m" / "entity_embedding.vec", tokens)
    np.testing.assert_allclose(found, [[0, 0], [1e-3, 2], [1, -2.5], [0, 1], [0, 0]])
    assert json.loads((tmp_path / "m" / "conversion.json").read_text())["entity_vectors"] == 3


def test_recbole_reads_them_by_the_settings_beside_the_data(folders, tmp_path):
    convert(folders, tmp_path / "m")
    data = {"data_path": str(tmp_path), "use_gpu": False, "eval_batch_size": 4}
    config = Config("DeepFM", "m", config_dict=data)
    dataset = create_dataset(config)
    assert (dataset.user_num, dataset.item_num, dataset.inter_num) == (4, 10, 11)
    parts = [loader.dataset for loader in create_loaders(config, dataset)]
    assert [len(part) for part in parts] == [5, 2, 4]
    labels = [part.inter_feat["label"].tolist() for part in parts]
    assert labels == [[1, 0, 0, 1, 0], [0, 1], [1, 0, 0, 1]]
    span = int(utc(2019, 11, 12, 9, 5, 59)) - int(utc(2019, 11, 9, 23, 59, 59))
    times = np.concatenate([part.inter_feat["timestamp"].numpy() for part in parts]) * span
    np.testing.assert_allclose(times[[0, 2]], [0, 1], atol=0.1)  # a second apart, and not 128


def test_a_batch_of_the_news_family_is_joined_with_histories_and_no_row_is(folders, tmp_path):
    """By the settings of the family beside the data, which lie over the dataset's."""
    convert(folders, tmp_path / "m")
    settings = {"data_path": str(tmp_path), "use_gpu": False, "eval_args": {"mode": "labeled"}}
    config = Config(OfTheFamily, "m", config_dict={**settings, "metrics": ["AUC"], **ONE_VALUE})
    dataset = create_dataset(config)
    train, _, test = create_loaders(config, dataset)
    assert {*test.dataset.inter_feat.columns} == {"impression_id", "hist_id", "item_id", "label"}
    batch = next(iter(test))[0]
    assert len(batch) == 4 and batch["history"].shape == (4, 4)
    assert dataset.id2token("impression_id", batch["impression_id"]).tolist() == [
        *("1@dev", "1@dev", "2@dev", "2@dev")
    ]
    read = dataset.id2token("item_id", batch["history"].numpy())
    assert read[0].tolist() == ["N1", "N2", "N3", "N4"]
    assert read[2].tolist() == ["N9", "[PAD]", "[PAD]", "[PAD]"]
    empty = train.dataset[range(2, 5)]["history"]  # of U2, who has read nothing
    assert not empty.any()


def test_what_cannot_be_meant_is_one_sentence_and_writes_nothing(folders, tmp_path, capsys):
    train, dev = folders / "MINDsmall_train", folders / "MINDsmall_dev"
    short = write(tmp_path / "short" / "behaviors.tsv", *TRAIN[:1]).parent
    write(short / "news.tsv", news("N4"))
    unlabelled = write(tmp_path / "test" / "behaviors.tsv", TRAIN[0].replace("-1", "")).parent
    write(unlabelled / "news.tsv", news("N4"))
    foreign = write(tmp_path / "foreign" / "behaviors.tsv", *TRAIN).parent
    write(foreign / "news.tsv", news("X1"))
    bare = write(tmp_path / "bare" / "behaviors.tsv", *TRAIN).parent
    empty = write(tmp_path / "empty" / "behaviors.tsv").parent
    write(empty / "news.tsv", news("N4"))
    at_once = write(tmp_path / "at_once" / "behaviors.tsv", TRAIN[2]).parent  # as validation ends
    write(at_once / "news.tsv", news("N4"))
    two = tmp_path / "two"
    for size in ("small", "large"):
        write(two / f"MIND{size}_train" / "behaviors.tsv", *TRAIN)
        write(two / f"MIND{size}_dev" / "behaviors.tsv", *DEV)
    before = sorted(path.name for path in tmp_path.iterdir())
    for arguments, sentence in [
        ([f"--source={tmp_path / 'nowhere'}"], "--source: there is no folder"),
        ([f"--source={train}", "--dev=nowhere"], "--dev: there is no folder nowhere"),
        (["--source="], "--source is empty; name the folder with behaviors.tsv"),
        ([f"--source={tmp_path}"], "has no behaviors.tsv; name the folder that a zip of MIND"),
        ([f"--source={short}"], "impressions of 1 days, and 2 of them are held out by time: it ta"),
        ([f"--source={short}", f"--dev={dev}"], "of 1 days, and 1 of them are held out by time"),
        ([f"--source={dev}", f"--dev={train}"], "of 1 days, and 1 of them are held out by time"),
        ([f"--source={train}", f"--dev={train}"], "has an impression before the last one of"),
        ([f"--source={train}", f"--dev={at_once}"], "has an impression before the last one of"),
        ([f"--source={two}"], "two has no behaviors.tsv; name the folder that a zip of MIND was"),
        ([f"--source={train}", f"--dev={empty}"], "has no impressions; is it whole?"),
        ([f"--source={empty}"], "has no impressions; is it whole?"),
        ([f"--source={unlabelled}"], "none of its 1 lines can be read (line 1: 'N4' is no news w"),
        ([f"--source={foreign}"], "knows none of the 6 news of the impressions"),
        ([f"--source={bare}"], "has no news.tsv; put it beside behaviors.tsv"),
        ([f"--source={train}", "--max_history=0"], "--max_history takes a number from 1, not 0"),
        ([f"--source={train}", "--histry=3"], "has no --histry"),
    ]:
        code = main(["convert", "mind", *arguments, f"--out={tmp_path / 'm'}"])
        out, err = capsys.readouterr()
        assert code == 2 and sentence in err and len(err.splitlines()) == 1 and not out, err
        assert sorted(path.name for path in tmp_path.iterdir()) == before, sentence


def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path, capsys, monkeypatch):
    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("recbole_ext.data.convert.mind_files.Path.iterdir", refused)
    arguments = [f"--source={tmp_path}", f"--out={tmp_path / 'm'}"]
    assert main(["convert", "mind", *arguments]) == 2
    err = capsys.readouterr().err
    assert f"cannot read {tmp_path}: Permission denied; is it yours to read?" in err


def test_what_is_there_is_replaced_only_when_asked_and_only_by_all(folders, tmp_path, monkeypatch):
    out = tmp_path / "m"
    convert(folders, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(before) == 8 and json.loads(before["conversion.json"])["files"] == sorted(before)
    assert main(["convert", "mind", f"--source={folders}", f"--out={out}"]) == 2

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    write(folders / "MINDsmall_dev" / "behaviors.tsv", DEV[0])
    with monkeypatch.context() as patch:
        patch.setattr(mind_conversion, "write_side", full)
        assert main(["convert", "mind", f"--source={folders}", f"--out={out}", "--overwrite"]) == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    convert(folders, out, overwrite=True)
    assert len(rows(out / "m.test.inter")) == 3


@pytest.mark.data
def test_mind_tiny_has_the_counts_of_its_description(shared_data, tmp_path):
    """2,950 clicks, 72,360 non-clicks, 1,928 users; 500 of 17,012 news, RecBole's padding aside."""
    done = convert(shared_data / "mind_tiny", tmp_path / "m")
    parts = done.parts.values()
    assert sum(part.impressions for part in parts) == 2_000
    assert sum(part.clicks for part in parts) == 2_950
    assert sum(part.non_clicks for part in parts) == 72_360
    assert done.users == 1_928
    assert (done.sides["item"].described, done.sides["item"].rows) == (500, 17_012)
