"""``recbole-ext features``: each command from files to what it prints, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest

from recbole_ext.cli import main
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.features import load_feature
from recbole_ext.data.training_histories import training_histories
from recbole_ext.feature_commands import common
from recbole_ext.feature_commands import texts as text_command
from recbole_ext.feature_commands import written as written_command
from recbole_ext.feature_commands.command import COMMANDS
from recbole_ext.features.build import Building
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.llm import Written
from recbole_ext.features.manifest import Source
from recbole_ext.features.store import FeatureStore


class Letters:
    """Stands for a sentence encoder: how often a text has each of some letters."""

    def __init__(self, model, settings=None, *, tokens=0, **more):
        self.source = Source(model, "1", {**(settings or {}), "tokens": tokens})
        self.tokens = tokens

    def encode(self, contents):
        values = np.array([[text.count(c) for c in "abcdef12"] for text in contents], np.float32)
        if not self.tokens:
            return Encoded(values)
        return Encoded(
            values[:, None].repeat(self.tokens, 1), np.ones((len(values), self.tokens), bool)
        )


@pytest.fixture
def place(tmp_path, tiny_data_path, monkeypatch):
    """A folder to work in, with the tiny dataset and titles of its items."""
    monkeypatch.setattr(text_command, "SentenceEncoder", Letters)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    inter = (tiny_data_path / "tiny" / "tiny.inter").read_bytes()
    (folder / "tiny.inter").write_bytes(inter)
    items = sorted({line.split("\t")[1] for line in inter.decode().splitlines()[1:]})
    lines = [f"{token}\tabc {token} {'de' * i}" for i, token in enumerate(items)]
    lines[3] = f"{items[3]}\t"
    (folder / "tiny.item").write_text(
        "\n".join(["item_id:token\ttitle:token_seq", *lines, "zz\tf"])
    )
    return tmp_path


def call(capsys, *arguments):
    code = main(["features", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


DATA = ("--dataset=tiny", "--data_path=data")
TEXT = ("text", *DATA, "--name=title", "--template={title}")


def test_from_titles_to_numbers(place, capsys):
    code, out, _ = call(capsys, *TEXT)
    assert code == 0
    assert out.startswith(
        "features/tiny/title: 40 of 41 items of the source, 8 float16, by minilm\n"
    )
    store = FeatureStore("features/tiny/title")
    assert store.manifest.source.settings["template"] == "{title}"
    code, out, _ = call(
        capsys, "inspect", *DATA, "--name=title", "--titles=title", "--n=2", "--k=3"
    )
    assert code == 0
    assert "97.5% of 40 items of tiny; 1 rows are of others" in out
    assert re.search(r"train: 9\d\.\d% of \d+ interactions", out)
    blocks = out.split("\n\n")[1:]
    assert len(blocks) == 2 and all(len(block.strip().splitlines()) == 4 for block in blocks)
    assert "abc" in blocks[0]


def test_tokens_and_users(place, capsys):
    (place / "likes.json").write_text('{"u1": "a b", "u2": "c"}')
    arguments = ("text", *DATA, "--name=likes", "--texts=likes.json", "--of=user", "--tokens=2")
    code, _, err = call(capsys, *arguments)
    assert code == 2 and "does not tell up to which time interactions went into its texts" in err
    code, out, _ = call(capsys, *arguments, "--i_know_it_may_leak")
    assert code == 0 and "likes: 2 of 2 users of the source, 2 x 8 float16" in out
    code, out, _ = call(capsys, "inspect", *DATA, "--name=likes")
    assert code == 0 and "6.7% of 30 users of tiny" in out


@pytest.mark.parametrize("to", [("v.emb",), ("v.npy", "m.csv")])
def test_there_and_back(to, place, capsys):
    assert call(capsys, *TEXT, "--dtype=float32")[0] == 0
    files = [f"--file={to[0]}", *(f"--mapping={one}" for one in to[1:])]
    code, out, _ = call(capsys, "export", "--dataset=tiny", "--name=title", *files)
    assert code == 0 and out == f"40 vectors of 8 in {to[0]}\n"
    code, out, _ = call(capsys, "import", *DATA, "--name=again", *files)
    assert code == 0 and re.search("40 of 4[01] items of the source", out)
    one, two = (FeatureStore(f"features/tiny/{name}") for name in ("title", "again"))
    rows = {t: v for t, v in zip(one.rows["token"], one.values, strict=True) if v.any()}
    back = {t: v for t, v in zip(two.rows["token"], two.values, strict=True) if v.any()}
    assert rows.keys() == back.keys()
    assert all((rows[token] == back[token]).all() for token in rows)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "features: one of text, "),
        (("txt",), "is meant, not 'txt'; did you mean 'text'?"),
        ((*TEXT, "--of=items"), "--of takes item or user, not 'items'; did you mean 'item'?"),
        (("text", *DATA, "--name=x"), 'needs --template="{title}", of fields'),
        ((*TEXT, "--texts=x.json"), 'needs --template="{title}", of fields'),
        (("text", *DATA, "--name=x", "--template={titel}"), "has no field 'titel'; did you mean"),
        (("text", *DATA, "--name=x", "--texts=none.json"), "there is no file none.json"),
        (
            ("text", *DATA, "--name=x", "--template={t}", "--of=user"),
            "tiny.user; name the fields of",
        ),
        ((*TEXT, "--dtype=int8"), "dtype takes float16 or float32, not 'int8'"),
        ((*TEXT, "--tokens=x"), "--tokens takes int, not 'x'"),
        (("inspect", *DATA, "--name=none"), "there is no feature 'none' in features/tiny"),
        (("import", *DATA, "--name=x", "--file=a.npy"), "--mapping belongs to an .npy"),
        (("export", "--dataset=tiny", "--name=x", "--file=a"), "there is no feature 'x'"),
    ],
)
def test_what_cannot_be_meant(arguments, sentence, place, capsys):
    code, out, err = call(capsys, *arguments)
    assert code == 2 and out == "" and "Traceback" not in err
    assert err.startswith("recbole-ext: ") and sentence in err


class Parrot:
    """Stands for a language model: it repeats the last line of its prompt."""

    source = Source("parrot", "1")

    def __init__(self, model, *, max_new_tokens):
        assert model == "parrot" and max_new_tokens == 9

    def write(self, prompts):
        return [Written(prompt.strip().splitlines()[-1], None) for prompt in prompts]


def test_written_texts_become_a_feature(place, capsys, monkeypatch):
    monkeypatch.setattr(written_command, "LocalWriter", Parrot)
    (place / "p.txt").write_text("{history}")
    more = ("--writer=parrot", "--max_new_tokens=9")
    arguments = ("profile", *DATA, "--name=taste", "--template=p.txt", "--share=0.5", *more)
    code, out, _ = call(capsys, *arguments)
    assert code == 0 and out.startswith("features/tiny/taste/texts.parquet: 30 of 30 texts\n")
    encode = out.splitlines()[-1].partition("recbole-ext features ")[2].split()
    code, out, _ = call(capsys, *encode)
    assert code == 0 and "taste_vectors: 30 of 30 users" in out
    store = FeatureStore("features/tiny/taste_vectors")
    assert store.manifest.cutoff == store.rows["cutoff"].max()
    # the last line is the item at the cut-off: half of the training history
    rows = pd.read_csv(place / "data" / "tiny" / "tiny.inter", sep="\t", dtype={0: str, 1: str})
    table = pd.read_parquet("features/tiny/taste/texts.parquet").set_index("token")
    for user, events in rows.groupby("user_id:token"):
        kept = events.sort_values("timestamp:float").iloc[:-2]  # leave one out, twice
        last = kept.iloc[-(-len(kept) // 2) - 1]
        if last["item_id:token"] != zz_of(place):
            assert f" {last['item_id:token']} " in table.loc[user, "text"] + " ", user

    code, out, _ = call(capsys, "describe", *DATA, "--name=about", *more, "--items=3")
    assert code == 0 and "about/texts.parquet: 3 of 3 texts" in out


def zz_of(place):
    """Return the item that has no title."""
    lines = (place / "data" / "tiny" / "tiny.item").read_text().splitlines()
    return next(line.split("\t")[0] for line in lines[1:] if line.endswith("\t"))


def test_nobody_is_asked_where_nobody_is(place, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:9/v1")
    more = ("--encoder=endpoint:small", "--price_per_million=2")
    code, out, err = call(capsys, *TEXT, *more)
    assert code == 2 and err.startswith("recbole-ext: nobody is there to confirm this; give --yes")
    assert out.startswith("40 new texts, ") and "in the currency of price_per_million" in out


def test_help_is_of_the_command(capsys):
    for name in COMMANDS:
        code, out, _ = call(capsys, name, "--help")
        assert code == 0 and out.startswith(f"usage: recbole-ext features {name} ")
        assert "--dataset        Dataset. (needed)" in out
    assert "features text --help" in (main(["features", "-h"]), capsys.readouterr().out)[1]


def test_rows_and_their_problems_are_named(place, capsys):
    values = np.zeros((3, 2), np.float32)
    values[0] = 1
    np.save("v.npy", values)
    pd.DataFrame({"asin": list("abc"), "itemID": range(3)}).to_csv("m.csv", sep="\t", index=False)
    files = ("--file=v.npy", "--mapping=m.csv")
    code, out, _ = call(capsys, "import", *DATA, "--name=v", *files)
    assert code == 0 and out.endswith("by v.npy\n  2 without: all zeros\n")


def test_a_run_by_parts(place, capsys):
    assert call(capsys, *TEXT)[0] == 0
    settings = ("--MAX_ITEM_LIST_LENGTH=10", "--epochs=1", "--topk=[5]", "--valid_metric=NDCG@5")
    run = ("run", "--model=TextPreferenceRetriever", *DATA, "--text_feature=title", *settings)
    assert main([*run, "--hidden_size=8", "--use_gpu=False", "--output_dir=one"]) == 0
    capsys.readouterr()
    assert main(["slices", "--run=one", "--cold=6"]) == 0
    out = capsys.readouterr().out
    table = {line[:22].strip(): line[22:].split() for line in out.splitlines()[1:]}
    ranks = pd.read_parquet("one/per_user.parquet")
    rows = pd.read_csv(place / "data" / "tiny" / "tiny.inter", sep="\t", dtype={0: str, 1: str})
    rows = rows.sort_values(["user_id:token", "timestamp:float"])
    train = rows.drop(rows.groupby("user_id:token").tail(2).index)
    counts = train["item_id:token"].value_counts()
    n = ranks["item_id"].map(counts).fillna(0)
    wanted = {
        "all": len(ranks),
        "never seen": (n == 0).sum(),
        "cold (1 to 5)": n.between(1, 5).sum(),
    }
    wanted["without title"] = (ranks["item_id"] == zz_of(place)).sum()
    wanted["with title"] = len(ranks) - wanted["without title"]
    for name, count in wanted.items():
        line = next(line for line in out.splitlines() if line.startswith(name))
        assert int(line[len(name) :].split()[0]) == count, name
    result = json.loads((place / "one" / "result.json").read_text())["test"]
    line = next(line for line in out.splitlines() if line.startswith("all")).split()
    assert float(line[2]) == pytest.approx(result["recall@5"], abs=1e-4)
    assert main(["slices", "--run=none"]) == 2
    said = "--run=none is no folder; did you mean 'one'?; name the folder of a finished run\n"
    assert capsys.readouterr().err.endswith(said)
    assert main(["slices", "--run=data"]) == 2
    assert "--run=data holds no run (no config.yaml); name the f" in capsys.readouterr().err
    (place / "one" / "per_user.parquet").unlink()
    assert main(["slices", "--run=one"]) == 2
    assert "finish it with recbole-ext run --resume=one\n" in capsys.readouterr().err
    assert table


@pytest.mark.parametrize(("share", "usable"), [("1", 0.0), ("0.5", 0.5)])
def test_a_profile_is_seen_by_rows_after_its_cutoff_alone(
    share, usable, place, capsys, monkeypatch
):
    """From the command to the model."""
    monkeypatch.setattr(written_command, "LocalWriter", Parrot)
    (place / "p.txt").write_text("{history}")
    more = ("--writer=parrot", "--max_new_tokens=9", "--template=p.txt", f"--share={share}")
    assert call(capsys, "profile", *DATA, "--name=taste", *more)[0] == 0
    texts = "--texts=features/tiny/taste/texts.parquet"
    assert call(capsys, "text", *DATA, "--name=taste_v", texts, "--of=user")[0] == 0
    assert call(capsys, *TEXT)[0] == 0
    settings = {
        "data_path": "data",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "text_feature": "title",
        "user_feature": "taste_v",
        "profile": "stored",
        "MAX_ITEM_LIST_LENGTH": 10,
        "hidden_size": 8,
    }
    config = Config("TextPreferenceRetriever", "tiny", None, settings)
    train = create_loaders(config, create_dataset(config))[0]
    net = config.model_class(config, train._dataset)
    seen = net.usable_profiles(train._dataset.inter_feat).float().mean()
    assert float(seen) == pytest.approx(usable, abs=0.15)


def test_times_are_those_of_the_file(place):
    """ml-100k's own settings scale times to [0, 1], in which no cut-off is."""
    config = common.config_of("ml-100k", None)
    assert not config["normalize_all"] and not config["normalize_field"]
    histories = training_histories(create_dataset(config).build()[0])
    assert min(time for events in histories.values() for _, time in events) > 8e8


