"""Texts of a language model: what is asked again, what survives a kill, what failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.llm import Written
from recbole_ext.features.manifest import Source
from recbole_ext.features.texts import read_texts
from recbole_ext.features.writing import write_texts
from recbole_ext.types import UserError

PROMPTS = {f"u{i}": f"prompt {i}" for i in range(7)}
COLUMNS = ["token", "text", "problem", "prompt_hash", "model", "cutoff", "date"]


class Fake:
    """Writes in capitals; remembers what it was asked for."""

    def __init__(self, revision: str = "1", bad: tuple[str, ...] = (), **settings) -> None:
        self.source = Source("fake", revision, settings)
        self.asked: list[str] = []
        self.bad = bad

    def write(self, prompts):
        self.asked += prompts
        return [
            Written(None, "it is bad") if prompt in self.bad else Written(prompt.upper())
            for prompt in prompts
        ]


def make(folder, prompts, writer, **more):
    return write_texts(folder, prompts, writer, **{"batch_size": 2, "show_progress": False, **more})


def table(folder) -> pd.DataFrame:
    return pd.read_parquet(folder / "texts.parquet").set_index("token", drop=False)


def test_texts_are_kept_with_what_made_them(tmp_path):
    prompts = {**PROMPTS, "u9": None, "again": "prompt 3"}
    cutoffs = {token: float(i) for i, token in enumerate(prompts)}
    writer = Fake()
    texts = make(tmp_path, prompts, writer, cutoffs=cutoffs)
    assert writer.asked == list(PROMPTS.values())  # equal prompts once
    wanted = {token: prompt and prompt.upper() for token, prompt in prompts.items()}
    assert texts.texts == wanted == read_texts(tmp_path / "texts.parquet")
    assert texts.cutoffs == cutoffs and texts.cutoff == 8
    assert texts.notes == ("texts written by fake (1), {}",)
    rows = table(tmp_path)
    assert list(rows.columns) == COLUMNS and list(rows["token"]) == list(prompts)
    assert dict(rows["cutoff"]) == cutoffs and set(rows["model"].dropna()) == {"fake"}
    assert rows.loc["u3", "prompt_hash"] == rows.loc["again", "prompt_hash"]
    assert rows["prompt_hash"].nunique() == 7 and rows.loc["u0", "date"].endswith("+00:00")
    assert rows.loc["u9", "problem"] == "there is nothing to ask about it"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".lock", "texts.parquet", "written.parquet"}


@pytest.mark.parametrize("other", [Fake("2"), Fake(temperature=1)])
def test_only_what_is_new_is_written_and_nothing_is_lost(other, tmp_path):
    make(tmp_path, PROMPTS, Fake())
    writer = Fake()
    make(tmp_path, {**PROMPTS, "u2": "changed"}, writer)
    assert writer.asked == ["changed"]
    make(tmp_path, PROMPTS, other)
    assert len(other.asked) == 7  # another model, other settings
    make(tmp_path, {"u1": "prompt 1"}, other)
    writer = Fake()
    texts = make(tmp_path, {**PROMPTS, "u2": "changed"}, writer)  # after fewer, and another's
    assert writer.asked == [] and texts.texts["u2"] == "CHANGED" and len(table(tmp_path)) == 7


def test_failures_are_recorded_and_tried_again(tmp_path, caplog):
    texts = make(tmp_path, PROMPTS, Fake(bad=("prompt 2", "prompt 3")))
    assert texts.texts["u2"] is None and texts.texts["u4"] == "PROMPT 4"
    assert table(tmp_path).loc["u3", "problem"] == "it is bad"
    assert "2 have no text, the first is 'u2': it is bad" in caplog.text
    writer = Fake(bad=("prompt 3",))
    make(tmp_path, PROMPTS, writer)
    assert writer.asked == ["prompt 2", "prompt 3"]
    rows = table(tmp_path)
    assert rows.loc["u2", "text"] == "PROMPT 2" and pd.isna(rows.loc["u2", "problem"])


def test_a_text_with_a_flaw_is_a_text(tmp_path, caplog):
    class Cut(Fake):
        def write(self, prompts):
            return [Written(one.text, "cut off") for one in super().write(prompts)]

    make(tmp_path, PROMPTS, Cut())
    assert "7 have a text with a flaw, the first is 'u0': cut off" in caplog.text
    writer = Fake()
    make(tmp_path, PROMPTS, writer)
    assert writer.asked == [] and table(tmp_path).loc["u0", "problem"] == "cut off"


KILLED = """
    import os, signal, sys
    from tests.features.test_writing import PROMPTS, Fake, make
    from pathlib import Path
    where, when = Path(sys.argv[1]), int(sys.argv[2])
    calls, replace = [], os.replace
    def dies(old, new):
        calls.append(new)
        if len(calls) == abs(when):
            if when < 0:
                replace(old, new)
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(old, new)
    os.replace = dies
    make(where, PROMPTS, Fake())
