"""Sentence encoders: what is read of a text, and what is refused; by a stand-in for the package."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from recbole_ext.features.text_encoders import SentenceEncoder
from recbole_ext.types import UserError

POSITIONS = 12
"""Tokens that the stand-in has positions for."""


class Words(torch.nn.Module):
    """A model of two special tokens and a token for each word; a vector counts what it read."""

    max_seq_length = 6

    def __init__(self, name, *, revision=None, device=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.device = device

    def tokenizer(self, texts, *, truncation):
        assert truncation is False
        return {"input_ids": [[0, *range(len(text.split())), 1] for text in texts]}

    def encode(self, texts, *, output_value="sentence", **_):
        counts = [min(len(text.split()) + 2, self.max_seq_length) for text in texts]
        if max(counts) > POSITIONS:
            raise IndexError("index out of range in self")
        if output_value == "sentence":
            return np.array([[count, 1.0] for count in counts])
        return [torch.arange(count).float()[:, None].expand(-1, 2) for count in counts]


@pytest.fixture(autouse=True)
def package(monkeypatch):
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = Words
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


TEXTS = ["a b c d", "a b c d e", "a", "a b c d e f g"]


@pytest.mark.parametrize(
    ("given", "cut"),
    [
        ({}, [False, True, False, True]),  # six tokens, of which two are special
        ({"max_length": 8}, [False, False, False, True]),
        ({"tokens": 3}, [True, True, False, True]),
    ],
)
def test_texts_with_more_tokens_than_are_read_are_told(given, cut):
    found = SentenceEncoder("folder", **given).encode(TEXTS)
    assert found.cut is not None and found.cut.tolist() == cut


def test_a_model_without_such_a_tokenizer_does_not_tell(monkeypatch):
    monkeypatch.setattr(Words, "tokenizer", None)
    assert SentenceEncoder("folder").encode(TEXTS).cut is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max_length": 13}, "max_length: encoder 'folder' cannot read 13 tokens of a text .index"),
        ({"max_length": 10**30}, "max_length: encoder 'folder' cannot read 1000"),
        (
            {"tokens": 7},
            "tokens: 7 of a text are to be kept, and encoder 'folder' reads 6; set",
        ),
        ({"device": "cdua"}, "device 'cdua' cannot be used .* set cpu or auto"),
        ({"device": ""}, "device '' cannot be used"),
        ({"device": "meta"}, "device 'meta' cannot be used"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ],
)
def test_what_an_encoder_cannot_do_is_one_sentence(given, sentence):
    with pytest.raises(UserError, match=sentence):
        SentenceEncoder("folder", **given)
    assert SentenceEncoder("folder", device="cpu").model.device == "cpu"
