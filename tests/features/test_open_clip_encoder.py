"""Vectors of pictures: of one and of several, of what cannot be read, whatever the batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from recbole_ext.features import open_clip_encoder
from recbole_ext.features.open_clip_encoder import (
    OpenClipEncoder,
    device_of,
    hash_of_weights,
    mean_vector,
)
from recbole_ext.types import UserError
from tests.features.fake_tower import put_in, write

A, B, C = (240, 30, 0), (0, 90, 200), (10, 10, 10)


@pytest.fixture
def files(tmp_path):
    """Pictures a, b and c of one colour, and a broken one."""
    found = {n: write(tmp_path / f"{n}.png", c) for n, c in (("a", A), ("b", B), ("c", C))}
    found["bad"] = tmp_path / "bad.png"
    found["bad"].write_bytes(b"not a picture")
    return found


def make(**more):
    return OpenClipEncoder("any", "random", device="cpu", **more)


def test_one_picture_has_the_towers_vector(files, monkeypatch):
    put_in(monkeypatch)
    found = make().encode([(files["a"],), (files["b"],)])
    assert found.values.tolist() == [list(A), list(B)] and found.mask is None
    assert found.values.dtype == np.float32 and found.problems == {}


def test_of_several_pictures_no_long_vector_outweighs_the_others(files, monkeypatch):
    put_in(monkeypatch)
    found = make().encode([(files["a"], files["c"], files["b"])]).values[0]  # [3]
    vectors = np.array([A, C, B], np.float64)
    lengths = np.sqrt((vectors**2).sum(1))  # [3]
    wanted = (vectors / lengths[:, None]).mean(0) * lengths.mean()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert torch.equal(mean_vector(torch.tensor([[3.0, 4.0]])), torch.tensor([3.0, 4.0]))
    assert mean_vector(torch.zeros(2, 3)).tolist() == [0, 0, 0]


def test_pictures_of_their_own_are_stacked_and_masked(files, monkeypatch):
    put_in(monkeypatch)
    a, b, c = files["a"], files["b"], files["c"]
    found = make(pictures=2).encode([(a,), (b, a), (c, b, a)])
    assert found.values.tolist() == [
        [list(A), [0, 0, 0]],
        [list(B), list(A)],
        [list(C), list(B)],  # the first two of three
    ]
    assert found.mask.tolist() == [[True, False], [True, True], [True, True]]


def test_patches_are_rows_from_the_upper_left(tmp_path, files, monkeypatch):
    put_in(monkeypatch)
    halves = write(tmp_path / "h.png", A, right=B)
    found = make(tokens="patches").encode([(halves, files["c"]), (files["c"],)])
    assert found.values[0].tolist() == [list(A), list(B), list(A), list(B)]
    assert found.values[1].tolist() == [list(C)] * 4 and found.mask.all()
    found = make(tokens="patches", pictures=2).encode([(files["c"], halves), (halves,)])
    assert found.values.shape == (2, 8, 3)
    assert found.values[0, 4:].tolist() == [list(A), list(B), list(A), list(B)]
    assert found.mask.tolist() == [[True] * 8, [True] * 4 + [False] * 4]


@pytest.mark.parametrize("more", [{}, {"pictures": 2}, {"tokens": "patches"}])
def test_what_cannot_be_read_is_left_out(more, files, monkeypatch, caplog):
    put_in(monkeypatch)
    a, bad, gone = files["a"], files["bad"], files["bad"].with_name("gone.png")
    encoder = make(**more)
    found = encoder.encode([(bad, a), (bad,), (gone, bad), (a,)])
    alone = encoder.encode([(a,)])
    for i in (0, 3):
        assert (found.values[i] == alone.values[0]).all()
    assert set(found.problems) == {1, 2}
    assert "no picture that can be read" in found.problems[1]
    assert found.problems[2].startswith("none of 2 pictures can be read, as ")
    assert "gone.png: no such file" in found.problems[2]
    if found.mask is not None:
        assert (found.mask[0] == alone.mask[0]).all() and not found.mask[[1, 2]].any()
    said = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert len(said) == 1 and "bad.png" in said[0]


@pytest.mark.parametrize(
    ("chunk", "batches"),
    [(1, [1] * 8), (2, [1, 2, 1, 1, 2, 1]), (3, [1, 3, 1, 3]), (64, [8])],
)
def test_no_more_than_a_chunk_is_in_memory(chunk, batches, files, monkeypatch):
    monkeypatch.setattr(open_clip_encoder, "CHUNK", chunk)
    visual = put_in(monkeypatch)
    a, b, c, bad = (files[name] for name in ("a", "b", "c", "bad"))
    contents = [(a,), (b, c, a), (bad,), (c,), (a, b), (b,)]
    encoder = make(pictures=3)
    visual.batches.clear()
    found = encoder.encode(contents)
    assert visual.batches == batches  # contents are not split, where they are no more than it
    for i, paths in enumerate(contents):
        colours = [{a: A, b: B, c: C}[path] for path in paths if path != bad]
        assert found.values[i][found.mask[i]].tolist() == [list(colour) for colour in colours]
    assert found.problems.keys() == {2}


@pytest.mark.gpu
def test_a_gpu_gives_the_vectors_of_the_cpu(files, monkeypatch):
    contents = [(files["a"], files["b"]), (files["c"],), (files["bad"],)]
    found = []
    for device in ("cpu", "cuda"):
        put_in(monkeypatch)
        encoder = OpenClipEncoder("any", "random", pictures=2, device=device)
        assert encoder.device.type == device
        found.append(encoder.encode(contents))
    np.testing.assert_allclose(found[1].values, found[0].values, rtol=1e-4)
    assert (found[1].mask == found[0].mask).all()


def test_no_contents_make_no_vectors(monkeypatch):
    put_in(monkeypatch)
    assert make().encode([]).values.shape == (0, 3)


def test_the_source_says_what_decides_the_vectors(monkeypatch):
    put_in(monkeypatch)
    one = make().source
    assert one.encoder == "fake/random" and one.settings["unit_length"] is False
    assert one.settings["tokens"] == "global" and one.settings["preprocess"] == {"size": [8, 8]}
    others = [make(pictures=1).source, make(pictures=2).source, make(tokens="patches").source]
    put_in(monkeypatch, scale=2.0)
    others.append(make().source)
    assert len({source.digest() for source in (one, *others)}) == 5
    put_in(monkeypatch)
    assert make().source.digest() == one.digest() and make().notes == ("a note",)


def test_the_hash_of_weights_is_of_names_and_values():
    one = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    same = copy.deepcopy(one)
    assert hash_of_weights(one) == hash_of_weights(same)
    same[1].running_mean[2] += 1  # a buffer decides vectors as well
    other = copy.deepcopy(one)
    with torch.no_grad():
        other[0].weight[0, 0] += 1e-6
    named = nn.Sequential()
    named.add_module("a", one[0])
    named.add_module("b", one[1])
    half = copy.deepcopy(one).to(torch.bfloat16)
    found = [hash_of_weights(module) for module in (one, same, other, named, half)]
    assert len(set(found)) == 5
    for kind in (torch.float32, torch.int32):  # zeros of four bytes
        same.register_buffer("zeros", torch.zeros(2, dtype=kind))
        found.append(hash_of_weights(same))
    assert len(set(found)) == 7


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"tokens": "patch"}, "tokens takes global or patches, not 'patch'; did you mean 'patches"),
        ({"pictures": 0}, "pictures takes a number from 1, or nothing, not 0"),
        ({"device": "cudda"}, "device 'cudda' cannot be used .*; set cpu or auto"),
    ],
)
def test_settings_that_are_none_are_refused(more, sentence, monkeypatch):
    put_in(monkeypatch)
    with pytest.raises(UserError, match=sentence):
        OpenClipEncoder("any", "random", **{"device": "cpu", **more})


def test_a_tower_without_patches_is_refused(monkeypatch):
    visual = put_in(monkeypatch)
    visual.forward_intermediates = None
    assert make().source.settings["tokens"] == "global"
    with pytest.raises(UserError, match="architecture 'any' gives no patches vectors .TypeError"):
        make(tokens="patches")


def test_auto_is_cuda_where_there_is_one(monkeypatch):
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device_of("auto").type == name
    assert device_of("cpu") == torch.device("cpu")
    if not torch.backends.cuda.is_built():
        with pytest.raises(UserError, match="device 'cuda' cannot be used"):
            device_of("cuda")
