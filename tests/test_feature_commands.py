"""``recbole-ext features``: each command from files to what it prints, and what it refuses."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from recbole_ext import feature_commands
from recbole_ext.cli import main
from recbole_ext.features.build import Encoded
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
    monkeypatch.setattr(feature_commands, "SentenceEncoder", Letters)
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
    assert out.startswith("features/tiny/title: 40 of 41 items, 8 float16, by minilm\n")
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
    code, out, _ = call(capsys, *arguments)
    assert code == 0 and "likes: 2 of 2 users, 2 x 8 float16" in out
    code, out, _ = call(capsys, "inspect", *DATA, "--name=likes")
    assert code == 0 and "6.7% of 30 users of tiny" in out


@pytest.mark.parametrize("to", [("v.emb",), ("v.npy", "m.csv")])
def test_there_and_back(to, place, capsys):
    assert call(capsys, *TEXT, "--dtype=float32")[0] == 0
    files = [f"--file={to[0]}", *(f"--mapping={one}" for one in to[1:])]
    code, out, _ = call(capsys, "export", "--dataset=tiny", "--name=title", *files)
    assert code == 0 and out == f"40 vectors of 8 in {to[0]}\n"
    code, out, _ = call(capsys, "import", "--dataset=tiny", "--name=again", *files)
    assert code == 0 and "40 of 4" in out
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
        (("text", *DATA, "--name=x", "--template={t}", "--of=user"), "there is no file data/tiny/"),
        ((*TEXT, "--dtype=int8"), "dtype takes float16 or float32, not 'int8'"),
        ((*TEXT, "--tokens=x"), "--tokens takes int, not 'x'"),
        (("inspect", *DATA, "--name=none"), "there is no feature 'none' in features/tiny"),
        (("import", "--dataset=x", "--name=x", "--file=a.npy"), "--mapping belongs to an .npy"),
        (("export", "--dataset=tiny", "--name=x", "--file=a"), "there is no feature 'x'"),
    ],
)
def test_what_cannot_be_meant(arguments, sentence, place, capsys):
    code, out, err = call(capsys, *arguments)
    assert code == 2 and out == "" and "Traceback" not in err
    assert err.startswith("recbole-ext: ") and sentence in err


def test_help_is_of_the_command(capsys):
    for name in feature_commands.COMMANDS:
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
    code, out, _ = call(capsys, "import", "--dataset=tiny", "--name=v", *files)
    assert code == 0 and out.endswith("by v.npy\n  2 without: all zeros\n")
