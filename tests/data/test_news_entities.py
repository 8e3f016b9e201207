"""MIND's file of entity vectors, by the entities of a dataset."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_ext.data.news_entities import stored_entities
from recbole_ext.types import UserError

TOKENS = np.array(["[PAD]", "Q1", "Q2", "Q3"])


def settings(folder, given="auto"):
    return {"entity_vectors": given, "data_path": str(folder), "dataset": "mind"}


def write(folder, text):
    (folder / "entity_embedding.vec").write_text(text)


def test_it_is_read_by_token_where_it_lies_beside_the_data(tmp_path):
    assert stored_entities(settings(tmp_path), TOKENS) is None
    write(tmp_path, "Q3\t1.5\t-2\t\nQ9\t7\t7\t\nQ1\t.5\t0\t\n")
    found = stored_entities(settings(tmp_path), TOKENS)
    assert torch.equal(found, torch.tensor([[0, 0], [0.5, 0], [0, 0], [1.5, -2]]))
    assert stored_entities(settings(tmp_path, None), TOKENS) is None
    other = settings("elsewhere", str(tmp_path / "entity_embedding.vec"))
    assert torch.equal(stored_entities(other, TOKENS), found)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Q1\t1\t2\nQ2\t1\n", "line 2: no token and 2 numbers"),
        ("Q1\t1\tx\n", "line 1: no token"),
        ("Q1\tnan\t1\n", "line 1: no token"),
        ("Q1\n", "line 1: no token"),
        ("Q8\t1\t2\n", "has none of the 3 entities of 'mind', as Q3"),
        (None, "entity_vectors: cannot read"),
    ],
)
def test_a_file_that_is_none(tmp_path, text, sentence):
    if text is not None:
        write(tmp_path, text)
    with pytest.raises(UserError, match=sentence):
        stored_entities(settings("x", str(tmp_path / "entity_embedding.vec")), TOKENS)
