"""Labels: the single tokens by which a language model answers, each seen in its context."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

from recbole_ext.types import UserError

LETTERS = tuple(string.ascii_uppercase + string.ascii_lowercase[:24])
"""A to Z and a to x. Numbers fail: where a tokenizer splits digits, 1 and 10 begin alike."""
YES_NO = ("yes", "no")


def label_tokens(
    encode: Callable[[str], Sequence[int]], context: str, labels: Sequence[str]
) -> list[int]:
    """Return the token of each label where the answer begins.

    Args:
        encode: Text -> tokens.
        context: A prompt, up to where the answer begins.
        labels: The answers.

    Raises:
        UserError: A label is no token of its own there, or two are the same one.
    """
    before = list(encode(context))
    found: dict[int, str] = {}
    for label in labels:
        tokens = list(encode(context + label))
        if tokens[:-1] != before:
            raise UserError(
                f"the tokenizer does not read the label '{label}' as one token where the answer "
                "begins; take another model, or end the template of prompt: otherwise"
            )
        if (other := found.get(tokens[-1])) is not None:
            raise UserError(
                f"the tokenizer reads the labels '{other}' and '{label}' as the same token; take "
                "another model"
            )
        found[tokens[-1]] = label
    return list(found)
