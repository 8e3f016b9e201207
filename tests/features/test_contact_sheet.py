"""The contact sheet: who is beside whom, and that the pictures are theirs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.contact_sheet import (
    _lines,
    contact_sheet,
    pooled,
)
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.images import read_images
from recbole_ext.features.manifest import Source
from recbole_ext.features.store import FeatureStore
from recbole_ext.types import UserError
from tests.features.fake_tower import write

SIDE = 32


class Given:
    """Gives the vectors that are its contents, as texts of numbers; ``bad`` has none."""

    source = Source("given", "1")

    def encode(self, contents):
        problems = {i: "bad" for i, text in enumerate(contents) if text == "bad"}
        rows = [[0.0, 0.0] if t == "bad" else list(map(float, t.split()))[-2:] for t in contents]
        return Encoded(np.array(rows, np.float32), None, problems)


def store_of(folder, texts) -> FeatureStore:
    subject = Subject("poster", "image", "item", "tiny")
    return build(folder, texts, Given(), subject, Building(show_progress=False))


def test_rows_with_several_vectors_have_the_mean_of_what_counts(tmp_path, monkeypatch):
    class Two(Given):
        def encode(self, contents):
            values = np.array([[[3, 4], [np.nan, 90]], [[1, 0], [0, 3]]], np.float32)
            return Encoded(values, np.array([[True, False], [True, True]]))

    subject = Subject("poster", "image", "item", "tiny")
    texts = {"a": "1", "b": None, "c": "2"}
    store = build(tmp_path / "f", texts, Two(), subject, Building(show_progress=False))
    for size in (1, 1 << 26):  # a row at a time, all together
        monkeypatch.setattr("recbole_ext.features.inspect.CHUNK_BYTES", size)
        assert pooled(store, np.array([2, 0])).tolist() == [[0.5, 1.5], [3, 4]]
    one = store_of(tmp_path / "g", {"a": "1 2", "b": "3 4"})
    assert pooled(one, np.array([1])).tolist() == [[3, 4]]


def test_each_item_is_beside_its_nearest(tmp_path):
    vectors = {"r1": "1 0", "g1": "0 1", "r2": "5 .1", "g2": ".2 3", "r3": "1 .3", "x": "bad"}
    colours = {"r": (255, 0, 0), "g": (0, 255, 0), "x": (0, 0, 255)}
    place = tmp_path / "pictures"
    place.mkdir()
    for i, token in enumerate(vectors):
        r, g, b = colours[token[0]]
        write(place / f"{token}.png", (max(r - 9 * i, 0), max(g - 9 * i, 0), b))
    (place / "g2.png").unlink()
    store = store_of(tmp_path / "f", vectors)
    path = tmp_path / "sheet.png"
    titles = {"r1": "A long title of many words that no caption has room for " * 5}
    rows = contact_sheet(
        path, store, read_images(place), titles=titles, n_items=9, n_neighbours=2, side=SIDE
    )
    nearest_of = {"r1": ["r2", "r3"], "r2": ["r1", "r3"], "r3": ["r2", "r1"]}
    nearest_of |= {"g1": ["g2", "r3"], "g2": ["g1", "r3"]}
    assert {row[0]: row[1:] for row in rows} == nearest_of  # all but x, which has no vector
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        sheet = np.asarray(image).astype(int)  # [H, W, 3]
    height = (sheet.shape[0] - 8) // len(rows)
    for i, row in enumerate(rows):
        for j, token in enumerate(row):
            y, x = 8 + i * height + SIDE - 2, 8 + j * (SIDE + 8) + SIDE // 2
            with Image.open(place / f"{token if token != 'g2' else 'r1'}.png") as image:
                wanted = np.array(image.getpixel((0, 0)))
            assert (np.abs(sheet[y, x] - wanted).max() <= 1) == (token != "g2"), (i, token)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("ab cd", ["ab cd"]),
        ("ab cd efgh", ["ab cd", "efgh"]),
        ("ab cd efgh ijk lmn", ["ab cd", "efgh", "ijk..."]),
        ("abcdefghi", ["abc..."]),
        ("a bcdefghi", ["a", "bcd..."]),
    ],
)
def test_a_caption_is_broken_at_words(text, lines):
    assert _lines(text, lambda line: len(line) <= 6) == lines


def test_the_draw_is_that_of_the_seed(tmp_path):
    store = store_of(tmp_path / "f", {f"i{i}": f"{i} {i % 3} 1" for i in range(1, 30)})
    rows = {
        seed: contact_sheet(tmp_path / "s.png", store, {}, n_items=3, n_neighbours=2, seed=seed)
        for seed in (0, 1)
    }
    again = contact_sheet(tmp_path / "s.png", store, {}, n_items=3, n_neighbours=2, seed=1)
    assert again == rows[1] != rows[0] and [len(row) for row in again] == [3, 3, 3]


def test_what_makes_no_sheet_is_refused(tmp_path):
    store = store_of(tmp_path / "f", {"a": "1 0", "b": "bad"})
    with pytest.raises(UserError, match="neighbours need two rows with vectors"):
        contact_sheet(tmp_path / "s.png", store, {})
    with pytest.raises(UserError, match="a contact sheet of 0 items with 5 neighbours"):
        contact_sheet(tmp_path / "s.png", store, {}, n_items=0)
    store = store_of(tmp_path / "g", {"a": "1 0", "b": "1 1"})
    with pytest.raises(UserError, match="cannot write"):
        contact_sheet(tmp_path / "no" / "s.png", store, {})
    assert not (tmp_path / "s.png").exists()
