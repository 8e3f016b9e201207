"""A function's signature as a command line."""

from __future__ import annotations

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
        (["--name=a", "--n"], "job: --n takes int, not 'True'"),
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
