"""Vectors from and to RecBole's additional files and MMRec's arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_ext.features import exchange
from recbole_ext.features.build import Building, Subject, build
from recbole_ext.types import UserError

VECTORS = {"a": [1.5, -2.0, 0.1], "b": [0.0, 0.0, 0.0], "c": [1e-3, 7.0, 3.25]}


def stored(folder, vectors, path):
    found = {token: np.array(v, dtype=np.float32) for token, v in vectors.items()}
    subject = Subject("v", "vector", "item", "tiny")
    how = Building("float32", hash_of=exchange.vector_hash, show_progress=False)
    return build(folder, found, exchange.Given(path), subject, how)


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for token, vector in wanted.items():
        assert found[token].tolist() == pytest.approx(vector, rel=1e-6)


def test_recboles_file_there_and_back(tmp_path):
    store = stored(tmp_path / "f", VECTORS, tmp_path / "x")
    assert store.rows["problem"].dropna().to_dict() == {1: "all zeros"}
    path = tmp_path / "tiny.emb"
    assert exchange.write_atomic_vectors(store, path, "item_id", "vec") == 2
    assert path.read_text().splitlines()[0] == "item_id:token\tvec:float_seq"
    same(exchange.read_atomic_vectors(path), {t: v for t, v in VECTORS.items() if t != "b"})


def test_recbole_reads_what_was_written(tmp_path, tiny_settings):
    """By RecBole's own loader: ``additional_feat_suffix`` and ``preload_weight``."""
    from recbole_ext.config import Config
    from recbole_ext.data.build import create_dataset

    plain = create_dataset(Config("BPR", "tiny", None, tiny_settings))
    tokens = [str(token) for token in plain.field2id_token["item_id"][1:]]
    rng = np.random.default_rng(0)
    vectors = {token: rng.normal(size=4).round(3).tolist() for token in tokens}
    store = stored(tmp_path / "f", vectors, tmp_path / "x")
    data = tmp_path / "data" / "tiny"
    data.mkdir(parents=True)
    inter = Path(tiny_settings["data_path"]) / "tiny" / "tiny.inter"
    (data / "tiny.inter").write_bytes(inter.read_bytes())
    exchange.write_atomic_vectors(store, data / "tiny.emb", "emb_id", "emb_vec")
    settings = {
        **tiny_settings,
        "data_path": str(tmp_path / "data"),
        "additional_feat_suffix": ["emb"],
        "load_col": {**tiny_settings["load_col"], "emb": ["emb_id", "emb_vec"]},
        "alias_of_item_id": ["emb_id"],
        "preload_weight": {"emb_id": "emb_vec"},
    }
    dataset = create_dataset(Config("BPR", "tiny", None, settings))
    weight = dataset.get_preload_weight("emb_id")  # [N, D]
    for i, token in enumerate(dataset.field2id_token["item_id"][1:], 1):
        assert weight[i].tolist() == pytest.approx(vectors[str(token)], rel=1e-6)


def test_mmrecs_arrays_there_and_back(tmp_path):
    store = stored(tmp_path / "f", VECTORS, tmp_path / "x")
    values, mapping = tmp_path / "text_feat.npy", tmp_path / "i_id_mapping.csv"
    assert exchange.write_mmrec(store, values, mapping) == 2
    assert np.load(values)[1].tolist() == [0, 0, 0]
    same(exchange.read_mmrec(values, mapping), VECTORS)
    table = pd.read_csv(mapping, sep="\t").assign(more="x")
    table.iloc[::-1].to_csv(mapping, sep="\t", index=False)  # by number, not by row
    same(exchange.read_mmrec(values, mapping, "item_id"), dict(reversed(VECTORS.items())))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("item_id:token\n", "it has 0 of that type"),
        ("i:token\tv:float_seq\n1\t1 x\n", "line 2: no vector of numbers"),
        ("i:token\tv:float_seq\n1\t1 2\n2\t1\n", "line 3: 1 numbers where the first vector has 2"),
        ("i:token\tv:float_seq\n1\t1 2\n1\t3 4\n", "line 3: the token '1' is there already"),
    ],
)
def test_a_file_of_vectors_that_is_none(text, sentence, tmp_path):
    (tmp_path / "x.emb").write_text(text)
    with pytest.raises(UserError, match=sentence):
        exchange.read_atomic_vectors(tmp_path / "x.emb")


@pytest.mark.parametrize(
    ("array", "table", "sentence"),
    [
        (np.ones(3), "asin\titemID\na\t0\n", "has shape .3,.; save one of .items, size."),
        (np.ones((2, 3)), "asin\tid\na\t0\n", "has no column 'itemID'"),
        (np.ones((2, 3)), "asin\titemID\na\t2\n", "numbers items from 2 to 2, and .* has 2 rows"),
        (
            np.ones((2, 3)),
            "asin\tx\titemID\na\tb\t1\n",
            "name its column of tokens, one of asin, x",
        ),
        (np.ones((2, 3)), "asin\titemID\na\t0\na\t1\n", "the token 'a' is there already"),
    ],
)
def test_arrays_that_do_not_fit(array, table, sentence, tmp_path):
    np.save(tmp_path / "f.npy", array)
    (tmp_path / "m.csv").write_text(table)
    with pytest.raises(UserError, match=sentence):
        exchange.read_mmrec(tmp_path / "f.npy", tmp_path / "m.csv")


def test_an_array_and_the_list_of_its_tokens(tmp_path):
    np.save(tmp_path / "f.npy", np.arange(6.0).reshape(3, 2))
    (tmp_path / "ids.json").write_text('["N7", "N3", 5]')
    found = exchange.read_listed(tmp_path / "f.npy", tmp_path / "ids.json")
    assert {name: vector.tolist() for name, vector in found.items()} == {
        **{"N7": [0, 1], "N3": [2, 3], "5": [4, 5]}
    }


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        ('["a"]', "has 1 tokens and .*f.npy has 2 rows"),
        ('{"a": 0, "b": 1}', "is no list of tokens"),
        ('["a", 1.5]', "is no list of tokens"),
        ('["a", "a"]', "the token 'a' is there already"),
        ("a, b", "cannot read .*ids.json"),
        (None, "cannot read .*ids.json"),
    ],
)
def test_lists_that_do_not_fit(listed, sentence, tmp_path):
    np.save(tmp_path / "f.npy", np.ones((2, 3)))
    if listed is not None:
        (tmp_path / "ids.json").write_text(listed)
    with pytest.raises(UserError, match=sentence):
        exchange.read_listed(tmp_path / "f.npy", tmp_path / "ids.json")
