"""Texts by token, from templates and from files of each form."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from recbole_ext.features.texts import read_atomic, read_texts, render
from recbole_ext.types import UserError

ITEM = "item_id:token\ttitle:token_seq\tyear:token\nm1\tToy  Story\t1995\nm2\t\t\nm3\tHeat\t\n"
TEXTS = {"7": "seven", "08": None, "9": "two\nlines"}


def test_a_template_is_filled_from_an_atomic_file(tmp_path):
    path = tmp_path / "x.item"
    path.write_text(ITEM)
    rows = read_atomic(path)
    assert rows["m1"] == {"title": "Toy  Story", "year": "1995"}
    filled = render(rows, "{title} ({year})", path)
    assert filled == {"m1": "Toy Story (1995)", "m2": None, "m3": "Heat ()"}
    assert render(rows, "{year} {title}", path)["m3"] == "Heat"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{titel}", "has no field 'titel'; did you mean 'title'.* .its fields are title, year."),
        ("a film", "has no field; write one as {title}"),
        ("{title", "template '{title': .*expected '}'.*fields are written {title}"),
        ("{}", "has no field ''"),
    ],
)
def test_a_template_that_cannot_be_filled(template, sentence, tmp_path):
    path = tmp_path / "x.item"
    path.write_text(ITEM)
    with pytest.raises(UserError, match=sentence):
        render(read_atomic(path), template, path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the first line names no columns beside the token"),
        ("item_id:token\n1\n", "the first line names no columns beside the token"),
        (ITEM + "m4\tx\n", "x.item, line 5: 2 columns where the first line has 3"),
        (ITEM + "m1\tx\ty\n", "x.item, line 5: the token 'm1' is there already"),
    ],
)
def test_an_atomic_file_that_is_none(text, sentence, tmp_path):
    (tmp_path / "x.item").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_atomic(tmp_path / "x.item")


def test_a_file_that_is_not_there(tmp_path):
    for read, name in ((read_atomic, "x.item"), (read_texts, "x.json"), (read_texts, "x.csv")):
        with pytest.raises(UserError, match=f"there is no file .*{name}"):
            read(tmp_path / name)


def test_texts_of_each_form(tmp_path):
    filled = {token: text or "" for token, text in TEXTS.items()}
    table = pd.DataFrame({"item_id": list(filled), "text": list(filled.values())})
    (tmp_path / "a.json").write_text(json.dumps(filled))
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    table.assign(more=1).to_csv(tmp_path / "b.csv", index=False)
    table.to_parquet(tmp_path / "a.parquet")
    table.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for path in tmp_path.iterdir():
        assert read_texts(path) == TEXTS, path.name


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.json", '{"1": "x", "1": "y"}', "a.json, line 2: the token '1' is there already"),
        ("a.json", '["x"]', "is no object that maps a token to its text"),
        ("a.json", '{"1": {"text": "x"}}', "the text of '1' is .*, and no text"),
        ("a.json", "{", "cannot read .*a.json"),
        ("a.csv", "item\n1\n", "has 1 columns; a token and a text are two"),
        ("a.csv", "item,one,two\n1,x,y\n", "which of the columns one, two is the text"),
        ("a.txt", "x", "they come as .json"),
        ("a.parquet", "x", "cannot read .*a.parquet"),
    ],
)
def test_a_file_of_texts_that_is_none(name, text, sentence, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=sentence) as raised:
        read_texts(tmp_path / name)
    assert re.search(name, str(raised.value))
