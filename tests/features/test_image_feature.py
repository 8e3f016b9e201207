"""From files to a stored feature: what is covered, what is encoded again, what goes on."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image

from recbole_ext.features.build import Building, Subject
from recbole_ext.features.image_feature import image_feature
from recbole_ext.features.images import image_hash, read_images
from recbole_ext.features.open_clip_encoder import OpenClipEncoder
from recbole_ext.features.store import FeatureStore
from recbole_ext.types import UserError
from tests.features.fake_tower import put_in, write

SUBJECT = Subject("poster", "", "item", "tiny", notes=("mine",))
COLOURS = {"i1": (240, 30, 0), "i2": (0, 90, 200), "i3": (10, 10, 10), "i4": (250, 250, 250)}


@pytest.fixture
def folder(tmp_path):
    """Five pictures, of which one is cut off."""
    place = tmp_path / "pictures"
    place.mkdir()
    for token, colour in COLOURS.items():
        write(place / f"{token}.png", colour)
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(place / "i5.jpg")
    (place / "i5.jpg").write_bytes((place / "i5.jpg").read_bytes()[:700])
    return place


def make(out, source, **more):
    encoder = OpenClipEncoder("any", device="cpu", **more)
    how = Building(batch_size=2, hash_of=image_hash, show_progress=False)
    return image_feature(out, read_images(source), SUBJECT, encoder, how)


def test_a_folder_becomes_a_feature(folder, tmp_path, monkeypatch, caplog):
    put_in(monkeypatch)
    with caplog.at_level(logging.INFO):
        store = make(tmp_path / "f", folder)
    aligned = store.align(["[PAD]", "i9", "i2", "i5", "i1"])
    assert aligned.present.tolist() == [False, False, True, False, True]
    wanted = [(0, 0, 0), (0, 0, 0), COLOURS["i2"], (0, 0, 0), COLOURS["i1"]]
    assert (aligned.table() == np.array(wanted)).all()
    rows = store.rows.set_index("token")
    assert list(rows.index) == ["i1", "i2", "i3", "i4", "i5"]
    assert "truncated" in rows.loc["i5", "problem"]
    manifest = store.manifest
    assert (manifest.kind, manifest.of, manifest.n_present) == ("image", "item", 4)
    assert manifest.notes == ("mine", "a note") and manifest.source.encoder == "fake/random"
    assert "feature poster: 4 of 5 items of the source have pictures, 3, by fake" in caplog.text
    assert "no vector for i5: " in caplog.text


def test_patches_have_a_row_each_and_a_mask(folder, tmp_path, monkeypatch):
    put_in(monkeypatch)
    write(folder / "i1.png", COLOURS["i1"], right=COLOURS["i2"])
    store = make(tmp_path / "f", folder, tokens="patches")
    assert store.manifest.shape == (5, 4, 3)
    values, mask = store.align(["[PAD]", "i1", "i5", "i9"]).take(np.arange(4))
    assert mask.tolist() == [[False] * 4, [True] * 4, [False] * 4, [False] * 4]
    left, right = COLOURS["i1"], COLOURS["i2"]
    assert (values[1] == np.array([left, right, left, right])).all()


def test_several_pictures_of_an_item(folder, tmp_path, monkeypatch, caplog):
    put_in(monkeypatch)
    rows = ["i1,i1.png", "i1,gone.png", "i1,i2.png", "i2,i2.png", "i3,", "i4,gone.png"]
    (folder / "p.csv").write_text("\n".join(["item_id,file", *rows]))
    store = make(tmp_path / "f", folder / "p.csv", pictures=2)
    values, mask = store.align(["", "i1", "i2", "i3", "i4"]).take(np.arange(5))
    assert mask.tolist()[1:] == [[True, True], [True, False], [False, False], [False, False]]
    assert (values[1] == np.array([COLOURS["i1"], COLOURS["i2"]])).all()
    assert "1 items have more pictures than are used" in caplog.text
    assert "no vector for i3: no file is named" in caplog.text
    assert "gone.png: no such file" in store.rows["problem"][3]
    assert not isinstance(store.rows["problem"][0], str)


def test_a_stopped_build_goes_on_and_only_what_changed_is_encoded(folder, tmp_path, monkeypatch):
    visual = put_in(monkeypatch)
    visual.stop_after = 2  # one to look at the tower, one batch
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "f", folder)
    with pytest.raises(UserError, match="holds no feature"):
        FeatureStore(tmp_path / "f")
    visual = put_in(monkeypatch)
    store = make(tmp_path / "f", folder)
    assert sum(visual.batches) - 1 == 2 and store.manifest.n_present == 4
    write(folder / "i3.png", (1, 2, 3))
    visual = put_in(monkeypatch)
    store = make(tmp_path / "f", folder)
    assert sum(visual.batches) - 1 == 1  # i5 is tried again, and fails again
    assert store.align(["", "i3"]).table()[1].tolist() == [1, 2, 3]
    assert store.align(["", "i1"]).table()[1].tolist() == list(COLOURS["i1"])


def test_pictures_none_of_which_can_be_read_make_no_feature(tmp_path, monkeypatch):
    put_in(monkeypatch)
    (tmp_path / "i1.png").write_bytes(b"no")
    with pytest.raises(UserError, match="none of 1 rows has a vector .*no picture that can be"):
        make(tmp_path / "f", tmp_path)
