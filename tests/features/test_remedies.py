"""A sentence that says what is wrong says what to do about it."""

from __future__ import annotations

import pytest

from recbole_ext.features import exchange, images, profiles, texts
from recbole_ext.features.contact_sheet import contact_sheet
from recbole_ext.features.llm import Written
from recbole_ext.features.manifest import Source
from recbole_ext.features.writing import write_texts
from recbole_ext.types import UserError
from tests.features.test_build import Fake, make


class Writes:
    source = Source("writes", "1")

    def write(self, prompts):
        return [Written("text") for _ in prompts]


def write(folder, name, content="", **more):
    (folder / name).write_text(content, **more)
    return folder / name


def one_vector(folder):
    return make(folder / "f", {"i1": "one"}, Fake())


CASES = [
    (lambda f: make(f / "f", {"i1": None}, Fake()), "mend the source, or name another"),
    (
        lambda f: make(f / "f", {"i1": "a"}, Fake(), confirm=lambda _: False),
        "answer y, or give --yes",
    ),
    (
        lambda f: write_texts(f, {"u": "p"}, Writes(), confirm=lambda _: False),
        "answer y, or give --yes",
    ),
    (lambda f: write_texts(f, {"u": "p"}, Writes(), cutoffs={}), "give one for each"),
    (lambda f: contact_sheet(f / "s.png", one_vector(f), {}), "build the feature of more items"),
    (lambda f: contact_sheet(f / "s.png", one_vector(f), {}, n_items=1999), "ask for fewer"),
    (lambda f: images.read_images(f / "no"), "name a folder of pictures or a CSV"),
    (lambda f: images.read_images(write(f, "x.txt")), "name a folder of pictures or a CSV"),
    (lambda f: images.read_images(f), "name another folder, or a CSV"),
    (lambda f: images.read_images(write(f, "x.csv", "i,file\n")), "write a row for each picture"),
    (lambda f: images.read_images(write(f, "x.csv", "i,file\na,b,c\n")), "write as many"),
    (
        lambda f: images.read_images(write(f, "x.csv", "i,fileé\n", encoding="latin-1")),
        "save it as UTF-8",
    ),
    (lambda f: profiles.read_template(f), "name a file of text in UTF-8"),
    (
        lambda f: profiles.import_texts(write(f, "x.json", '{"u": "likes"}')),
        "give --cutoff=<that time>, or --i_know_it_may_leak",
    ),
    (lambda f: texts.read_texts(f / "no.json"), "name a file of texts (.json, .jsonl, .csv"),
    (lambda f: texts.read_texts(write(f, "x.json", "{")), "save it anew as .json"),
    (lambda f: texts.read_texts(write(f, "x.json", "[1]")), 'write {"<token>": "<text>", ...}'),
    (lambda f: texts.read_texts(write(f, "x.json", '{"a": 1}')), "put it in quotes, or null"),
    (lambda f: texts.read_texts(write(f, "x.csv", "a\n1\n")), "name a column for each"),
    (lambda f: texts.read_atomic(write(f, "x.item", "i\tt\na\tb\tc\n")), "write as many"),
    (lambda f: texts.read_atomic(write(f, "x.item", "i\tt\n")), "write a line for each token"),
    (
        lambda f: exchange.read_atomic_vectors(
            write(f, "v", "i:token\tv:float_seq\na\t1\nb\t1 2\n")
        ),
        "all are of one length",
    ),
]


@pytest.mark.parametrize(("cause", "remedy"), CASES)
def test_the_remedy_is_in_the_sentence(cause, remedy, tmp_path):
    with pytest.raises(UserError) as raised:
        cause(tmp_path)
    assert remedy in str(raised.value) and "\n" not in str(raised.value)
