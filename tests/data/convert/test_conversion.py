"""A conversion: all files or none, the same each time, and a manifest of what was done."""

from __future__ import annotations

import hashlib
import json
import os
import signal

import pytest

from recbole_ext.data.convert import conversion
from recbole_ext.locks import sole_use
from recbole_ext.types import UserError
from tests.data.convert.samples import convert_files, records, reviews_2018, rows

QUADS = [
    ("A1", "B000000001", 5.0, 30),
    ("A1", "B000000002", 4.0, 20),
    ("A2", "B000000001", 5.0, 10),
    ("A2", "B000000002", 1.0, 40),
    ("A2", "B000000001", 4.0, 50),
    ("A2", "B000000001", 4.0, 50),
    ("A3", "B000000003", 5.0, 60),
    ("A1", "B000000003", 5.0, 70),
]


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    records(folder / "X_5.json.gz", *reviews_2018(*QUADS))
    base = {"category": ["X"], "imageURL": ["https://m/1.jpg"]}
    one = {**base, "asin": "B000000002", "title": "Two"}
    records(folder / "meta_X.json.gz", one, {**base, "asin": "B000000003", "title": "Three"})
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_manifest_says_what_was_done(raw, tmp_path):
    """By hand: of 8 one has a low rating, of 7 two repeat a pair, and item 2 is there once."""
    convert_files(raw, tmp_path / "x", min_rating=2, min_sc=2)
    assert [row[1::2] for row in rows(tmp_path / "x" / "x.inter")[1:]] == [
        ["B000000001", "30"],
        ["B000000001", "10"],
        ["B000000003", "60"],
        ["B000000003", "70"],
    ]
    found = json.loads((tmp_path / "x" / "conversion.json").read_text())
    assert [tuple(step.values()) for step in found["steps"]] == [
        ("read", 8, 3, 3),
        ("min_rating=2", 7, 3, 3),
        ("duplicates=first", 5, 3, 3),
        ("min_uc=0 min_sc=2 filter=core", 4, 3, 2),
    ]
    assert found["exact_duplicates"] == 1
    assert found["format"] == "amazon-2018" and found["name"] == "x"
    assert found["filters"] == {
        **{"min_rating": 2, "duplicates": "first", "min_uc": 0, "min_sc": 2, "filter": "core"}
    }
    digest = hashlib.sha256((raw / "X_5.json.gz").read_bytes()).hexdigest()
    assert found["sources"][0]["sha256"] == digest and found["sources"][0]["lines"] == 8
    assert found["files"] == sorted(path.name for path in (tmp_path / "x").iterdir())


def test_every_item_that_is_left_has_a_row_and_no_other(raw, tmp_path):
    """RecBole would drop the interactions of an item without one."""
    done = convert_files(raw, tmp_path / "x", min_rating=2, min_sc=2)
    assert rows(tmp_path / "x" / "x.item")[1:] == [
        ["B000000003", "Three", "", "X", "", ""],
        ["B000000001", "", "", "", "", ""],
    ]
    assert (done.sides["item"].rows, done.sides["item"].described) == (2, 1)


def test_the_same_files_give_the_same_bytes(raw, tmp_path):
    for name in ("one/x", "two/x"):
        convert_files(raw, tmp_path / name)
    one, two = contents(tmp_path / "one" / "x"), contents(tmp_path / "two" / "x")
    for found, place in ((one, "one"), (two, "two")):  # the settings name the folder
        found["x.yaml"] = found["x.yaml"].replace(str(tmp_path / place).encode(), b"")
    assert one == two and len(one) == 5


def test_what_is_there_is_replaced_only_when_asked(raw, tmp_path):
    out = tmp_path / "x"
    convert_files(raw, out)
    (out / "mine.txt").write_text("mine")
    before = contents(out)
    with pytest.raises(UserError, match=r"x has x.inter already; .* --overwrite"):
        convert_files(raw, out)
    assert contents(out) == before
    (raw / "meta_X.json.gz").unlink()
    convert_files(raw, out, overwrite=True, min_rating=5)
    left = ["conversion.json", "mine.txt", "x.inter", "x.yaml"]
    assert sorted(contents(out)) == left and len(rows(out / "x.inter")) == 5


def test_filters_that_leave_nothing_write_nothing(raw, tmp_path):
    with pytest.raises(UserError, match="min_uc=9 min_sc=0 filter=core leaves none of 6 inter"):
        convert_files(raw, tmp_path / "x", min_uc=9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_an_error_in_the_middle_leaves_what_was_there(raw, tmp_path, monkeypatch):
    out = tmp_path / "x"
    convert_files(raw, out)
    before = contents(out)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "write_side", full)
    for place in (out, tmp_path / "new"):
        with pytest.raises(UserError, match="cannot write .*: No space left on device; free"):
            convert_files(raw, place, overwrite=True, min_rating=5)
    assert contents(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "x"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_kill_in_the_middle_leaves_nothing_and_the_next_one_works(raw, tmp_path, monkeypatch):
    out = tmp_path / "x"
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "write_side", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # should it hang, this test fails and does not
            convert_files(raw, out)
            os._exit(0)  # never
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not out.exists() and (tmp_path / ".x.partial" / "x.inter").exists()
    (tmp_path / ".x.partial" / "x.user").write_text("of an earlier version, say")
    convert_files(raw, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "x"]
    assert len(contents(out)) == 5 and not (out / "x.user").exists()


def test_one_process_writes_a_dataset_at_a_time(raw, tmp_path):
    (tmp_path / ".x.partial").mkdir()
    with sole_use(tmp_path / ".x.partial"), pytest.raises(UserError, match="another process is at"):
        convert_files(raw, tmp_path / "x")
    assert not (tmp_path / "x").exists()
