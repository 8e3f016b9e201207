"""Prompts word by word, their templates, and what a template must have."""

from __future__ import annotations

import pytest

from recbole_ext.rerankers.llm import listwise, pointwise
from recbole_ext.rerankers.llm.prompts import FOLDER, Prompt, PromptTemplate, template_of
from recbole_ext.types import UserError

LISTWISE = """\
You recommend items. You see what a user had and the candidates for what comes next.

What the user had, the oldest first:
- Alien
- Heat

Candidates:
A. Big
B. Up

Which candidate does the user take next? Answer with its letter alone.

Answer:
"""
POINTWISE_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
POINTWISE = """\
<Instruct>: Given what a user had, the oldest first, judge whether the item is what the user takes next
<Query>:
- Alien
- Heat
<Document>: Big"""  # noqa: E501


def test_the_listwise_prompt_word_by_word():
    template = template_of("qwen_listwise", None, listwise.FIELDS)
    prompt = template.fill(["Alien", "Heat"], candidates="A. Big\nB. Up")
    assert prompt.plain() == LISTWISE


def test_the_pointwise_prompt_is_qwen3_rerankers_word_by_word():
    template = template_of("qwen_pointwise", None, pointwise.FIELDS)
    prompt = template.fill(["Alien", "Heat"], candidate="Big")
    assert prompt.messages() == [
        {"role": "system", "content": POINTWISE_SYSTEM},
        {"role": "user", "content": POINTWISE},
    ]


def test_a_user_without_a_history_is_said_to_have_none():
    template = template_of("qwen_pointwise", None, pointwise.FIELDS)
    assert "<Query>:\n(nothing yet)\n" in template.fill([], candidate="Big").user


def test_a_template_of_ones_own_may_do_without_the_systems_words(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("{candidates} after {history}, {{so}}?\n")
    prompt = PromptTemplate(path, listwise.FIELDS).fill(["Alien"], candidates="A. {Big}")
    assert prompt == Prompt("A. {Big} after - Alien, {so}?")
    assert prompt.messages() == [{"role": "user", "content": prompt.user}]
    assert prompt.plain() == "A. {Big} after - Alien, {so}?\n\nAnswer:\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{history}", r"own.txt has the field \{candidates\} 0 times"),
        ("{history} {candidates} {candidates}", r"the field \{candidates\} 2 times"),
        ("{candidates}\n---\n{history}", r"the field \{candidates\} 0 times below its system's"),
        ("{history} {candidate}", "no field 'candidate'; did you mean 'candidates'"),
        ("---\n{history}\n---\n{candidates}", "has 2 lines '---'; keep one"),
        ("{history", "own.txt: .*fields are written {history}"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_sentence(text, sentence, tmp_path):
    path = tmp_path / "own.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        PromptTemplate(path, listwise.FIELDS)


def test_a_template_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="prompt: the template .*none.txt cannot be read .*copy of"):
        template_of("qwen_listwise", str(tmp_path / "none.txt"), listwise.FIELDS)


def test_every_template_of_the_package_is_one_of_these():
    assert sorted(path.name for path in FOLDER.iterdir()) == [
        "qwen_listwise.txt",
        "qwen_pointwise.txt",
    ]