"""


@pytest.mark.parametrize("when", [1, -2, 4, -4, 5, -5, 6, -6])
def test_a_kill_loses_only_the_batch_in_work(when, tmp_path):
    """Four parts, ``texts.parquet``, ``written.parquet``; before (+) and after (-) each is there.

    Each child is a fork, which has imported all.
    """
    child = os.fork() if hasattr(os, "fork") else pytest.skip("needs fork")
    if child == 0:
        sys.argv = ["", str(tmp_path), str(when)]
        try:
            exec(textwrap.dedent(KILLED), {})
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    writer = Fake()
    texts = make(tmp_path, PROMPTS, writer)
    n_kept = {1: 0, -2: 4, 4: 6}.get(when, 7)
    assert writer.asked == list(PROMPTS.values())[n_kept:]
    assert texts.texts == {token: prompt.upper() for token, prompt in PROMPTS.items()}
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".lock", "texts.parquet", "written.parquet"}


def test_nothing_is_sent_before_it_is_confirmed(tmp_path):
    asked, writer = [], Fake()
    with pytest.raises(UserError, match="not confirmed, so nothing was sent"):
        make(tmp_path, PROMPTS, writer, confirm=lambda new: asked.append(list(new)))
    assert writer.asked == [] and asked == [list(PROMPTS.values())]
    make(tmp_path, PROMPTS, writer, confirm=lambda new: True)
    make(tmp_path, PROMPTS, writer, confirm=lambda new: False)  # nothing is new, nobody is asked
    assert len(writer.asked) == 7


def test_what_cannot_be_used_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="the text of 'u1' has no cut-off; give one for each"):
        make(tmp_path, PROMPTS, Fake(), cutoffs={"u0": 1.0})
    (tmp_path / "written.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="written.parquet is damaged .* written anew"):
        make(tmp_path, PROMPTS, Fake())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder .*file"):
        make(tmp_path / "file", PROMPTS, Fake())


class Encoder:
    source = Source("fake", "1")

    def encode(self, contents):
        return Encoded(np.array([[len(text), 1.0] for text in contents]))


def test_the_cut_offs_go_with_the_texts_into_the_store(tmp_path):
    cutoffs = {"u0": 5.0, "u1": 881250949.0, "u2": 7.0}
    prompts = {"u0": "p", "u1": "longer", "u2": None}
    texts = make(tmp_path / "t", prompts, Fake(), cutoffs=cutoffs)

    def built(cutoffs):
        subject = Subject("taste", "text", "user", "tiny", cutoff=texts.cutoff)
        how = Building(show_progress=False)
        return build(tmp_path / "f", texts.texts, Encoder(), subject, how, cutoffs)

    store = built(texts.cutoffs)
    assert store.manifest.cutoff == 881250949.0
    aligned = store.align(["[PAD]", "u1", "u9", "u2", "u0"])
    assert aligned.cutoffs.dtype == np.float64
    found = aligned.cutoffs.tolist()
    assert (
        found[1] == 881250949.0
        and found[4] == 5.0
        and np.isnan([found[i] for i in (0, 2, 3)]).all()
    )
    old = store.manifest.generation
    store = built({**cutoffs, "u0": 6.0})  # the same vectors, another generation
    assert store.manifest.generation != old
    assert store.align(["", "u0"]).cutoffs[1] == 6.0
    store = built(None)
    assert store.align(["", "u0"]).cutoffs is None and "cutoff" not in store.rows
    assert len(list(Path(tmp_path / "f").iterdir())) == 4  # with the lock's file


def test_a_kill_by_another_process_is_no_different(tmp_path):
    """As above, but a process of its own: the module stands alone."""
    code = textwrap.dedent(KILLED)
    command = [sys.executable, "-c", code, str(tmp_path), "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    writer = Fake()
    make(tmp_path, PROMPTS, writer)
    assert writer.asked == list(PROMPTS.values())[2:]


def test_texts_are_written_by_one_process_at_a_time(tmp_path):
    class Meanwhile(Fake):
        def write(self, prompts):
            with pytest.raises(UserError, match="is at work in the folder of texts"):
                make(tmp_path, {"x": "other"}, Fake())
            return super().write(prompts)

    texts = make(tmp_path, PROMPTS, Meanwhile())
    assert all(texts.texts[token] for token in PROMPTS)