def test_a_feature_knows_which_files_it_was_made_for(place, capsys, caplog):
    """By their bytes, and not by the interactions of a run: these depend on its filters."""
    item, inter = (place / "data" / "tiny" / f"tiny.{one}" for one in ("item", "inter"))
    digests = {one: hashlib.sha256(one.read_bytes()).hexdigest()[:16] for one in (item, inter)}
    assert call(capsys, *TEXT)[0] == 0
    (place / "likes.json").write_text('{"u1": "a b", "u2": "c"}')
    likes = ("text", *DATA, "--name=likes", "--texts=likes.json", "--of=user", "--cutoff=9")
    assert call(capsys, *likes)[0] == 0
    assert call(capsys, "import", "--dataset=ml-1m", "--name=v", f"--file={vectors(place)}")[0] == 0
    wanted = {
        "tiny/title": f"tiny.item:{digests[item]}",
        "tiny/likes": f"tiny.inter:{digests[inter]}",
        "ml-1m/v": None,  # of a dataset that is not here yet
    }
    for name, fingerprint in wanted.items():
        assert FeatureStore(f"features/{name}").manifest.dataset_fingerprint == fingerprint
    _, out, _ = call(capsys, "inspect", *DATA, "--name=title")
    assert f"made for tiny.item:{digests[item]}, as it is here\n" in out
    config = Config("BPR", "tiny", None, {"data_path": "data"})
    load_feature(config, create_dataset(config), "title")
    assert "is another" not in caplog.text
    with open(item, "a") as stream:
        stream.write("\nnew\ta title")
    now = hashlib.sha256(item.read_bytes()).hexdigest()[:16]
    sentence = (
        f"feature 'title': tiny.item is another than when it was made ({digests[item]} then); "
        "where what it was made of has changed, build it anew, which encodes only that"
    )
    _, out, _ = call(capsys, "inspect", *DATA, "--name=title")
    assert f"{sentence}\n" in out
    load_feature(config, create_dataset(config), "title")
    assert sentence in caplog.text
    assert call(capsys, *TEXT)[0] == 0
    assert f"tiny.item:{now}, as it is here" in call(capsys, "inspect", *DATA, "--name=title")[1]
    item.unlink()
    _, out, _ = call(capsys, "inspect", *DATA, "--name=features/tiny/title")  # a path does too
    assert f"made for tiny.item:{now}\n" in out and "as it is here" not in out


