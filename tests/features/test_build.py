"""A feature on disk: what is encoded again, what survives a kill, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal

import numpy as np
import pandas as pd
import pytest

from recbole_ext.features import store as store_module
from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.encoded import Encoded, NoContent
from recbole_ext.features.manifest import Source
from recbole_ext.features.store import FeatureStore
from recbole_ext.types import UserError

SUBJECT = Subject("title", "text", "item", "tiny")
TEXTS = {"i1": "one", "i2": "two", "i3": None, "i4": "four", "i5": "two"}


def vector_of(text: str, size: int = 4) -> np.ndarray:
    """Return a vector that a text alone decides, in numbers that float16 has exactly."""
    digest = hashlib.sha256(text.encode()).digest()
    return np.frombuffer(digest[:size], dtype=np.uint8).astype(np.float32) / 4  # [D]


class Fake:
    """Encodes by hash; remembers what it was asked for."""

    def __init__(self, revision: str = "1", tokens: int = 0, bad: tuple[str, ...] = ()) -> None:
        self.source = Source("fake", revision, {"template": "{title}"})
        self.asked: list[str] = []
        self.tokens, self.bad = tokens, bad

    def encode(self, contents):
        self.asked += contents
        problems = {i: "it is bad" for i, text in enumerate(contents) if text in self.bad}
        values = np.stack([vector_of(text) for text in contents])  # [b, D]
        if not self.tokens:
            return Encoded(values, None, problems)
        mask = np.arange(self.tokens) < np.array([[len(text) % 3 + 1] for text in contents])
        return Encoded(np.repeat(values[:, None], self.tokens, 1), mask, problems)


def make(folder, texts, encoder, **more):
    how = Building(**{"batch_size": 2, "show_progress": False, **more})
    return build(folder, texts, encoder, SUBJECT, how)


def test_what_is_built_is_what_was_encoded(tmp_path):
    encoder = Fake()
    store = make(tmp_path / "f", TEXTS, encoder)
    assert sorted(encoder.asked) == ["four", "one", "two"]  # equal texts are encoded once
    assert store.manifest.shape == (5, 4) and store.manifest.n_present == 4
    assert store.manifest.source == encoder.source and store.values.dtype == np.float16
    aligned = store.align(["[PAD]", "i9", "i5", "i3", "i1"])
    vectors, present = aligned.take(np.arange(5))
    assert present.tolist() == [False, False, True, False, True] == aligned.present.tolist()
    assert (vectors[2] == vector_of("two")).all() and (vectors[4] == vector_of("one")).all()
    assert (vectors[[0, 1, 3]] == 0).all() and aligned.n_unknown == 2  # i2 and i4
    assert (aligned.table() == vectors).all()


def test_vectors_of_tokens_have_masks(tmp_path):
    store = make(tmp_path / "f", TEXTS, Fake(tokens=3))
    assert store.manifest.shape == (5, 3, 4)
    vectors, mask = store.align(["[PAD]", "i4", "i3"]).take(np.array([0, 1, 2, 1]))
    assert vectors.shape == (4, 3, 4)
    assert mask.tolist() == [[False] * 3, [True, True, False], [False] * 3, [True, True, False]]


def test_only_what_changed_is_encoded_again(tmp_path):
    make(tmp_path / "f", TEXTS, Fake())
    encoder = Fake()
    changed = {"i0": "new", **TEXTS, "i1": "uno", "i3": "four"}
    store = make(tmp_path / "f", changed, encoder)
    assert sorted(encoder.asked) == ["new", "uno"]
    assert list(store.rows["token"]) == list(changed)
    for row, text in enumerate(changed.values()):
        assert (store.values[row] == vector_of(text)).all(), text
    for more, again in ((Fake("2"), {}), (Fake(), {"dtype": "float32"})):
        make(tmp_path / "f", changed, more, **again)
        assert len(more.asked) == 4  # another encoder, another precision: all anew
    kinds = sorted(path.name.partition("-")[0] for path in (tmp_path / "f").iterdir())
    assert kinds == [".lock", "manifest.json", "rows", "values"]  # one generation, and no parts


def test_a_problem_is_recorded_and_tried_again(tmp_path):
    store = make(tmp_path / "f", TEXTS, Fake(bad=("two",)))
    rows = store.rows.set_index("token")
    assert rows.loc["i2", "problem"] == "it is bad" and not rows.loc["i5", "present"]
    assert not store.align(["[PAD]", "i2"]).present.any()
    encoder = Fake()
    store = make(tmp_path / "f", TEXTS, encoder)
    assert encoder.asked == ["two"] and store.manifest.n_present == 4
    assert (store.align(["", "i2"]).take(np.array([1]))[0][0] == vector_of("two")).all()


def test_a_content_that_cannot_be_read_is_a_problem_too(tmp_path):
    def hash_of(text):
        if text == "one":
            raise NoContent("no such file")
        return text

    store = make(tmp_path / "f", TEXTS, Fake(), hash_of=hash_of)
    assert store.rows["problem"][0] == "no such file" and store.manifest.n_present == 3


def test_a_build_that_stops_goes_on(tmp_path):
    texts = {f"i{i}": f"text {i}" for i in range(7)}

    class Stops(Fake):
        def encode(self, contents):
            if len(self.asked) >= 4:
                raise KeyboardInterrupt
            return super().encode(contents)

    make(tmp_path / "f", {"i0": "text 0"}, Fake())
    with pytest.raises(KeyboardInterrupt, match="the same command goes on; 5 of 7 are kept"):
        make(tmp_path / "f", texts, Stops())
    assert list(FeatureStore(tmp_path / "f").rows["token"]) == ["i0"]  # as it was
    encoder = Fake()
    store = make(tmp_path / "f", {**texts, "i3": "changed meanwhile"}, encoder)
    assert sorted(encoder.asked) == ["changed meanwhile", "text 5", "text 6"]
    assert (store.values[4] == vector_of("text 4")).all()


def test_a_damaged_part_is_encoded_again(tmp_path):
    class Stops(Fake):
        def encode(self, contents):
            if self.asked:
                raise KeyboardInterrupt
            return super().encode(contents)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "f", TEXTS, Stops())
    (part,) = (tmp_path / "f").glob("part-*/*.npz")
    part.write_bytes(part.read_bytes()[:200])
    encoder = Fake()
    make(tmp_path / "f", TEXTS, encoder)
    assert sorted(encoder.asked) == ["four", "one", "two"]


def killed_at(folder, texts, when):
    """Build in a fork that kills itself before its file number ``when``; return how it ended.

    Below zero it is a signal, otherwise how many files it put in place.
    """
    child = os.fork() if hasattr(os, "fork") else pytest.skip("needs fork")
    if child == 0:
        n_files, replace = [0], os.replace

        def dies(old, new):
            n_files[0] += 1
            if n_files[0] == when:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(old, new)

        os.replace = dies
        try:
            make(folder, texts, Fake())
            os._exit(n_files[0])
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_kill_before_any_file_is_in_place_loses_nothing_that_was_there(tmp_path):
    texts = {f"i{i}": f"text {i}" for i in range(7)}
    for when in range(1, 8):  # three batches of six new texts; values, rows, manifest
        folder = tmp_path / str(when)
        make(folder, {"i0": "text 0"}, Fake())
        ended = killed_at(folder, texts, when)
        if when == 7:
            assert ended == 6
            continue
        assert ended == -signal.SIGKILL
        assert list(FeatureStore(folder).rows["token"]) == ["i0"]
        encoder = Fake()
        store = make(folder, texts, encoder)
        assert len(encoder.asked) == max(0, 6 - 2 * (when - 1)), when
        assert (store.values[6] == vector_of("text 6")).all()
        assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("texts", "more", "sentence"),
    [
        ({"i1": None}, {}, "feature 'title': none of 1 rows has a vector .they are empty"),
        ({"i1": "x"}, {"dtype": "int8"}, "dtype takes float16 or float32, not 'int8'"),
    ],
)
def test_what_makes_no_feature_is_refused(texts, more, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        make(tmp_path / "f", texts, Fake(), **more)
    with pytest.raises(UserError, match="holds no feature"):
        FeatureStore(tmp_path / "f")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_values_that_are_no_numbers_are_refused(value, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 8)  # a row at a time

    class Bad(Fake):
        def encode(self, contents):
            found = super().encode(contents)
            found.values[np.array(contents) == "four"] = value
            return found

    make(tmp_path / "f", {"i1": "one"}, Fake())
    with pytest.raises(UserError, match="feature 'title': row 3 has values that are no numbers"):
        make(tmp_path / "f", TEXTS, Bad())
    assert list(FeatureStore(tmp_path / "f").rows["token"]) == ["i1"]
    assert make(tmp_path / "g", TEXTS, Fake()).manifest.n_present == 4
    healthy = make(tmp_path / "f", TEXTS, Fake())  # what was bad once is not kept
    assert (healthy.values[3] == vector_of("four")).all()
    if value == 1e6:  # what float16 cannot hold, float32 can
        assert make(tmp_path / "f", TEXTS, Bad(), dtype="float32").values[3, 0] == 1e6


@pytest.mark.parametrize(
    ("part", "damage", "sentence"),
    [
        ("values", lambda p: p.unlink(), "values-.* is missing or damaged"),
        ("values", lambda p: p.write_bytes(p.read_bytes()[:140]), "values-.* is missing or dam"),
        ("rows", lambda p: p.write_bytes(b"PAR1"), "rows-.* is missing or damaged"),
        ("rows", lambda p: pd.read_parquet(p)[:1].to_parquet(p), "1 rows are described"),
        (
            "rows",
            lambda p: pd.DataFrame({"token": ["x"]}).to_parquet(p),
            "rows-.* damaged .*present",
        ),
        ("manifest", lambda p: p.write_text("{"), "manifest.json is damaged or no manifest"),
        ("manifest", lambda p: p.write_text("[]"), "manifest.json is damaged or no manifest"),
        ("manifest", lambda p: p.write_text('{"format": 9}'), "is of format 9, and this version"),
        ("manifest", lambda p: p.write_text('{"format": 1}'), "manifest.json is damaged or no"),
    ],
)
def test_a_damaged_feature_is_one_sentence(part, damage, sentence, tmp_path):
    make(tmp_path / "f", TEXTS, Fake())
    damage(next(path for path in (tmp_path / "f").iterdir() if path.name.startswith(part)))
    with pytest.raises(UserError, match=sentence):
        FeatureStore(tmp_path / "f")
    assert make(tmp_path / "f", TEXTS, Fake()).manifest.n_present == 4  # which is what it says


def test_the_manifest_says_what_made_it(tmp_path):
    make(tmp_path / "f", TEXTS, Fake())
    found = json.loads((tmp_path / "f" / "manifest.json").read_text())
    source = {"encoder": "fake", "revision": "1", "settings": {"template": "{title}"}}
    wanted = {"name": "title", "kind": "text", "of": "item", "dataset": "tiny", "source": source}
    assert wanted.items() <= found.items()
    assert found["shape"] == [5, 4] and found["dtype"] == "float16" and found["date"][:2] == "20"


def test_a_reader_that_a_build_overtakes_sees_the_new_one_whole(tmp_path, monkeypatch):
    """The build ends after the reader has read the manifest, and before it opens the files."""
    make(tmp_path / "f", TEXTS, Fake())
    read, texts = store_module.read_manifest, {"i1": "one", "i9": "nine"}

    def overtaken(folder):
        found = read(folder)
        monkeypatch.setattr(store_module, "read_manifest", read)
        make(tmp_path / "f", texts, Fake())
        return found

    monkeypatch.setattr(store_module, "read_manifest", overtaken)
    store = FeatureStore(tmp_path / "f")
    assert list(store.rows["token"]) == ["i1", "i9"] and len(store.values) == 2
    assert store.manifest.shape == (2, 4)


def test_a_second_build_of_the_same_feature_is_refused_while_the_first_works(tmp_path):
    refused = []

    class Meanwhile(Fake):
        def encode(self, contents):
            with pytest.raises(UserError) as raised:
                make(tmp_path / "f", {"i9": "another"}, Fake("2"))
            refused.append(str(raised.value))
            return super().encode(contents)

    store = make(tmp_path / "f", TEXTS, Meanwhile())
    who = f"the feature's folder {tmp_path / 'f'} ({os.getpid()} on "
    assert len(refused) == 2 and all(who in words for words in refused)
    assert (store.values[3] == vector_of("four")).all() and len(store.rows) == 5
    assert len(make(tmp_path / "f", {"i9": "another"}, Fake("2")).rows) == 1  # now it may


class Cuts(Fake):
    """Reads four letters of a text, and says of which texts these are not all."""

    def encode(self, contents):
        found = super().encode(contents)
        return Encoded(found.values, None, {}, np.array([len(text) > 4 for text in contents]))


def test_texts_that_are_cut_off_are_counted(tmp_path):
    texts = {"i1": "three", "i2": "two", "i3": None, "i4": "three", "i5": "seven"}
    store = make(tmp_path / "f", texts, Cuts())
    assert store.manifest.n_cut == 3
    assert list(store.rows["cut"]) == [True, False, False, True, True]
    store = make(tmp_path / "f", {**texts, "i5": "six", "i6": "eight"}, Cuts())  # the old are known
    assert store.manifest.n_cut == 3
    assert json.loads((tmp_path / "f" / "manifest.json").read_text())["n_cut"] == 3


def test_where_the_encoder_does_not_say_what_it_cut_nobody_knows(tmp_path):
    assert make(tmp_path / "f", TEXTS, Fake()).manifest.n_cut is None
    # a feature from before this was counted: what is known of it is too little
    store = make(tmp_path / "f", {**TEXTS, "i6": "a new one"}, Cuts())
    assert store.manifest.n_cut is None


def test_a_token_that_is_there_twice_is_one_sentence(tmp_path):
    make(tmp_path / "f", TEXTS, Fake())
    (path,) = (tmp_path / "f").glob("rows-*.parquet")
    rows = pd.read_parquet(path)
    rows.loc[3:, "token"] = ["i2", "i1"]
    rows.to_parquet(path)
    with pytest.raises(UserError) as raised:
        FeatureStore(tmp_path / "f")
    words = "2 tokens are there twice, the first is 'i2'; build the feature anew"
    assert str(raised.value) == f"{path}: {words}"


@pytest.mark.parametrize("tokens", [0, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stored_values_that_are_no_numbers_are_refused_where_they_are_read(
    value, tokens, tmp_path, monkeypatch
):
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 8)  # a row at a time
    make(tmp_path / "f", TEXTS, Fake(tokens=tokens))
    (path,) = (tmp_path / "f").glob("values-*.npy")
    values = np.load(path)
    values[2] = value  # i3 has no vector: whatever stands there is not read
    np.save(path, values)
    ids = ["[PAD]", *(f"i{i}" for i in range(1, 6))]
    assert np.isfinite(FeatureStore(tmp_path / "f").align(ids).table()).all()
    values.reshape(5, -1)[[1, 4], 2] = value
    np.save(path, values)
    aligned = FeatureStore(tmp_path / "f").align(ids)
    assert np.isfinite(aligned.take(np.array([0, 1, 3, 4]))[0]).all()
    words = "rows have values that are no numbers (NaN or infinite), the first is that of"
    for read, n in ((aligned.table, 6), (lambda: aligned.take(np.array([5, 2, 1])), 3)):
        with pytest.raises(UserError) as raised:
            read()
        first = "i2" if n == 6 else "i5"
        assert str(raised.value) == f"{path}: 2 of {n} {words} '{first}'; build the feature anew"
    encoder = Fake(tokens=tokens)
    make(tmp_path / "f", TEXTS, encoder).align(["[PAD]", "i1"])
    assert encoder.asked == ["two"]
