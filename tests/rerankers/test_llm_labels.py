"""Labels are single tokens where the answer begins, or refused."""

from __future__ import annotations

import re

import pytest

from recbole_ext.rerankers.llm.labels import LETTERS, label_tokens
from recbole_ext.types import UserError

CONTEXT = "Which?\nAnswer:\n"


def by_character(text: str) -> list[int]:
    return list(text.encode())


def test_every_letter_is_its_own_token():
    assert label_tokens(by_character, CONTEXT, LETTERS) == [ord(letter) for letter in LETTERS]


def test_numbers_fail_where_digits_are_tokens():
    numbers = [str(n) for n in range(1, 51)]
    with pytest.raises(UserError, match="does not read the label '10' as one token where the ans"):
        label_tokens(by_character, CONTEXT, numbers)


def test_a_letter_that_grows_together_with_the_prompts_end_is_refused():
    """A token for it elsewhere does not help: it is the one in this place that is scored."""

    def pieces(text):
        return [hash(piece) for piece in re.findall(r"\w+|\W", text)]

    assert len(label_tokens(pieces, CONTEXT, LETTERS)) == 50
    with pytest.raises(UserError, match="the label 'A' as one token .*end the template of prompt"):
        label_tokens(pieces, "The answer is_", LETTERS)


def test_two_labels_of_one_token_are_refused():
    with pytest.raises(UserError, match="reads the labels 'A' and 'a' as the same token"):
        label_tokens(lambda text: by_character(text.lower()), CONTEXT, LETTERS)