def vectors(place):
    """Write a file of RecBole's with one vector; return its path."""
    (place / "v.emb").write_text("i:token\tv:float_seq\na\t1 2\n")
    return place / "v.emb"


def test_a_build_that_was_stopped_is_told_from_none(place, capsys, monkeypatch):
    def stop(self, contents):
        if "stopped" in vars(self):
            raise KeyboardInterrupt
        self.stopped = True
        return encode(self, contents)

    encode = Letters.encode
    monkeypatch.setattr(Letters, "encode", stop)
    small = lambda dtype, **more: Building(dtype, batch_size=30, **more)  # noqa: E731
    monkeypatch.setattr(text_command, "Building", small)
    code, _, err = call(capsys, *TEXT)
    assert code == 130 and err.endswith("the same command goes on; 30 of 40 are kept\n")
    code, _, err = call(capsys, "inspect", *DATA, "--name=title")
    assert code == 2 and "feature 'title' is not finished: its build in features/tiny/title" in err
    assert "the command that began it goes on" in err
    monkeypatch.setattr(Letters, "encode", encode)
    assert call(capsys, *TEXT)[0] == 0


def test_texts_that_are_no_vectors_are_told_from_none(place, capsys, monkeypatch):
    monkeypatch.setattr(written_command, "LocalWriter", Parrot)
    more = ("--writer=parrot", "--max_new_tokens=9")
    assert call(capsys, "describe", *DATA, "--name=about", *more)[0] == 0
    code, _, err = call(capsys, "inspect", *DATA, "--name=about")
    assert code == 2 and "features/tiny/about holds texts that a language model wrote" in err
    assert "recbole-ext features text --texts=features/tiny/about/texts.parquet" in err
