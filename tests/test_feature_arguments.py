"""Options of ``recbole-ext features`` that cannot be meant, or would be ignored: one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recbole_ext.feature_commands import texts as text_command
from recbole_ext.feature_commands import written as written_command
from recbole_ext.features.llm import Written
from recbole_ext.features.manifest import Source
from recbole_ext.features.text_encoders import SentenceEncoder
from tests.test_feature_commands import DATA, TEXT, call, place  # noqa: F401 - a fixture

SERVED = (*TEXT, "--encoder=endpoint:small", "--yes")
PROFILE = ("profile", *DATA, "--name=taste", "--writer=parrot")
DESCRIBE = ("describe", *DATA, "--name=about", "--writer=parrot")
IMAGE = ("image", *DATA, "--name=p", "--images=data", "--arch=ViT-B-32")
IMPORT = ("import", *DATA, "--name=v")
EXPORT = ("export", "--dataset=tiny", "--name=title", "--file=v.npy", "--mapping=m.csv")
INSPECT = ("inspect", *DATA, "--name=title")
USERS = ("text", *DATA, "--name=likes", "--texts=likes.json", "--of=user")


class Parrot:
    source = Source("parrot", "1")

    def __init__(self, model, *, max_new_tokens):
        pass

    def write(self, prompts):
        return [Written("a text") for _ in prompts]


@pytest.fixture
def files(place, monkeypatch, capsys):  # noqa: F811
    """A stored feature, and files that are none of what is meant."""
    monkeypatch.setattr(written_command, "LocalWriter", Parrot)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (place / "likes.json").write_text('{"u1": "a b", "u2": "c"}')
    (place / "bytes.emb").write_bytes(bytes(range(256)))
    (place / "wide.emb").write_text("i:token\tv:float_seq\na\t" + "0.5 " * 99999 + "0.5\n")
    (place / "empty.npy").write_bytes(b"")
    np.save("words.npy", np.array([["a", "b"]]))
    np.save("v.npy", np.ones((2, 3)))
    np.savez("z.npz", a=np.ones(2))
    (place / "z.npz").rename("z.npy")
    (place / "m.csv").write_text("asin\titemID\na\t0\nb\t1\n")
    (place / "x.csv").write_text("asin\titemID\na\tx\n")
    assert call(capsys, *TEXT)[0] == 0
    return place


ODD = [
    ((*TEXT, "--template={title:>10}"), "the field 'title' has a format; write {title} and no"),
    ((*TEXT, "--template={title!r}"), "the field 'title' has a format; write {title} and no"),
    ((*TEXT, "--template={title:{title}}"), "the field 'title' has a format"),
    ((*TEXT, "--template={title:d}"), "the field 'title' has a format"),
    ((*TEXT, "--template={0}"), "has no field '0' (its fields are title)"),
    ((*TEXT, "--template={}"), "has no field '' (its fields are title)"),
    ((*TEXT, "--template={title"), "fields are written {title}, a brace {{ or }}"),
    ((*TEXT, "--template=title}"), "fields are written {title}, a brace {{ or }}"),
    ((*TEXT, "--tokens=-1"), "--tokens takes a number from 0, not -1"),
    ((*TEXT, "--max_length=0"), "--max_length takes a number from 1, not 0"),
    ((*TEXT, "--batch_size=0"), "--batch_size takes a number from 1, not 0"),
    ((*TEXT, "--batch_size=-5"), "--batch_size takes a number from 1, not -5"),
    ((*TEXT, "--device=cdua"), "device 'cdua' cannot be used"),
    ((*TEXT, "--encoder="), "--encoder is empty; name minilm, a hub id or a folder"),
    ((*TEXT, "--encoder=endpoint:"), "names no model; write --encoder=endpoint:MODEL"),
    ((*TEXT, "--dtype=float8"), "--dtype takes float16 or float32, not 'float8'; did you mean"),
    ((*TEXT, "--template"), "--template takes str; write --template=..."),
    (("text", *DATA, "--name=../x", "--template={title}"), "--name takes the name of one folder"),
    (("text", *DATA, "--name=", "--template={title}"), "--name takes the name of one folder"),
    (("text", "--dataset=/", "--name=x", "--template={title}"), "--dataset takes the name of one"),
    ((*SERVED, "--price_per_million=-1"), "--price_per_million takes a price from 0, not -1.0"),
    ((*SERVED, "--price_per_million=.nan"), "--price_per_million takes a price from 0, not nan"),
    ((*SERVED, "--requests_per_minute=0"), "--requests_per_minute takes a number above 0, not 0"),
    ((*USERS, "--cutoff=.nan"), "the cut-off is nan"),
    ((*PROFILE, "--max_items=0"), "--max_items takes a number from 1, not 0"),
    ((*PROFILE, "--users=-1"), "--users takes a number from 1, not -1"),
    ((*PROFILE, "--share=2"), "--share takes a number above 0, up to 1, not 2.0"),
    ((*PROFILE, "--max_new_tokens=0"), "--max_new_tokens takes a number from 1, not 0"),
    ((*PROFILE, "--line={title:>10}"), "the field 'title' has a format"),
    ((*PROFILE[:-1], "--writer="), "--writer='' names no model; name a folder, a hub id or"),
    ((*PROFILE[:-1], "--writer=endpoint:"), "--writer='endpoint:' names no model"),
    ((*DESCRIBE, "--items=-3"), "--items takes a number from 1, not -3"),
    ((*IMAGE, "--tokens=patch"), "--tokens takes global or patches, not 'patch'; did you mean"),
    ((*IMAGE, "--pictures=0"), "--pictures takes a number from 1, not 0"),
    ((*IMAGE, "--pictures=99999999999"), "--pictures takes a number up to 1000, not 99999999999"),
    ((*IMAGE, "--batch_size=0"), "--batch_size takes a number from 1, not 0"),
    ((*IMPORT, "--file=bytes.emb"), "cannot read bytes.emb: it is no text in UTF-8"),
    ((*IMPORT, "--file=empty.npy", "--mapping=m.csv"), "cannot read empty.npy and m.csv"),
    ((*IMPORT, "--file=words.npy", "--mapping=m.csv"), "words.npy holds no numbers"),
    ((*IMPORT, "--file=z.npy", "--mapping=m.csv"), "z.npy holds several arrays"),
    ((*IMPORT, "--file=v.npy", "--mapping=x.csv"), "x.csv: itemID 'x' is no number"),
    ((*IMPORT, "--file="), "features import: --file is empty; name a file"),
    ((*IMPORT, "--file=v.npy", "--mapping=m.csv", "--dataset=tini"), "did you mean 'tiny'?"),
    (("text", *DATA[1:], "--dataset=tyni", "--name=x", "--texts=likes.json"), "there is no folder"),
    ((*TEXT, "--dataset=tiny2"), "data_path/dataset; --data_path names the first part"),
    ((*TEXT, "--encoder=./nodir"), "--encoder: './nodir' is no folder; name the folder of a saved"),
    ((*TEXT, "--encoder=dta/"), "--encoder: 'dta/' is no folder; did you mean 'data'?"),
    ((*PROFILE[:-1], "--writer=./nodir"), "--writer: './nodir' is no folder"),
    ((*PROFILE[:-1], "--writer=/a/b"), "--writer: '/a/b' is no folder"),
    ((*EXPORT[:-2], "--file=v.emb", "--field=a b"), "--field='a b' cannot be the name of a column"),
    ((*EXPORT[:-2], "--file=v.emb", "--field="), "--field='' cannot be the name of a column"),
    ((*EXPORT[:-2], "--file=/"), "cannot write /: it is a folder; name a file"),
    ((*EXPORT[:-2], "--file=data"), "cannot write data: "),
    ((*INSPECT, "--n=-1"), "--n takes a number from 1, not -1"),
    ((*INSPECT, "--k=0"), "--k takes a number from 1, not 0"),
    ((*INSPECT, "--titles=titel"), "has no field 'titel'; did you mean 'title'"),
    ((*INSPECT, "--titles=title:>9"), "has no field 'title:>9'; did you mean 'title'"),
]
IGNORED = [
    ((*SERVED, "--tokens=3"), "--tokens is for an encoder on this machine, not for a server"),
    ((*SERVED, "--max_length=9"), "--max_length is for an encoder on this machine"),
    ((*SERVED, "--revision=main"), "--revision is for an encoder on this machine"),
    ((*SERVED, "--device=cpu"), "--device is for an encoder on this machine"),
    ((*TEXT, "--requests_per_minute=9"), "--requests_per_minute is for a server (--encoder=endp"),
    ((*TEXT, "--price_per_million=9"), "--price_per_million is for a server"),
    ((*TEXT, "--yes"), "--yes is for a server (--encoder=endpoint:MODEL), and would do nothing"),
    ((*TEXT, "--revision=main"), "--revision is of a hub id, and would do nothing for 'minilm'"),
    ((*TEXT, "--cutoff=9"), "--cutoff is for texts on users from a file (--texts=FILE --of=user)"),
    ((*TEXT, "--i_know_it_may_leak"), "--i_know_it_may_leak is for texts on users from a file"),
    ((*USERS, "--cutoff=9", "--i_know_it_may_leak"), "--cutoff and --i_know_it_may_leak exclude"),
    ((*TEXT, "--images=x"), "recbole-ext features text has no --images"),
    ((*PROFILE, "--share=0.5", "--cutoff=9"), "--share and --cutoff exclude each other; give one"),
    ((*PROFILE, "--yes"), "--yes is for a server (--writer=endpoint:MODEL)"),
    ((*DESCRIBE, "--written_price_per_million=9"), "--written_price_per_million is for a server"),
    ((*IMPORT, "--file=a.emb", "--token=asin"), "--token names a column of --mapping; leave it"),
    (
        (*IMPORT, "--file=a.npy", "--mapping=a.json", "--token=asin"),
        "--token names a column of --mapping; leave it out where that is no table",
    ),
    ((*EXPORT, "--field=x"), "--field is for RecBole's file, not for an .npy array"),
    ((*EXPORT, "--token_field=x"), "--token_field is for RecBole's file"),
]


@pytest.mark.parametrize(("arguments", "sentence"), [*ODD, *IGNORED])
def test_one_sentence_and_nothing_is_touched(arguments, sentence, files, capsys, monkeypatch):
    if "--device=cdua" in arguments:  # the stand-in has none
        monkeypatch.setattr(text_command, "SentenceEncoder", SentenceEncoder)
    given = {argument.partition("=")[0]: argument for argument in arguments}  # the last one counts
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    code, out, err = call(capsys, arguments[0], *(v for k, v in given.items() if k != arguments[0]))
    assert code == 2, out
    assert err.startswith("recbole-ext: ") and sentence in err and len(err.splitlines()) == 1
    after = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    assert before == after


def test_a_vector_of_any_width_comes_in(files, capsys):
    code, out, _ = call(capsys, *IMPORT, "--file=wide.emb")
    assert code == 0 and "1 of 1 items of the source, 100000 float32" in out


def test_a_field_of_any_length_comes_in(files, capsys):
    (files / "data" / "tiny" / "tiny.item").write_text(
        f"item_id:token\ttitle:token_seq\n1\t{'z' * 200_000}\n"
    )
    code, out, _ = call(capsys, *TEXT)
    assert code == 0 and "1 of 1 items" in out


def test_what_was_cut_off_is_in_the_summary(files, capsys, monkeypatch):
    class Cuts(text_command.SentenceEncoder):
        def __init__(self, model, settings=None, **more):
            super().__init__(model, settings, tokens=more["tokens"])
            self.source.settings["max_length"] = 3

        def encode(self, contents):
            found = super().encode(contents)
            found.cut = np.array([len(text.split()) > 2 for text in contents])
            return found

    monkeypatch.setattr(text_command, "SentenceEncoder", Cuts)
    lines = (files / "data" / "tiny" / "tiny.item").read_text().splitlines()[1:]
    titles = [line.split("\t")[1].split() for line in lines]
    n = sum(len(title) > 2 for title in titles)
    said = f"  {n} of {sum(map(bool, titles))} texts were cut off after 3 tokens\n"
    for command in (TEXT, INSPECT):
        code, out, _ = call(capsys, *command)
        assert code == 0 and said in out
    assert json.loads((files / "features/tiny/title/manifest.json").read_text())["n_cut"] == n


@pytest.mark.parametrize("what", ["text", "image", "profile", "describe"])
@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("--name=../../x", "--name takes the name of one folder, not '../../x'"),
        ("--features_dir=m.csv", "cannot make the folder m.csv/tiny/"),
        ("--features_dir=m.csv/deeper", "m.csv is a file; choose another --features_dir"),
    ],
)
def test_a_place_is_refused_before_a_model_is_loaded(
    where, sentence, what, files, capsys, monkeypatch
):
    def load(*arguments, **more):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(text_command, "SentenceEncoder", load)
    monkeypatch.setattr(written_command, "LocalWriter", load)
    monkeypatch.setattr("recbole_ext.feature_commands.images.OpenClipEncoder", load)
    (files / "data" / "a.png").write_bytes(b"")
    command = {"text": TEXT, "image": IMAGE, "profile": PROFILE, "describe": DESCRIBE}[what]
    given = {argument.partition("=")[0]: argument for argument in (*command, where)}
    code, _, err = call(capsys, *given.values())
    assert code == 2 and sentence in err and len(err.splitlines()) == 1
