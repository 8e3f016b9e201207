"""A function's signature as a command line."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from recbole_ext.arguments import call, help_of
from recbole_ext.types import UserError


def job(name: str, n: int = 3, share: float = 0.5, fast: bool = False, seed: int | None = None):
    """Do a job.

    It takes a while.

    Args:
        name: Of the job, which
            is long.
        n: How often.
    """
    return name, n, share, fast, seed


def test_values_take_the_types_of_the_signature():
    assert call(job, ["--name=12"], "job") == ("12", 3, 0.5, False, None)
    given = ["--name=a=b", "--n=4", "--share=1", "--fast", "--seed=~"]
    found = call(job, given, "job")
    assert found == ("a=b", 4, 1.0, True, None) and isinstance(found[2], float)
    assert call(job, ["--name=", "--fast=False", "--seed=7"], "job") == ("", 3, 0.5, False, 7)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "job needs --name=...; see job --help"),
        (["--name=a", "--nmae=b"], "job has no --nmae; did you mean 'name'?"),
        (["--name=a", "--zzzz=b"], "job has no --zzzz; there are --name, --n,"),
        (["--name=a", "--name=b"], "job: --name is given twice"),
        (["--name=a", "--n=2.5"], "job: --n takes int, not '2.5'"),
        (["--name=a", "--n"], "job: --n takes int; write --n=..."),
        (["--name=a", "--fast=2"], "job: --fast takes bool, not '2'"),
        (["--name=a", "--seed=x"], "job: --seed takes int, not 'x'"),
        (["--name=a", "fast"], "job: argument 'fast' is not understood"),
    ],
)
def test_what_cannot_be_meant(arguments, sentence):
    with pytest.raises(UserError) as raised:
        call(job, arguments, "job")
    assert str(raised.value).startswith(sentence)


def test_help():
    lines = help_of(job, "ext job").splitlines()
    assert lines[0] == "usage: ext job --key=value ..." and "Do a job." in lines
    assert "  --name           Of the job, which is long. (needed)" in lines
    assert "  --n              How often. (default 3)" in lines
    assert not any("Args" in line for line in lines)


@dataclass(frozen=True)
class Place:
    """Where.

    Attributes:
        town: Of the job.
        floor: Above
            ground.
    """

    town: str
    floor: int = 0


@dataclass(frozen=True)
class Room(Place):
    """A place with a number.

    Attributes:
        number: On the door.
    """

    number: int | None = None


def visit(room: Room, name: str = "", fast: bool = False):
    """Visit a room.

    Args:
        room: Which.
        name: Of the visitor.
        fast: Run.
    """
    return room, name, fast


def test_the_fields_of_a_dataclass_are_options_too():
    assert call(visit, ["--town=Rome"], "visit") == (Room("Rome"), "", False)
    found = call(visit, ["--number=7", "--fast", "--town=Rome", "--floor=2"], "visit")
    assert found == (Room("Rome", 2, 7), "", True)
    for arguments, sentence in (
        ([], "visit needs --town=...; see visit --help"),
        (["--town=Rome", "--flor=1"], "visit has no --flor; did you mean 'floor'"),
        (["--town=Rome", "--room=1"], "visit has no --room"),
        (["--town=Rome", "--floor=x"], "visit: --floor takes int, not 'x'; write --floor=<int>"),
        (["--town"], "visit: --town takes str; write --town=..."),
    ):
        with pytest.raises(UserError) as raised:
            call(visit, arguments, "visit")
        assert str(raised.value).startswith(sentence)
    lines = help_of(visit, "ext visit").splitlines()
    assert lines[4:] == [
        "  --town           Of the job. (needed)",
        "  --floor          Above ground.",
        "  --number         On the door.",
        "  --name           Of the visitor.",
        "  --fast           Run.",
    ]
